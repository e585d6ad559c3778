//! What the spool promises, tried from outside.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

mod contract;
mod failing;
mod failures;
mod full;
mod kill;
mod open;
mod reclaim;
mod recovery;
mod support;
