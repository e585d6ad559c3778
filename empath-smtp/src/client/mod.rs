//! The sending end: [`Transaction`] owns the protocol of one message, [`Connection`] owns the socket.
//!
//! - What goes in: [`Outgoing`], [`Source`], [`Timeouts`]; what comes out: [`Sent`], [`Failure`]
//! - Pure: [`Transaction`], [`Outbound`] (canonical content, dot-stuffed or in chunks), [`Extensions`], [`Limits`], the
//!   reply parser
//! - The driver: [`Connection`], over what a [`Dial`] has connected, encrypted with [`Tls`] on demand

mod auth;
mod connection;
mod content;
mod dial;
mod extensions;
mod failure;
mod hello;
mod limits;
mod outgoing;
mod reply;
mod stream;
mod survey;
mod timeouts;
mod tls;
mod transaction;

pub use crate::sasl::Secret;
pub use auth::{Credentials, MAX_TOKEN, Mechanisms, Proof, Token, TokenError, TokenStatus};
pub use connection::Connection;
pub use content::{Block, Framing, Outbound, Source};
pub use dial::{BoxStream, Carrier, Dial, Dialing, Sockets, Target, Way};
pub use extensions::{Extensions, SizeLimit};
pub use failure::{Failure, FailureKind, Feature, GarbledReason, Stage};
pub use hello::{Hello, Protocol};
pub use limits::Limits;
pub use outgoing::{Outgoing, Sent};
pub use reply::{MAX_LINE, MAX_LINES, MAX_REPLY};
pub use survey::Survey;
pub use timeouts::Timeouts;
pub use tls::{Expected, Roots, RootsError, Tls};
pub use transaction::{Chunks, Step, Transaction};
