//! What tests of more than one crate need. Never published.
//!
//! - [`daemon`]: the real binary on free ports in a temporary directory
//! - [`peer`]: a scripted SMTP server
//! - [`zone`]: a DNS server

pub mod daemon;
pub mod peer;
pub mod zone;
