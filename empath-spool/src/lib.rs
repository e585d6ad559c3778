//! Durable messages and their delivery progress. No mail policy.
//!
//! [`Spool`] is the contract; [`FileSpool`] keeps it with a journal, [`MemorySpool`] without a disk. [`open`] makes
//! the one that the [`Config`] asks for.
//!
//! A batch's way through the journal: `encoding` (in the caller's thread) → `backlog` → `committer` → `index`, and at
//! the next start `scan` → `recovery` → `index`. `keeper` prepares space and gives up dead segments. `files` is the
//! only way to the disk.

use std::sync::Arc;

mod backlog;
mod committer;
mod config;
mod damage;
mod encoding;
mod fields;
mod file_spool;
pub mod files;
mod index;
mod keeper;
mod memory;
mod metrics;
mod outcome;
mod progress;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
mod spool;

pub use config::{Backend, Config, PathProblem};
pub use damage::{Damage, DamageReason};
pub use file_spool::{FileSpool, OpenError};
pub use memory::MemorySpool;
pub use metrics::Metrics;
pub use progress::{Attempt, Ended, Progress, RecipientState, RecipientUpdate, Status};
pub use record::RecordError;
pub use recovery::Report;
pub use spool::{Batch, Closing, CommitError, Committed, Entry, LoadError, Loading, Spool, Stored};

/// Opens the spool that the configuration asks for. Blocks while it reads what is there.
pub fn open(config: &Config, metrics: Metrics) -> Result<(Arc<dyn Spool>, Report), OpenError> {
    match config.backend {
        Backend::File => {
            FileSpool::open(config, metrics).map(|(spool, report)| (Arc::new(spool) as _, report))
        }
        Backend::Memory => Ok((Arc::new(MemorySpool::new()), Report::default())),
    }
}
