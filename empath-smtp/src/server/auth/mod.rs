//! Users show who they are (RFC 4954).
//!
//! - Pure: `exchange` goes through one authentication with the messages of `plain`, `scram` and LOGIN, and puts an
//!   [`AuthQuery`] where it needs the users file.
//! - [`Authenticator`] answers it: from the users file (`store`, [`Users`], [`User`], `verifier`), slowly for those
//!   who fail (`failures`), and never with more hashing than was configured.
//! - [`edit`] changes a users file.

mod authenticator;
mod config;
pub mod edit;
mod exchange;
mod failures;
mod password;
mod plain;
mod scram;
mod store;
mod user;
mod users;
mod verifier;

pub use crate::sasl::Secret;
pub use authenticator::Authenticator;
pub use config::{AuthConfig, Mechanism, SenderCheck};
pub use exchange::{AuthAnswer, AuthQuery};
pub use user::{Identity, Sender, SenderError, User, UserError};
pub use users::{Users, UsersError};
pub use verifier::{Verifier, VerifierError};

pub(super) use exchange::{Exchange, Turn};

use super::reply;
use crate::sasl::prepare;
use exchange::Fault;
