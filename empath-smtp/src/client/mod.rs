//! The sending end: [`Transaction`] owns the protocol of one message, [`Connection`] owns the socket.
//!
//! - What goes in: [`Outgoing`], [`Source`], [`Timeouts`]; what comes out: [`Sent`], [`Failure`]
//! - Pure: [`Transaction`], [`Outbound`] (canonical, dot-stuffed content), [`Extensions`], the reply parser
//! - The driver: [`Connection`]

mod connection;
mod content;
mod extensions;
mod failure;
mod outgoing;
mod reply;
mod timeouts;
mod transaction;

pub use connection::Connection;
pub use content::{Outbound, Source, Survey};
pub use extensions::{Extensions, SizeLimit};
pub use failure::{Failure, FailureKind, Feature, GarbledReason, Stage};
pub use outgoing::{Outgoing, Sent};
pub use reply::{MAX_LINE, MAX_LINES};
pub use timeouts::Timeouts;
pub use transaction::{Step, Transaction};
