//! Outcomes that the spool did not take. They are kept and repeated until it does, so that a restart after a full or
//! broken disk has come back does not deliver again what was delivered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use empath_common::MessageId;
use empath_spool::{Batch, CommitError, Entry};
use tokio::time::sleep;

use super::Shared;
use crate::log;

/// How long the spool is left alone after its first refusal; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Most messages that are repeated at the same time.
const AT_ONCE: usize = 64;

/// One list a message, oldest first: not more than the history that the spool would have.
///
/// As long as a message stands here, what is recorded about it goes behind, lest an old state overwrite a later one.
#[derive(Default)]
pub(super) struct Untaken(BTreeMap<MessageId, Kept>);

struct Kept {
    /// Empty while the only one is being repeated.
    entries: VecDeque<Entry>,
    refusal: CommitError,
}

impl Untaken {
    fn refusal(&self, id: MessageId) -> Option<&CommitError> {
        self.0.get(&id).map(|kept| &kept.refusal)
    }

    /// The end of a message supersedes what came before.
    fn keep(&mut self, id: MessageId, entry: Entry, refusal: CommitError) {
        let kept = self.0.entry(id).or_insert_with(|| Kept { entries: VecDeque::new(), refusal });
        if matches!(entry, Entry::Removed(_)) {
            kept.entries.clear();
        }
        kept.entries.push_back(entry);
    }

    /// The oldest outcome of each of some messages.
    fn take(&mut self) -> Vec<(MessageId, Entry)> {
        let oldest = self.0.iter_mut().filter_map(|(id, kept)| Some((*id, kept.entries.pop_front()?)));
        oldest.take(AT_ONCE).collect()
    }

    fn taken(&mut self, id: MessageId) {
        if self.0.get(&id).is_some_and(|kept| kept.entries.is_empty()) {
            self.0.remove(&id);
        }
    }

    fn refused(&mut self, id: MessageId, entry: Entry, refusal: CommitError) {
        if let Some(kept) = self.0.get_mut(&id) {
            kept.refusal = refusal;
            if !matches!(kept.entries.front(), Some(Entry::Removed(_))) {
                kept.entries.push_front(entry);
            }
        }
    }
}

/// Repeats what is kept, with a pause that grows while the spool refuses.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let kept = !shared.lock().untaken.0.is_empty();
        tokio::select! {
            () = sleep(pause), if kept => {
                pause = if shared.repeat().await { FIRST_PAUSE } else { MAX_PAUSE.min(pause * 2) };
            }
            () = shared.refused.notified(), if !kept => {}
            () = shared.stopping.cancelled() => return,
        }
    }
}

impl Shared {
    /// Makes durable what goes on only when it is. Refused while the spool has not taken what came before.
    pub(super) async fn commit(&self, batch: Vec<Entry>) -> Result<(), CommitError> {
        let mut removed = Vec::new();
        for entry in &batch {
            match entry {
                Entry::Accepted { .. } => {}
                Entry::Progress(progress) => self.in_order(progress.id)?,
                Entry::Held { id, .. } => self.in_order(*id)?,
                Entry::Removed(id) => removed.push(*id),
            }
        }
        self.spool.commit(Batch(batch)).await?;
        let mut state = self.lock();
        for id in removed {
            state.untaken.0.remove(&id);
        }
        Ok(())
    }

    /// Records an outcome that stands, whether the spool takes it at once or not.
    pub(super) async fn store(&self, id: MessageId, entry: Entry) {
        let answer = match self.in_order(id) {
            Ok(()) => self.spool.commit(entry.clone().into()).await,
            refused => refused,
        };
        if let Err(refusal) = answer {
            self.keep(id, entry, refusal);
        }
    }

    /// An error if what is recorded about the message now must wait for what is kept.
    pub(super) fn in_order(&self, id: MessageId) -> Result<(), CommitError> {
        self.lock().untaken.refusal(id).cloned().map_or(Ok(()), Err)
    }

    /// The spool did not take an outcome that stands.
    pub(super) fn keep(&self, id: MessageId, entry: Entry, refusal: CommitError) {
        log::not_stored(id, &refusal);
        self.lock().untaken.keep(id, entry, refusal);
        self.refused.notify_one();
    }

    /// Commits everything that is kept, or finds out that the spool still refuses: then it is false.
    pub(super) async fn repeat(&self) -> bool {
        loop {
            let taken = self.lock().untaken.take();
            if taken.is_empty() {
                return true;
            }
            let commit = |(id, entry): (MessageId, Entry)| {
                let committed = self.spool.commit(entry.clone().into());
                (id, entry, committed)
            };
            let committing: Vec<_> = taken.into_iter().map(commit).collect();
            let mut healthy = true;
            for (id, entry, committed) in committing {
                let answer = committed.await;
                let mut state = self.lock();
                match answer {
                    Ok(()) => state.untaken.taken(id),
                    // It never will.
                    Err(refusal @ CommitError::TooLarge(_)) => {
                        log::not_stored(id, &refusal);
                        state.untaken.taken(id);
                    }
                    Err(refusal) => {
                        state.untaken.refused(id, entry, refusal);
                        healthy = false;
                    }
                }
            }
            if !healthy {
                return false;
            }
        }
    }
}
