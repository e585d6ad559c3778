//! Deliveries from acceptance to their end, over a network on this machine and in virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bounces;
mod connections;
mod dead_hosts;
mod delays;
mod deliveries;
mod duplicates;
mod envelopes;
mod holds;
mod limits;
mod names;
mod notifications;
mod operator;
mod reloads;
mod retries;
mod schedule;
mod shutdown;
mod terms;
mod undelivered_reports;
mod untaken;
mod world;
