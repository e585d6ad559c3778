//! Durable messages and their delivery progress. No mail policy.
//!
//! [`Spool`] is the contract; [`FileSpool`] keeps it with a journal, [`MemorySpool`] without a disk. [`open`] makes
//! the one that the [`Config`] asks for.
//!
//! A batch's way through the journal: `encoding` (in the caller's thread) → `backlog` → `committer` → `index`, and at
//! the next start `contents` or `scan` → `recovery` → `index`. `keeper` prepares space, writes down the `contents` of
//! sealed segments, lets `compaction` empty the oldest and gives up those that are dead. Large content goes past the
//! journal into files of its own (`large`). `files` is the only way to the disk.

use std::sync::Arc;

mod aside;
mod backlog;
mod chain;
mod committer;
mod compaction;
mod condensed;
mod config;
mod content;
mod contents;
mod damage;
mod deletions;
mod directory;
mod encoding;
mod engine;
#[cfg(test)]
mod faults;
mod fields;
mod file_spool;
pub mod files;
mod index;
mod keeper;
mod kept;
mod large;
mod listing;
mod memory;
mod metrics;
mod outcome;
mod progress;
mod quarantine;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
mod settling;
mod spool;
mod verify;
mod window;

pub use config::{Backend, Config, PathProblem, Sync};
pub use content::{Content, Reader};
pub use damage::{Damage, DamageReason};
pub use file_spool::{FileSpool, OpenError};
pub use kept::{KeptReason, KeptSegment};
pub use memory::MemorySpool;
pub use metrics::{Metrics, Usage};
pub use progress::{Attempt, Ended, Progress, RecipientState, RecipientUpdate, Status, Untold};
pub use quarantine::{Kept, Quarantine};
pub use record::RecordError;
pub use recovery::Report;
pub use spool::{
    Batch, Closing, CommitError, Committed, Draft, Entry, LoadError, Loading, LoadingSome, Spool, Stored,
    Verifying, Writing,
};
pub use verify::{Verification, verify};

/// Opens the spool that the configuration asks for. Blocks while it reads what is there.
pub fn open(config: &Config, metrics: Metrics) -> Result<(Arc<dyn Spool>, Report), OpenError> {
    match config.backend {
        Backend::File => {
            FileSpool::open(config, metrics).map(|(spool, report)| (Arc::new(spool) as _, report))
        }
        Backend::Memory => Ok((Arc::new(MemorySpool::new()), Report::default())),
    }
}
