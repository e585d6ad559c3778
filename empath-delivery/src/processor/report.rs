//! The sender is told what became of recipients.

use std::sync::Arc;

use bytes::Bytes;
use empath_common::{Envelope, MessageId};
use empath_spool::{CommitError, Content, Ended, Entry, Progress, RecipientUpdate, Status, Stored};
use jiff::Timestamp;

use super::{Commits, Shared};
use crate::{
    content::{header, whole},
    dsn::{self, News, Report},
    log::{self, Told},
    queue::{Fate, Job, Queued, Settlement},
};

impl Shared {
    /// Concludes about recipients of whose end the sender is told: at once if there is no other news of the message to be
    /// expected before long, else together with that.
    pub(super) async fn end(
        self: &Arc<Self>,
        job: &Job,
        mut progress: Progress,
        news: &News,
        content: &Content,
        commits: &mut Commits,
    ) -> Result<Told, CommitError> {
        let now_or_never = {
            let queue = &self.lock().queue;
            queue.is_all_news(job.id, progress.updates.len()) || queue.is_removing(job.id)
        };
        if now_or_never || !self.is_told(job) {
            progress.updates.iter_mut().for_each(|update| update.untold = None);
            return self.tell(job, progress, news, content, commits).await;
        }
        let settlements: Vec<_> = progress.updates.iter().map(settlement).collect();
        self.commit(vec![Entry::Progress(progress)]).await?;
        let now = self.now();
        // An operator may have removed it meanwhile.
        if self.update(|queue| queue.settle(job.id, &settlements, now)) {
            commits.push(self, job.id, Entry::Removed(job.id)).await;
        }
        Ok(Told::Later)
    }

    /// Whether somebody is told what became of a message.
    fn is_told(&self, job: &Job) -> bool {
        let live = self.live();
        live.dsn.enabled && dsn::is_told(&job.envelope, live.dsn.postmaster.as_ref())
    }

    /// Tells the sender of recipients that have ended before.
    pub(super) async fn tell_untold(self: &Arc<Self>, job: Queued, commits: &mut Commits) {
        if self.in_order(job.id).is_err() {
            // The spool does not know of their end yet.
            self.put_off(&job);
            return;
        }
        let Some(Stored { envelope, recipients: states, .. }) = self.stored(&job, commits).await else {
            return;
        };
        let job = job.with(envelope);
        let content = self.stored_content(job.id).await;
        let mut news = News::default();
        let mut updates = Vec::with_capacity(job.recipients.len());
        for recipient in &job.recipients {
            let state = states.get(recipient.index as usize);
            if let Some(state) = state {
                news.add(&job, recipient, state);
            }
            // That it is at its end the queue knows.
            let status = state.map(|state| state.status).filter(|status| matches!(status, Status::Ended(_)));
            updates.push(RecipientUpdate {
                recipient: recipient.index,
                status: status.unwrap_or(Status::Ended(Ended::Bounced)),
                attempts: recipient.attempts,
                next_attempt_at: None,
                told_of_delay: false,
                untold: None,
                attempt: None,
            });
        }
        let progress = Progress { id: job.id, updates };
        match self.tell(&job, progress, &news, &content, commits).await {
            // Somebody was to be told when they ended.
            Ok(Told::Nobody) if !self.is_told(&job) => log::untold(job.id, job.recipients.len()),
            Ok(_) => {}
            Err(failure) => {
                log::not_stored(job.id, &failure);
                self.put_off(&job);
            }
        }
    }

    /// Tells the sender: what became of recipients and the report are made durable together, then the queue is told.
    pub(super) async fn tell(
        self: &Arc<Self>,
        job: &Job,
        mut progress: Progress,
        news: &News,
        content: &Content,
        commits: &mut Commits,
    ) -> Result<Told, CommitError> {
        let now = self.now();
        let mut report = self.report(job, news, content, now).await;
        if self.lock().queue.is_removing(job.id) {
            // It was removed meanwhile, which is durable and stays so: nothing waits again, and of that nobody is told.
            let waiting = |update: &&mut RecipientUpdate| !matches!(update.status, Status::Ended(_));
            for update in progress.updates.iter_mut().filter(waiting) {
                (update.status, update.next_attempt_at) = (Status::Ended(Ended::Removed), None);
            }
            report = report.filter(|_| !news.arrived.is_empty());
        }
        let settlements: Vec<_> = progress.updates.iter().map(settlement).collect();
        let ending =
            settlements.iter().filter(|settlement| matches!(settlement.fate, Fate::Ended(_))).count();
        let last = self.lock().queue.would_end(job.id, ending);
        let mut batch = Vec::with_capacity(2);
        if let Some((id, envelope, content)) = &report {
            batch.push(Entry::Accepted { id: *id, envelope: Arc::clone(envelope), content: content.clone() });
        }
        batch.push(if last { Entry::Removed(job.id) } else { Entry::Progress(progress) });
        self.commit(batch).await?;
        // What is in the log and in the queue comes first: whoever sees that the message has ended finds what came of it.
        let told = if let Some((id, envelope, content)) = report {
            log::reported(id, &envelope, content.len(), job.id);
            self.accepted(id, envelope, &content);
            Told::By(id)
        } else {
            if dsn::is_report(&job.envelope) && !news.failed.is_empty() {
                log::report_dropped(job.id);
            }
            Told::Nobody
        };
        if self.update(|queue| queue.settle(job.id, &settlements, now)) && !last {
            commits.push(self, job.id, Entry::Removed(job.id)).await;
        }
        Ok(told)
    }

    async fn report(
        &self,
        job: &Job,
        news: &News,
        content: &Content,
        now: Timestamp,
    ) -> Option<(MessageId, Arc<Envelope>, Content)> {
        let live = self.live();
        if !live.dsn.enabled || news.is_empty() {
            return None;
        }
        let id = self.with_rng(|rng| MessageId::generate(now, rng));
        // The postmaster gets a report of which every host takes a copy, with what it says and the header of the message.
        let shorter;
        let content = match self.shortened(job, content).await {
            Some((mut envelope, content)) if news.is_of_too_much() => {
                envelope.received_at = now;
                return Some((id, Arc::new(envelope), content));
            }
            Some((_, content)) => {
                shorter = content;
                &shorter
            }
            None => content,
        };
        // What cannot be read is left out of the report; it comes all the same.
        let lost = |failure| {
            log::not_read(job.id, &failure);
            Bytes::new()
        };
        let header = header(content).await.unwrap_or_else(lost);
        let whole = if news.returns_all(&job.envelope) {
            whole(content, dsn::MAX_RETURNED).await.unwrap_or_default()
        } else {
            None
        };
        let (envelope, content) = dsn::report(&Report {
            id,
            about: job.id,
            envelope: &job.envelope,
            header: &header,
            whole: whole.as_deref(),
            news,
            reporting_mta: live.dsn.reporting_mta.as_ref().unwrap_or(&self.hostname),
            postmaster: live.dsn.postmaster.as_ref(),
            now,
        })?;
        Some((id, Arc::new(envelope), content.into()))
    }

    /// The message, if it is a report with all of another one, with less.
    async fn shortened(&self, job: &Job, content: &Content) -> Option<(Envelope, Content)> {
        if !dsn::returns_whole(&job.envelope) {
            return None;
        }
        let octets = whole(content, dsn::MAX_REPORT).await.ok()??;
        let (envelope, shorter) = dsn::shortened(&job.envelope, &octets)?;
        Some((envelope, Bytes::from(shorter).into()))
    }
}

fn settlement(update: &RecipientUpdate) -> Settlement {
    let fate = match (update.status, update.next_attempt_at) {
        (Status::Ended(ended), _) if update.untold.is_some() => Fate::Untold(ended),
        (Status::Ended(ended), _) => Fate::Ended(ended),
        (Status::Pending | Status::Deferred, due) => Fate::Due(due.unwrap_or(Timestamp::MIN)),
    };
    Settlement { index: update.recipient, attempts: update.attempts, fate }
}
