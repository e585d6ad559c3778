use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use empath_common::{Domain, ForwardPath, MessageId};
use empath_spool::{CommitError, Ended, Entry, Progress, RecipientUpdate, Status};

use super::{
    Processor, Shared,
    view::{HistoryView, MessageView, Stats, history},
};
use crate::{
    log,
    queue::{Fate, Job, JobRecipient, MessageStatus, RecipientStatus, Settlement, Snapshot},
};

/// How many messages are looked at while the queue is locked.
const PAGE: usize = 256;

/// Which messages are meant: those for which all that is given holds. Nothing given is all messages.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// This message.
    pub id: Option<MessageId>,
    /// Messages with this status.
    pub status: Option<MessageStatus>,
    /// Messages that have a recipient in this domain which has not ended.
    pub domain: Option<Domain>,
    /// Messages of this sender, without brackets; empty for the null reverse-path.
    pub sender: Option<String>,
}

/// What an operation of an operator came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touched {
    /// Messages that were meant.
    pub matched: usize,
    /// Messages that it changed something about.
    pub changed: usize,
}

impl Filter {
    fn matches(&self, message: &Snapshot) -> bool {
        let domain = |domain: &Domain| outstanding(message).any(|path| path.domain() == Some(domain));
        self.id.is_none_or(|id| id == message.id)
            && self.status.is_none_or(|status| status == message.status)
            && self.domain.as_ref().is_none_or(domain)
            && self.sender.as_ref().is_none_or(|sender| message.envelope.reverse_path.as_str() == sender)
    }
}

/// Recipients that have not ended.
fn outstanding(message: &Snapshot) -> impl Iterator<Item = &ForwardPath> {
    let ended = |status: RecipientStatus| {
        matches!(status, RecipientStatus::Completed | RecipientStatus::Failed | RecipientStatus::Expired)
    };
    let recipients = message.envelope.recipients().iter().zip(&message.recipients);
    recipients.filter(move |(_, (status, ..))| !ended(*status)).map(|(path, _)| path)
}

impl Processor {
    /// Up to `limit` messages behind `after` in the order of their ids, which is that of their reception.
    pub async fn list(
        &self,
        filter: &Filter,
        mut after: Option<MessageId>,
        limit: usize,
    ) -> Vec<MessageView> {
        let mut views = Vec::new();
        while views.len() < limit {
            let page = self.page(filter, after);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for message in page.iter().filter(|message| filter.matches(message)).take(limit - views.len()) {
                views.push(self.show(message).await.0);
            }
        }
        views
    }

    /// One message with every attempt so far, oldest first.
    pub async fn view(&self, id: MessageId) -> Option<(MessageView, Vec<HistoryView>)> {
        let message = self.0.lock().queue.snapshot(id)?;
        Some(self.show(&message).await)
    }

    /// The queue in numbers.
    pub async fn stats(&self) -> Stats {
        let mut by_domain = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.page(&Filter::default(), after);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for message in &page {
                let domains: BTreeSet<_> = outstanding(message).filter_map(ForwardPath::host).collect();
                for domain in domains {
                    *by_domain.entry(domain.to_string()).or_default() += 1;
                }
            }
            tokio::task::yield_now().await;
        }
        let now = self.0.now();
        let state = self.0.lock();
        let age =
            |received: jiff::Timestamp| u64::try_from(now.duration_since(received).as_secs()).unwrap_or(0);
        Stats {
            total: state.queue.len(),
            by_status: MessageStatus::ALL.map(|status| (status, state.queue.count_of(status))).into(),
            by_domain,
            oldest_seconds: state.queue.oldest().map(age),
        }
    }

    /// Tries deferred recipients now.
    pub async fn retry(&self, filter: &Filter) -> Touched {
        let mut touched = Touched::default();
        let mut after = None;
        loop {
            let page = self.page(filter, after);
            let Some(last) = page.last() else { return touched };
            after = Some(last.id);
            let now = self.0.now();
            for message in page.iter().filter(|message| filter.matches(message)) {
                touched.matched += 1;
                let due = self.0.update(|queue| queue.retry(message.id, now));
                touched.changed += usize::from(due.is_some_and(|due| due > 0));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Removes messages without telling anybody. What is in flight is finished, and may be delivered yet; what of it fails
    /// is removed too, for now or for good. When this answers, the removal is durable: nothing of it is tried after a
    /// restart.
    pub async fn delete(&self, filter: &Filter) -> Result<Touched, CommitError> {
        let mut touched = Touched::default();
        let mut after = None;
        loop {
            let page = self.page(filter, after);
            let Some(last) = page.last() else {
                return Ok(touched);
            };
            after = Some(last.id);
            let ids = page.iter().filter(|message| filter.matches(message)).map(|message| message.id);
            let ids: Vec<_> = ids.collect();
            touched.matched += ids.len();
            touched.changed += self.0.delete(ids).await?;
        }
    }

    fn page(&self, filter: &Filter, after: Option<MessageId>) -> Vec<Snapshot> {
        let state = self.0.lock();
        match (filter.id, after) {
            (Some(id), None) => state.queue.snapshot(id).into_iter().collect(),
            (Some(_), Some(_)) => Vec::new(),
            (None, after) => state.queue.page(after, PAGE),
        }
    }

    async fn show(&self, message: &Snapshot) -> (MessageView, Vec<HistoryView>) {
        // What is not known is left out; a message that has just ended is shown as it was.
        let stored = self.0.spool.load(message.id).await.ok();
        let route = |recipient| {
            let next_hop = self.0.lock().queue.route(&message.envelope, recipient);
            next_hop.map(|next_hop| next_hop.to_string())
        };
        let view = MessageView::new(message, stored.as_ref(), route);
        (view, stored.as_ref().map(history).unwrap_or_default())
    }
}

impl Shared {
    async fn delete(self: &Arc<Self>, ids: Vec<MessageId>) -> Result<usize, CommitError> {
        let now = self.now();
        let mut removals = Vec::new();
        let mut batch = Vec::new();
        for id in ids {
            let job = self.update(|queue| {
                let flying = queue.in_flight(id);
                let job = queue.delete(id, now)?;
                let last = queue.would_end(id, job.recipients.len());
                Some((job, last, flying))
            });
            let Some((job, last, flying)) = job else { continue };
            batch.push(if last { Entry::Removed(id) } else { Entry::Progress(removal(&job, &flying)) });
            removals.push((job, last));
        }
        let outcome = if batch.is_empty() { Ok(()) } else { self.commit(batch).await };
        let mut late = Ok(());
        for (job, last) in &removals {
            let settlements: Vec<_> =
                job.recipients.iter().map(|recipient| settlement(recipient, outcome.is_ok())).collect();
            let ended = self.update(|queue| {
                if outcome.is_err() {
                    queue.undelete(job.id);
                }
                queue.settle(job.id, &settlements, now)
            });
            if ended && !last {
                // The last one in flight came down while the batch was written.
                self.store(job.id, Entry::Removed(job.id)).await;
                late = self.in_order(job.id);
            }
            if outcome.is_ok() {
                say(job);
            }
        }
        outcome.and(late).map(|()| removals.len())
    }
}

/// For what is in flight as well: if it comes down, there is a later word.
fn removal(job: &Job, flying: &[(u32, u32)]) -> Progress {
    let update = |(recipient, attempts)| RecipientUpdate {
        recipient,
        status: Status::Ended(Ended::Removed),
        attempts,
        next_attempt_at: None,
        told_of_delay: false,
        attempt: None,
    };
    let waiting = job.recipients.iter().map(|recipient| (recipient.index, recipient.attempts));
    Progress { id: job.id, updates: waiting.chain(flying.iter().copied()).map(update).collect() }
}

fn settlement(recipient: &JobRecipient, removed: bool) -> Settlement {
    let fate = if removed { Fate::Ended(Ended::Removed) } else { Fate::Due(recipient.due) };
    Settlement { index: recipient.index, attempts: recipient.attempts, fate }
}

fn say(job: &Job) {
    for recipient in &job.recipients {
        if let Some(path) = job.envelope.recipients().get(recipient.index as usize) {
            log::removed(job.id, path, recipient.attempts);
        }
    }
}
