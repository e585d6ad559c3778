//! What both ends of AUTH know: secrets, how names and passwords are prepared, and the keys of SCRAM.

mod keys;
pub(crate) mod prepare;
mod secret;

pub(crate) use keys::{Keys, hash, sign};
pub use secret::Secret;
