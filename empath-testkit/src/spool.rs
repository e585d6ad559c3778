//! A spool in memory of which a test changes what it is about.

use std::io;

use empath_common::MessageId;
use empath_spool::{
    Batch, Closing, Committed, Content, Draft, KeptSegment, Loading, LoadingSome, MemorySpool, Quarantine,
    Spool, Stored, Verifying, Writing, files::Free,
};

/// What is to be otherwise than in the spool in memory: everything else goes there.
pub trait Hooks: Send + Sync + 'static {
    /// [`Spool::commit`].
    fn commit(&self, memory: &MemorySpool, batch: Batch) -> Committed {
        memory.commit(batch)
    }

    /// [`Spool::load`].
    fn load<'a>(&'a self, memory: &'a MemorySpool, id: MessageId) -> Loading<'a, Stored> {
        memory.load(id)
    }

    /// [`Spool::load_some`].
    fn load_some<'a>(&'a self, memory: &'a MemorySpool, ids: Vec<MessageId>) -> LoadingSome<'a> {
        memory.load_some(ids)
    }

    /// [`Spool::content`].
    fn content<'a>(&'a self, memory: &'a MemorySpool, id: MessageId) -> Loading<'a, Content> {
        memory.content(id)
    }

    /// [`Spool::set_aside`].
    fn set_aside<'a>(&'a self, memory: &'a MemorySpool, id: MessageId) -> Loading<'a, ()> {
        memory.set_aside(id)
    }

    /// [`Spool::verify`].
    fn verify<'a>(&'a self, memory: &'a MemorySpool) -> Verifying<'a> {
        memory.verify()
    }

    /// [`Spool::kept`].
    fn kept(&self, memory: &MemorySpool) -> Vec<KeptSegment> {
        memory.kept()
    }

    /// [`Spool::is_healthy`].
    fn is_healthy(&self, memory: &MemorySpool) -> bool {
        memory.is_healthy()
    }
}

/// The spool in memory behind some hooks.
#[derive(Debug, Default)]
pub struct HookedSpool<H> {
    /// Where messages are.
    pub memory: MemorySpool,
    /// What is otherwise.
    pub hooks: H,
}

impl<H: Hooks> Spool for HookedSpool<H> {
    fn commit(&self, batch: Batch) -> Committed {
        self.hooks.commit(&self.memory, batch)
    }

    fn ids(&self) -> Vec<MessageId> {
        self.memory.ids()
    }

    fn len(&self) -> usize {
        self.memory.len()
    }

    fn load(&self, id: MessageId) -> Loading<'_, Stored> {
        self.hooks.load(&self.memory, id)
    }

    fn load_some(&self, ids: Vec<MessageId>) -> LoadingSome<'_> {
        self.hooks.load_some(&self.memory, ids)
    }

    fn content(&self, id: MessageId) -> Loading<'_, Content> {
        self.hooks.content(&self.memory, id)
    }

    fn set_aside(&self, id: MessageId) -> Loading<'_, ()> {
        self.hooks.set_aside(&self.memory, id)
    }

    fn draft(&self, id: MessageId) -> Writing<'_, Box<dyn Draft>> {
        self.memory.draft(id)
    }

    fn free(&self) -> io::Result<Free> {
        self.memory.free()
    }

    fn verify(&self) -> Verifying<'_> {
        self.hooks.verify(&self.memory)
    }

    fn kept(&self) -> Vec<KeptSegment> {
        self.hooks.kept(&self.memory)
    }

    fn quarantine(&self) -> Option<Quarantine> {
        self.memory.quarantine()
    }

    fn is_healthy(&self) -> bool {
        self.hooks.is_healthy(&self.memory)
    }

    fn close(&self) -> Closing<'_> {
        self.memory.close()
    }
}
