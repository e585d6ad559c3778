//! What the spool promises, tried from outside.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

mod compaction;
mod contents;
mod contract;
mod damaged;
mod directory;
mod failing;
mod failures;
mod full;
mod golden;
mod keys;
mod kill;
mod large;
mod numbers;
mod open;
mod reclaim;
mod recovery;
mod start;
mod support;
