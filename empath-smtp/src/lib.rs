//! Both ends of SMTP (RFC 5321): pure machines that see octets and return steps, and thin drivers around them.
//!
//! - [`server`]: a `server::Session` answers a client.
//! - [`client`]: a `client::Transaction` gives a message to a server.
//!
//! This crate knows nothing of spool or delivery; the daemon joins them.

pub mod client;
pub mod server;

mod pairs;
mod sasl;
mod tls;
