//! A spool that fails on demand.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use empath_common::MessageId;
use empath_spool::{
    Batch, CommitError, Committed, Content, LoadError, Loading, MemorySpool, Spool as _, Stored,
};
use empath_testkit::spool::Hooks;
use tokio::time::sleep;

/// How the spool fails on demand.
#[derive(Default)]
pub(crate) struct Failing {
    /// Commits fail.
    pub(crate) full: AtomicBool,
    /// No content verifies.
    pub(crate) damaged: AtomicBool,
    /// Envelopes are not given back: by a disk that may mend, or for good.
    pub(crate) unreadable: Mutex<Option<Unreadable>>,
    /// Envelopes are given back this late.
    pub(crate) slow: Mutex<Option<Duration>>,
    /// Some message was set aside.
    pub(crate) set_aside: AtomicBool,
    committed: Mutex<Vec<Batch>>,
}

impl Failing {
    /// What was committed so far.
    pub(crate) fn committed(&self) -> Vec<Batch> {
        self.committed.lock().unwrap().clone()
    }
}

/// Why the spool does not give an envelope back.
#[derive(Clone, Copy)]
pub(crate) enum Unreadable {
    Io,
    Damaged,
}

impl Hooks for Failing {
    fn load<'a>(&'a self, memory: &'a MemorySpool, id: MessageId) -> Loading<'a, Stored> {
        if let Some(slow) = *self.slow.lock().unwrap() {
            return Box::pin(async move {
                sleep(slow).await;
                memory.load(id).await
            });
        }
        let failure = match *self.unreadable.lock().unwrap() {
            None => return memory.load(id),
            Some(Unreadable::Io) => LoadError::Io { id, source: io::Error::other("bad block") },
            Some(Unreadable::Damaged) => LoadError::Damaged { id, reason: "a checksum does not match" },
        };
        Box::pin(std::future::ready(Err(failure)))
    }

    fn commit(&self, memory: &MemorySpool, batch: Batch) -> Committed {
        if self.full.load(Relaxed) {
            let error = io::Error::from(io::ErrorKind::StorageFull);
            return Committed::answered(Err(CommitError::Full(Arc::new(error))));
        }
        self.committed.lock().unwrap().push(batch.clone());
        memory.commit(batch)
    }

    fn content<'a>(&'a self, memory: &'a MemorySpool, id: MessageId) -> Loading<'a, Content> {
        if self.damaged.load(Relaxed) {
            let failure = LoadError::Damaged { id, reason: "a checksum does not match" };
            return Box::pin(std::future::ready(Err(failure)));
        }
        memory.content(id)
    }

    fn set_aside<'a>(&'a self, memory: &'a MemorySpool, id: MessageId) -> Loading<'a, ()> {
        self.set_aside.store(true, Relaxed);
        memory.set_aside(id)
    }

    fn is_healthy(&self, _: &MemorySpool) -> bool {
        !self.full.load(Relaxed)
    }
}
