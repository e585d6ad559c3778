use std::sync::Arc;

use bytes::Bytes;
use empath_common::{EnhancedStatus, MessageId};
use empath_spool::{CommitError, Content, Ended, Entry, Progress, RecipientUpdate, Status};
use jiff::Timestamp;

use super::{Commits, Shared};
use crate::{
    attempted::{Attempted, Tried},
    content::{header, whole},
    dsn::{self, Failed, News, Report, Success},
    failure::{Disposition, Failure, disposition},
    log::{self, Delays, Told},
    queue::{Fate, Job, Queue, Settlement},
    route::NextHop,
    schedule,
};

/// What an attempt means for a recipient.
struct Outcome {
    tried: Tried,
    attempts: u32,
    fate: Fate,
}

impl Shared {
    /// Records what an attempt has come to, tells the sender about failures, and takes the message out of the spool
    /// when it has ended. `started` is when the attempt began, `content` the message.
    pub(crate) async fn conclude(
        self: &Arc<Self>,
        job: &Job,
        next_hop: &NextHop,
        attempted: Attempted,
        (started, content): (Timestamp, Content),
        commits: &mut Commits,
    ) {
        let now = self.now();
        let Attempted { results, alone, connect, transfer, .. } = attempted;
        if !alone.is_empty() {
            self.update(|queue| queue.isolate(job.id, &alone));
        }
        let mut outcomes: Vec<_> = results.into_iter().map(|tried| self.judge(job, tried, now)).collect();
        if self.lock().queue.is_removing(job.id) {
            outcomes.iter_mut().for_each(Outcome::remove);
        }
        let failed = outcomes.iter().filter_map(|outcome| outcome.failed(job, now)).collect();
        let arrived = outcomes.iter().filter_map(|outcome| outcome.arrived(job)).collect();
        let news = News { failed, arrived, ..News::default() };
        let told = if news.is_empty() {
            self.record(job, next_hop, &outcomes, now, commits).await;
            Told::Nobody
        } else {
            let progress = progress(job.id, next_hop, &outcomes, now);
            match self.end(job, progress, &news, &content, commits).await {
                Ok(told) => told,
                Err(failure) => {
                    log::not_stored(job.id, &failure);
                    self.postpone(&mut outcomes, now);
                    // What was delivered along with the failures stays delivered.
                    self.record(job, next_hop, &outcomes, now, commits).await;
                    Told::Nobody
                }
            }
        };
        let delays =
            Delays { received: received(job), queued: between(job.ready_at, started), connect, transfer };
        for outcome in &outcomes {
            self.say(job, next_hop, outcome, delays, told);
        }
    }

    /// Records what has come of recipients about whom nobody needs to be told.
    async fn record(
        self: &Arc<Self>,
        job: &Job,
        next_hop: &NextHop,
        outcomes: &[Outcome],
        now: Timestamp,
        commits: &mut Commits,
    ) {
        let settlements: Vec<_> = outcomes.iter().map(Outcome::settlement).collect();
        let settle = |queue: &mut Queue| queue.settle(job.id, &settlements, now);
        let progress = || Entry::Progress(progress(job.id, next_hop, outcomes, now));
        if outcomes.iter().any(|outcome| matches!(outcome.fate, Fate::Due(_))) {
            // The spool knows why before the queue shows that it is deferred.
            self.store(job.id, progress()).await;
            if self.update(settle) {
                commits.push(self, job.id, Entry::Removed(job.id)).await;
            }
        } else {
            let entry = if self.update(settle) { Entry::Removed(job.id) } else { progress() };
            commits.push(self, job.id, entry).await;
        }
    }

    /// Concludes about recipients whose sender is told: what became of them and the report are made durable together, then
    /// the queue is told.
    pub(super) async fn end(
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
        if self.update(|queue| queue.settle(job.id, &settlements, now)) && !last {
            commits.push(self, job.id, Entry::Removed(job.id)).await;
        }
        let Some((id, envelope, content)) = report else {
            if dsn::is_report(&job.envelope) && !news.failed.is_empty() {
                log::report_dropped(job.id);
            }
            return Ok(Told::Nobody);
        };
        log::reported(id, &envelope, content.len(), job.id);
        self.accepted(id, envelope, &content);
        Ok(Told::By(id))
    }

    async fn report(
        &self,
        job: &Job,
        news: &News,
        content: &Content,
        now: Timestamp,
    ) -> Option<(MessageId, Arc<empath_common::Envelope>, Content)> {
        let live = self.live();
        if !live.dsn.enabled || news.is_empty() {
            return None;
        }
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
        let id = self.with_rng(|rng| MessageId::generate(now, rng));
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

    fn judge(&self, job: &Job, tried: Tried, now: Timestamp) -> Outcome {
        let live = self.live();
        let retry = &live.delivery.retry;
        let attempts = tried.recipient.attempts.saturating_add(1);
        let fate = match &tried.result {
            Ok(_) => Fate::Ended(Ended::Delivered),
            Err(failure) => {
                if disposition(failure, false) == Disposition::Bounce || attempts >= retry.max_attempts {
                    Fate::Ended(Ended::Bounced)
                } else if schedule::after(job.envelope.received_at, retry.expire_after) <= now {
                    Fate::Ended(Ended::Expired)
                } else {
                    Fate::Due(self.due(attempts, now))
                }
            }
        };
        Outcome { tried, attempts, fate }
    }

    fn due(&self, attempts: u32, now: Timestamp) -> Timestamp {
        let live = self.live();
        let retry = &live.delivery.retry;
        schedule::after(now, self.with_rng(|rng| schedule::delay(retry, attempts, rng)))
    }

    /// The sender could not be told, so recipients that failed have not ended: they are tried again.
    fn postpone(&self, outcomes: &mut [Outcome], now: Timestamp) {
        for outcome in outcomes {
            if matches!(outcome.fate, Fate::Ended(Ended::Bounced | Ended::Expired)) {
                outcome.fate = Fate::Due(self.due(outcome.attempts, now));
                outcome.tried.result = Err(Failure::local("the report about a failure could not be stored"));
            }
        }
    }

    fn say(&self, job: &Job, next_hop: &NextHop, outcome: &Outcome, delays: Delays, told: Told) {
        let Outcome { tried, attempts, fate } = outcome;
        let number = tried.recipient.index as usize;
        let Some(recipient) = job.envelope.recipients().get(number) else {
            return;
        };
        let told = if job.envelope.notification_of(number).on_failure() { told } else { Told::Nobody };
        let peer = tried.peer.as_deref();
        let line = log::Line { id: job.id, recipient, next_hop, peer, attempt: *attempts, delays };
        let metrics = &self.metrics;
        match (&tried.result, fate) {
            (Ok(reply), _) => {
                metrics.delivered.increment();
                log::delivered(&line, reply);
            }
            (Err(failure), Fate::Due(due)) => {
                metrics.deferred.increment();
                log::deferred(&line, failure, *due);
                return;
            }
            (Err(failure), Fate::Ended(Ended::Expired)) => {
                metrics.expired.increment();
                log::expired(job.id, recipient, *attempts, &failure.detail, told);
            }
            (Err(_), Fate::Ended(Ended::Removed)) => return log::removed(job.id, Some(recipient), *attempts),
            (Err(failure), Fate::Ended(_)) => {
                metrics.bounced.increment();
                log::bounced(&line, failure, told);
            }
        }
        metrics.retries.observe(f64::from(*attempts));
    }
}

impl Outcome {
    fn settlement(&self) -> Settlement {
        Settlement { index: self.tried.recipient.index, attempts: self.attempts, fate: self.fate }
    }

    /// An operator has removed the message meanwhile. What is delivered is.
    fn remove(&mut self) {
        if self.fate != Fate::Ended(Ended::Delivered) {
            self.fate = Fate::Ended(Ended::Removed);
        }
    }

    /// What the sender is told, if this recipient has failed.
    fn failed(&self, job: &Job, now: Timestamp) -> Option<Failed> {
        let (Fate::Ended(Ended::Bounced | Ended::Expired), Err(failure)) = (self.fate, &self.tried.result)
        else {
            return None;
        };
        let number = self.tried.recipient.index as usize;
        if !job.envelope.notification_of(number).on_failure() {
            return None;
        }
        let expired = self.fate == Fate::Ended(Ended::Expired);
        Some(Failed {
            recipient: job.envelope.recipients().get(number)?.clone(),
            orcpt: job.envelope.notification_of(number).orcpt.clone(),
            status: if expired { EXPIRED } else { failure.status },
            host: self.tried.peer.as_ref().and_then(|peer| peer.host.clone()),
            reply: failure.reply.clone(),
            detail: failure.detail.clone(),
            last_attempt: Some(now),
            expired,
        })
    }

    /// What the sender is told if this recipient has the message, and he wanted to hear that from us.
    fn arrived(&self, job: &Job) -> Option<Success> {
        let (Some(how), Ok(reply)) = (self.tried.arrived, &self.tried.result) else {
            return None;
        };
        let number = self.tried.recipient.index as usize;
        let asked = job.envelope.notification_of(number);
        if !asked.on_success() {
            return None;
        }
        Some(Success {
            recipient: job.envelope.recipients().get(number)?.clone(),
            orcpt: asked.orcpt.clone(),
            how,
            host: self.tried.peer.as_ref().and_then(|peer| peer.host.clone()),
            reply: reply.clone(),
        })
    }
}

/// Delivery time expired (RFC 3463 §3.5).
pub(super) const EXPIRED: EnhancedStatus = EnhancedStatus::new(4, 4, 7);

fn settlement(update: &RecipientUpdate) -> Settlement {
    let fate = match (update.status, update.next_attempt_at) {
        (Status::Ended(ended), _) => Fate::Ended(ended),
        (Status::Pending | Status::Deferred, due) => Fate::Due(due.unwrap_or(Timestamp::MIN)),
    };
    Settlement { index: update.recipient, attempts: update.attempts, fate }
}

fn progress(id: MessageId, next_hop: &NextHop, outcomes: &[Outcome], now: Timestamp) -> Progress {
    let next_hop = next_hop.to_string();
    let update = |outcome: &Outcome| {
        let (status, next_attempt_at) = match outcome.fate {
            Fate::Ended(ended) => (Status::Ended(ended), None),
            Fate::Due(due) => (Status::Deferred, Some(due)),
        };
        let (reply, status_code, detail) = match &outcome.tried.result {
            Ok(reply) => {
                let status = reply.enhanced.unwrap_or(EnhancedStatus::new(2, 0, 0));
                (Some(reply.clone()), status, reply.to_string())
            }
            Err(failure) => (failure.reply.clone(), failure.status, failure.detail.clone()),
        };
        RecipientUpdate {
            recipient: outcome.tried.recipient.index,
            status,
            attempts: outcome.attempts,
            next_attempt_at,
            told_of_delay: false,
            attempt: Some(empath_spool::Attempt {
                at: now,
                next_hop: next_hop.clone(),
                host: outcome.tried.peer.as_ref().map(|peer| peer.shown.clone()),
                reply,
                status: status_code,
                detail,
            }),
        }
    };
    Progress { id, updates: outcomes.iter().map(update).collect() }
}

/// From reception, or the due time of a retry, to the job's being ready.
fn received(job: &Job) -> std::time::Duration {
    between(job.envelope.received_at, job.ready_at)
}

fn between(from: Timestamp, to: Timestamp) -> std::time::Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}
