use std::sync::{Arc, Mutex, PoisonError};

use empath_common::MessageId;
use empath_spool::{Entry, LoadError, Stored};
use tokio::task::JoinSet;

use super::{Commits, Processor, Shared};
use crate::log;

/// How many messages are read at the same time.
const READERS: usize = 16;

impl Processor {
    /// Takes over every message of the spool that is not in the queue: what was pending is due at once, what was
    /// deferred at its stored time. Returns how many there were.
    ///
    /// It looks the messages up when it is called; those accepted while the future runs don't concern it.
    pub fn recover(&self) -> impl Future<Output = usize> + Send + use<> {
        let shared = Arc::clone(&self.0);
        let ids = Arc::new(Mutex::new(shared.spool.ids().into_iter()));
        async move {
            let mut readers = JoinSet::new();
            for _ in 0..READERS {
                readers.spawn(read(Arc::clone(&shared), Arc::clone(&ids)));
            }
            let mut recovered = 0;
            while let Some(read) = readers.join_next().await {
                recovered += read.unwrap_or_default();
            }
            recovered
        }
    }
}

async fn read(shared: Arc<Shared>, ids: Arc<Mutex<std::vec::IntoIter<MessageId>>>) -> usize {
    let next = || ids.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut commits = Commits::default();
    let mut recovered = 0;
    while let Some(id) = next() {
        match shared.spool.load(id).await {
            Ok(stored) => {
                if shared.restored(id, stored) {
                    recovered += 1;
                } else {
                    // The end of the last recipient was stored, the end of the message wasn't.
                    commits.push(&shared, id, Entry::Removed(id)).await;
                }
            }
            // It has ended since.
            Err(LoadError::Unknown(_)) => {}
            // The others must not wait for it.
            Err(failure) => log::not_read(id, &failure),
        }
    }
    commits.settled(&shared).await;
    recovered
}

impl Shared {
    fn restored(self: &Arc<Self>, id: MessageId, stored: Stored) -> bool {
        let now = self.now();
        let Stored { envelope, recipients, size } = stored;
        self.update(|queue| queue.restore(id, envelope, size, &recipients, now))
    }
}
