//! The control protocol, its server and its client.
//!
//! Newline-delimited JSON over a Unix socket. A request is one line; its answer is any number of `ok` lines and
//! then one line that ends it:
//!
//! ```text
//! C: {"v":1,"command":"queue.list","status":"deferred"}
//! S: {"v":1,"ok":{"id":"01JD…","sender":"a@example.test",…}}
//! S: {"v":1,"ok":{"id":"01JE…",…}}
//! S: {"v":1,"end":true}
//! C: {"v":1,"command":"queue.view","id":"01JF…"}
//! S: {"v":1,"error":{"code":"not_found","message":"there is no message 01JF…"}}
//! ```
//!
//! A line `{"v":1,"wait":true}` may come before any of them: the daemon is still at it.

mod answers;
mod client;
mod dns;
mod failure;
mod filter;
mod queue;
mod request;
mod server;
mod socket;
mod spool;
mod why;
mod wire;

pub use answers::Answers;
pub use client::{Client, ClientError};
pub use dns::{CachedAnswer, Cleared, DnsOverride, ResolvedHost};
pub use empath_common::Priority;
pub use failure::{Failure, FailureCode};
pub use filter::{Filter, Selection};
pub use queue::{
    Changed, Frozen, HistoryEntry, LastReply, NotificationEntry, QueueEntry, QueueStats, QueueView,
    RecipientEntry, Status,
};
pub use request::{Connections, Pong, Reloaded, Request, SystemStatus};
pub use server::{ControlServer, Handler};
pub use socket::SocketError;
pub use spool::{Checked, Discarded, Finding, Kept, KeptSegment, Piece, SpoolStats};
pub use why::{Because, QueueWhy, WhyEntry};
pub use wire::VERSION;
