//! The server, seen from outside: dialogues, the end of data, deadlines, listeners.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod auth;
mod certificates;
mod chunks;
mod config;
mod deadlines;
mod dialogues;
mod hooks;
mod hostile;
mod intake;
mod listener;
mod machine;
mod memory;
mod metrics;
mod model;
mod proxy;
mod random;
mod relay;
mod script;
mod smuggling;
mod tls;
mod users;
