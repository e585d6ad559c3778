use std::{
    collections::BTreeMap,
    future::ready,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use empath_common::{Envelope, MessageId};

use crate::{
    Batch, CommitError, Committed, Content, Draft, Entry, LoadError, Loading, Quarantine, RecipientState,
    Spool, Stored, Verification, Writing,
    files::Free,
    spool::{Closing, LoadingSome, Verifying},
};

/// A spool that forgets everything when the process ends: for tests, benches and relays that may lose mail.
#[derive(Debug, Default)]
pub struct MemorySpool(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    messages: BTreeMap<MessageId, Message>,
    closed: bool,
}

#[derive(Debug)]
struct Message {
    envelope: Arc<Envelope>,
    content: Content,
    recipients: Vec<RecipientState>,
    held: bool,
}

impl MemorySpool {
    /// An empty spool.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<T>(&self, id: MessageId, view: impl Fn(&Message) -> T) -> Result<T, LoadError> {
        self.state().messages.get(&id).map(view).ok_or(LoadError::Unknown(id))
    }
}

struct MemoryDraft(Vec<u8>);

impl Draft for MemoryDraft {
    fn write<'a>(&'a mut self, octets: &'a [u8]) -> Writing<'a, ()> {
        self.0.extend_from_slice(octets);
        Box::pin(ready(Ok(())))
    }

    fn finish(self: Box<Self>) -> Writing<'static, Content> {
        Box::pin(ready(Ok(Bytes::from(self.0).into())))
    }
}

impl State {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Accepted { id, envelope, content } => {
                let recipients = vec![RecipientState::default(); envelope.recipients().len()];
                self.messages.insert(id, Message { envelope, content, recipients, held: false });
            }
            Entry::Progress(progress) => {
                if let Some(message) = self.messages.get_mut(&progress.id) {
                    progress.apply(&mut message.recipients);
                }
            }
            Entry::Held { id, held } => {
                if let Some(message) = self.messages.get_mut(&id) {
                    message.held = held;
                }
            }
            Entry::Removed(id) => {
                self.messages.remove(&id);
            }
        }
    }
}

impl Spool for MemorySpool {
    fn commit(&self, batch: Batch) -> Committed {
        let mut state = self.state();
        if state.closed {
            return Committed::answered(Err(CommitError::Closed));
        }
        batch.0.into_iter().for_each(|entry| state.apply(entry));
        Committed::answered(Ok(()))
    }

    fn ids(&self) -> Vec<MessageId> {
        self.state().messages.keys().copied().collect()
    }

    fn len(&self) -> usize {
        self.state().messages.len()
    }

    fn load(&self, id: MessageId) -> Loading<'_, Stored> {
        Box::pin(ready(self.find(id, |message| Stored {
            envelope: Arc::clone(&message.envelope),
            recipients: message.recipients.clone(),
            size: message.content.len(),
            held: message.held,
        })))
    }

    fn load_some(&self, ids: Vec<MessageId>) -> LoadingSome<'_> {
        Box::pin(async move {
            let mut loaded = Vec::with_capacity(ids.len());
            for id in ids {
                loaded.push((id, self.load(id).await));
            }
            loaded
        })
    }

    fn content(&self, id: MessageId) -> Loading<'_, Content> {
        Box::pin(ready(self.find(id, |message| message.content.clone())))
    }

    fn set_aside(&self, _: MessageId) -> Loading<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn draft(&self, _: MessageId) -> Writing<'_, Box<dyn Draft>> {
        Box::pin(ready(Ok(Box::new(MemoryDraft(Vec::new())) as _)))
    }

    fn free(&self) -> io::Result<Free> {
        Ok(Free { octets: u64::MAX, inodes: u64::MAX })
    }

    fn verify(&self) -> Verifying<'_> {
        Box::pin(ready(Verification::default()))
    }

    fn quarantine(&self) -> Option<Quarantine> {
        None
    }

    fn is_healthy(&self) -> bool {
        !self.state().closed
    }

    fn close(&self) -> Closing<'_> {
        self.state().closed = true;
        Box::pin(ready(()))
    }
}
