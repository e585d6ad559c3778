//! What tests of more than one crate need. Never published.
//!
//! - [`daemon`]: the real binary on free ports in a temporary directory
//! - [`peer`]: a scripted SMTP server
//! - [`spool`]: a spool in memory that does otherwise where a test says so
//! - [`tls`]: certificates made for a test
//! - [`zone`]: a DNS server

pub mod daemon;
pub mod peer;
pub mod spool;
pub mod tls;
pub mod zone;
