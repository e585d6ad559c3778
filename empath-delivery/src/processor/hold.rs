use std::sync::Arc;

use empath_common::MessageId;
use empath_spool::{CommitError, Entry};

use super::{Filter, Processor, Shared, Touched};
use crate::log;

impl Processor {
    /// Stops messages: what is in flight is finished, nothing else starts, and nothing expires, also after a restart. When
    /// this answers, that is durable.
    pub async fn hold(&self, filter: &Filter) -> Result<Touched, CommitError> {
        self.set_held(filter, true).await
    }

    /// Lets messages go on where they were held: what is due starts at once.
    pub async fn release(&self, filter: &Filter) -> Result<Touched, CommitError> {
        self.set_held(filter, false).await
    }

    async fn set_held(&self, filter: &Filter, held: bool) -> Result<Touched, CommitError> {
        let mut touched = Touched::default();
        let mut after = None;
        loop {
            let Some(page) = self.page(filter, after).await else { return Ok(touched) };
            after = Some(page.last);
            touched.matched += page.matching.len();
            let ids = page.matching.iter().map(|message| message.id);
            touched.changed += if held { self.0.hold(ids).await? } else { self.0.release(ids).await? };
        }
    }
}

impl Shared {
    /// Nothing starts while this becomes durable; what cannot be made durable goes on.
    async fn hold(self: &Arc<Self>, ids: impl Iterator<Item = MessageId>) -> Result<usize, CommitError> {
        let now = self.now();
        let held: Vec<_> = ids.filter(|id| self.update(|queue| queue.hold(*id, now)) == Some(true)).collect();
        let outcome = self.commit_held(&held, true).await;
        for id in &held {
            if outcome.is_ok() {
                log::held(*id);
            } else {
                self.update(|queue| queue.release(*id, now));
            }
        }
        outcome.map(|()| held.len())
    }

    async fn release(self: &Arc<Self>, ids: impl Iterator<Item = MessageId>) -> Result<usize, CommitError> {
        let held: Vec<_> = ids.filter(|id| self.lock().queue.is_held(*id)).collect();
        self.commit_held(&held, false).await?;
        let now = self.now();
        for id in &held {
            log::released(*id);
            self.update(|queue| queue.release(*id, now));
        }
        Ok(held.len())
    }

    async fn commit_held(&self, ids: &[MessageId], held: bool) -> Result<(), CommitError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.commit(ids.iter().map(|id| Entry::Held { id: *id, held }).collect()).await
    }
}
