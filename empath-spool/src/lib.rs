//! Durable messages and their delivery progress. No mail policy.
//!
//! [`Spool`] is the contract.

mod progress;
mod spool;

pub use progress::{Attempt, Ended, Progress, RecipientState, RecipientUpdate, Status};
pub use spool::{Batch, CommitError, Committed, Entry, LoadError, Loading, Spool, Stored};
