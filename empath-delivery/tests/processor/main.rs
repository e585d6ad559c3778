//! Deliveries from acceptance to their end, over a network on this machine and in virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bounces;
mod connections;
mod deliveries;
mod envelopes;
mod holds;
mod notifications;
mod operator;
mod retries;
mod untaken;
mod world;
