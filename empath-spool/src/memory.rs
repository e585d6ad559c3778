use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use empath_common::{Envelope, MessageId};

use crate::{
    Batch, CommitError, Committed, Entry, LoadError, Loading, RecipientState, Spool, Stored, spool::Closing,
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
    content: Bytes,
    recipients: Vec<RecipientState>,
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

impl State {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Accepted { id, envelope, content } => {
                let recipients = vec![RecipientState::default(); envelope.recipients().len()];
                self.messages.insert(id, Message { envelope, content, recipients });
            }
            Entry::Progress(progress) => {
                if let Some(message) = self.messages.get_mut(&progress.id) {
                    progress.apply(&mut message.recipients);
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
            size: message.content.len() as u64,
        })))
    }

    fn content(&self, id: MessageId) -> Loading<'_, Bytes> {
        Box::pin(ready(self.find(id, |message| message.content.clone())))
    }

    fn is_healthy(&self) -> bool {
        !self.state().closed
    }

    fn close(&self) -> Closing<'_> {
        self.state().closed = true;
        Box::pin(ready(()))
    }
}
