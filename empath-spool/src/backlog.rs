//! Batches on their way from those who commit to the committer.

use std::{
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use empath_common::MessageId;
use tokio::sync::oneshot;

use crate::{
    CommitError,
    index::{Effect, Message},
    large::Large,
    record::Record,
};

/// An encoded batch that waits to be written.
pub(crate) struct Pending {
    pub(crate) records: Vec<(Record, Effect)>,
    /// Octets on disk.
    pub(crate) octets: u64,
    pub(crate) class: Class,
    /// Files that the records name.
    pub(crate) large: Vec<Arc<Large>>,
    pub(crate) answer: oneshot::Sender<Result<(), CommitError>>,
}

/// What a batch is, and so which space it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A message is in it.
    Content,
    /// Outcomes alone: they free space, and have some of their own.
    Outcome,
    /// A message as it stands elsewhere, to be written again if it is still as it was then.
    Moved(MessageId, Message),
}

/// A bounded queue that the committer empties at one go.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    batches: Vec<Pending>,
    octets: u64,
    closed: bool,
}

/// The committer writes hundreds of megabytes a second: more than this waits only when the disk stands still.
const MAX_OCTETS: u64 = 512 << 20;
const MAX_BATCHES: usize = 65_536;

/// What the committer is woken for.
pub(crate) enum Work {
    Batches(Vec<Pending>),
    /// Nothing came in time.
    Timeout,
    Closed,
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch. Some space is kept for batches that free others.
    pub(crate) fn push(&self, batch: Pending) -> Result<(), CommitError> {
        let (octets, batches) = if batch.class == Class::Content {
            (MAX_OCTETS, MAX_BATCHES)
        } else {
            (2 * MAX_OCTETS, 2 * MAX_BATCHES)
        };
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(CommitError::Closed);
        }
        let first = waiting.batches.is_empty();
        let full = waiting.octets + batch.octets > octets || waiting.batches.len() >= batches;
        if full && !first {
            let reason = io::Error::new(io::ErrorKind::ResourceBusy, "too many batches wait to be written");
            return Err(CommitError::Full(Arc::new(reason)));
        }
        waiting.octets += batch.octets;
        waiting.batches.push(batch);
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for batches and takes all of them; not longer than `patience`, where there is one.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Work {
        let mut waiting = self.waiting();
        while waiting.batches.is_empty() {
            if waiting.closed {
                return Work::Closed;
            }
            match patience {
                None => waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (guard, timeout) =
                        self.arrived.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner);
                    waiting = guard;
                    if timeout.timed_out() && waiting.batches.is_empty() {
                        return Work::Timeout;
                    }
                }
            }
        }
        waiting.octets = 0;
        Work::Batches(mem::take(&mut waiting.batches))
    }

    /// Takes what waits.
    #[cfg(test)]
    pub(crate) fn take_now(&self) -> Vec<Pending> {
        let mut waiting = self.waiting();
        waiting.octets = 0;
        mem::take(&mut waiting.batches)
    }

    /// Refuses further batches; those that wait are still to be taken.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.arrived.notify_one();
    }

    /// Refuses what waits, because nobody will take it.
    pub(crate) fn abandon(&self) {
        self.close();
        // Dropping the answers says `Closed`.
        self.waiting().batches.clear();
    }
}
