use std::{collections::BTreeMap, sync::Arc};

use empath_common::{Domain, Host, MessageId};
use empath_spool::{CommitError, Ended, Entry, LoadError, Progress, RecipientUpdate, Status, Stored};

use super::{
    Processor, Shared,
    view::{HistoryView, MessageView, Stats, history},
};
use crate::{
    log,
    queue::{Fate, JobRecipient, MessageStatus, Queued, Settlement, Snapshot},
    route::Mail,
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
    /// Whether what the queue knows about the message is as it must be. Its sender is in the spool.
    fn may_match(&self, message: &Snapshot) -> bool {
        let domain = |domain: &Domain| {
            outstanding(message).any(|host| matches!(host, Some(Host::Domain(other)) if other == domain))
        };
        self.id.is_none_or(|id| id == message.id)
            && self.status.is_none_or(|status| status == message.status)
            && self.domain.as_ref().is_none_or(domain)
    }
}

/// Where recipients go that have not ended.
fn outstanding(message: &Snapshot) -> impl Iterator<Item = Option<&Host>> {
    let recipients = message.hosts.iter().zip(&message.recipients);
    recipients.filter(|(_, (status, ..))| !status.is_end()).map(|(host, _)| host.as_ref())
}

/// What a filter means of some messages that follow each other in the queue.
pub(super) struct Page {
    /// The last that was looked at.
    pub(super) last: MessageId,
    pub(super) matching: Vec<Snapshot>,
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
            let Some(mut page) = self.page(filter, after).await else { break };
            after = Some(page.last);
            page.matching.truncate(limit - views.len());
            let stored =
                self.0.spool.load_some(page.matching.iter().map(|message| message.id).collect()).await;
            for (message, (_, stored)) in page.matching.iter().zip(stored) {
                views.extend(self.show(message, stored).map(|(view, _)| view));
            }
        }
        views
    }

    /// One message with every attempt so far, oldest first.
    pub async fn view(&self, id: MessageId) -> Option<(MessageView, Vec<HistoryView>)> {
        let message = self.0.lock().queue.snapshot(id)?;
        self.show(&message, self.0.spool.load(id).await)
    }

    /// The queue in numbers.
    pub async fn stats(&self) -> Stats {
        let mut by_domain = BTreeMap::new();
        let mut after = None;
        loop {
            let Some(page) = self.page(&Filter::default(), after).await else { break };
            after = Some(page.last);
            for message in &page.matching {
                let mut hosts: Vec<_> = outstanding(message).flatten().collect();
                hosts.sort_unstable();
                hosts.dedup();
                for host in hosts {
                    *by_domain.entry(host.to_string()).or_default() += 1;
                }
            }
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

    /// Tries deferred recipients now, and destinations that are left alone; messages that wait for either are changed. What its
    /// sender has scheduled for later goes only if its id is given: an operator who means all mail wants to hurry what is
    /// stuck, not what is in order.
    pub async fn retry(&self, filter: &Filter) -> Touched {
        let mut touched = Touched::default();
        let mut after = None;
        loop {
            let Some(page) = self.page(filter, after).await else { return touched };
            after = Some(page.last);
            let now = self.0.now();
            for message in &page.matching {
                touched.matched += 1;
                let due = self.0.update(|queue| {
                    if filter.id.is_some() {
                        queue.unschedule(message.id, now);
                    }
                    queue.retry(message.id, now)
                });
                touched.changed += usize::from(due.is_some_and(|due| due > 0));
            }
        }
    }

    /// Removes messages without telling anybody. What is in flight is finished, and may be delivered yet; what of it fails
    /// is removed too, for now or for good. When this answers, the removal is durable: nothing of it is tried after a
    /// restart.
    pub async fn delete(&self, filter: &Filter) -> Result<Touched, CommitError> {
        let mut touched = Touched::default();
        let mut after = None;
        loop {
            let Some(page) = self.page(filter, after).await else { return Ok(touched) };
            after = Some(page.last);
            touched.matched += page.matching.len();
            touched.changed +=
                self.0.delete(page.matching.iter().map(|message| message.id).collect()).await?;
        }
    }

    /// Looks at the messages behind `after`; `None` when there are none. Envelopes are read only where the filter needs
    /// them.
    pub(super) async fn page(&self, filter: &Filter, after: Option<MessageId>) -> Option<Page> {
        let mut seen = {
            let state = self.0.lock();
            match (filter.id, after) {
                (Some(id), None) => state.queue.snapshot(id).into_iter().collect(),
                (Some(_), Some(_)) => Vec::new(),
                (None, after) => state.queue.page(after, PAGE),
            }
        };
        let last = seen.last()?.id;
        seen.retain(|message| filter.may_match(message));
        if let Some(sender) = &filter.sender {
            let ids = seen.iter().map(|message| message.id).collect();
            let mut stored = self.0.spool.load_some(ids).await.into_iter();
            let is_from = |(_, stored): (_, Result<Stored, _>)| {
                stored.is_ok_and(|stored| stored.envelope.reverse_path.as_str() == sender)
            };
            seen.retain(|_| stored.next().is_some_and(is_from));
        } else {
            // Deliveries have their turn.
            tokio::task::yield_now().await;
        }
        Some(Page { last, matching: seen })
    }

    /// A message as it was, with what the spool says about it; `None` if it has ended since.
    fn show(
        &self,
        message: &Snapshot,
        stored: Result<Stored, LoadError>,
    ) -> Option<(MessageView, Vec<HistoryView>)> {
        let stored = match stored {
            Ok(stored) => Some(stored),
            Err(LoadError::Unknown(_)) => return None,
            // What is not known is left out.
            Err(_) => None,
        };
        let route = |recipient: usize| {
            let host = message.hosts.get(recipient)?;
            let state = self.0.lock();
            let routes = state.queue.routes();
            let by_path = |stored: &Stored| routes.sender_class(&stored.envelope.reverse_path);
            let sender = stored.as_ref().map_or(message.sender, by_path);
            let route = routes.route_to(Mail { sender, ..message.mail() }, host.as_ref());
            Some(route.next_hop.to_string())
        };
        let view = MessageView::new(message, stored.as_ref(), route);
        Some((view, stored.as_ref().map(history).unwrap_or_default()))
    }
}

impl Shared {
    async fn delete(self: &Arc<Self>, ids: Vec<MessageId>) -> Result<usize, CommitError> {
        let now = self.now();
        let mut removals = Vec::new();
        let mut batch = Vec::new();
        // For the log: afterwards nobody can tell who they were.
        let stored = self.spool.load_some(ids).await;
        for (id, stored) in stored {
            let job = self.update(|queue| {
                let flying = queue.in_flight(id);
                let job = queue.delete(id, now)?;
                let untold = queue.untold(id);
                let last = queue.would_end(id, job.recipients.len() + untold.len());
                Some((job, last, flying, untold))
            });
            let Some((job, last, flying, untold)) = job else { continue };
            let removal = || Entry::Progress(removal(&job, &flying, &untold));
            batch.push(if last { Entry::Removed(id) } else { removal() });
            removals.push((job, untold, last, stored.ok()));
        }
        let outcome = if batch.is_empty() { Ok(()) } else { self.commit(batch).await };
        let mut late = Ok(());
        for (job, untold, last, stored) in &removals {
            // Of those that have ended nobody is told any more.
            let untold = untold.iter().filter(|_| outcome.is_ok()).map(|(recipient, _)| recipient);
            let recipients = job.recipients.iter().chain(untold);
            let settlements: Vec<_> =
                recipients.map(|recipient| settlement(recipient, outcome.is_ok())).collect();
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
                say(job, stored.as_ref());
            }
        }
        outcome.and(late).map(|()| removals.len())
    }
}

/// For what is in flight as well: if it comes down, there is a later word.
fn removal(job: &Queued, flying: &[(u32, u32)], untold: &[(JobRecipient, Ended)]) -> Progress {
    let update = |(recipient, attempts, ended)| RecipientUpdate {
        recipient,
        status: Status::Ended(ended),
        attempts,
        next_attempt_at: None,
        told_of_delay: false,
        untold: None,
        attempt: None,
    };
    let waiting = job.recipients.iter().map(|recipient| (recipient.index, recipient.attempts));
    let removed = waiting.chain(flying.iter().copied());
    let removed = removed.map(|(recipient, attempts)| (recipient, attempts, Ended::Removed));
    let untold = untold.iter().map(|(recipient, ended)| (recipient.index, recipient.attempts, *ended));
    Progress { id: job.id, updates: removed.chain(untold).map(update).collect() }
}

fn settlement(recipient: &JobRecipient, removed: bool) -> Settlement {
    let fate = if removed { Fate::Ended(Ended::Removed) } else { Fate::Due(recipient.due) };
    Settlement { index: recipient.index, attempts: recipient.attempts, fate }
}

fn say(job: &Queued, stored: Option<&Stored>) {
    for recipient in &job.recipients {
        let paths = stored.map(|stored| stored.envelope.recipients());
        let path = paths.and_then(|paths| paths.get(recipient.index as usize));
        log::removed(job.id, path, recipient.attempts);
    }
}
