//! The wiring of Empath: configuration, the daemon, and the control client. The parts live in crates of their own.

pub mod config;
pub mod ctl;
pub mod daemon;
pub mod free_space;
pub mod intake;
pub mod operations;
pub mod spool_command;
pub mod users;
