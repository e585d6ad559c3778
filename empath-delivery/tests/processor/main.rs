//! Deliveries from acceptance to their end, over a network on this machine and in virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bounces;
mod connections;
mod dead_hosts;
mod delays;
mod deliveries;
mod duplicates;
mod envelopes;
mod failing;
mod holds;
mod joined_reports;
mod limits;
mod local_troubles;
mod log;
mod names;
mod notifications;
mod operator;
mod reloads;
mod retries;
mod rollup;
mod schedule;
mod scheduled;
mod senders;
mod shutdown;
mod silent_names;
mod sources;
mod terms;
mod undelivered_reports;
mod untaken;
mod world;
