use std::sync::Arc;

use empath_common::EnhancedStatus;
use empath_spool::{Content, Ended, Entry, Progress, RecipientUpdate, Status, Untold};
use jiff::Timestamp;

use super::{Commits, Shared};
use crate::{
    attempted::{Attempted, Tried},
    dsn::{Arrived, Failed, Local, News, Success},
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
            let progress = progress(job, next_hop, &outcomes, now);
            match self.end(job, progress, &news, &content, commits).await {
                Ok(told) => told,
                Err(failure) => {
                    log::not_stored(job.id, &failure);
                    self.postpone(&mut outcomes, now);
                    // What was delivered along with the failures stays delivered, and is told of later.
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
        let settlements: Vec<_> = outcomes.iter().map(|outcome| outcome.settlement(job)).collect();
        let settle = |queue: &mut Queue| queue.settle(job.id, &settlements, now);
        let progress = || Entry::Progress(progress(job, next_hop, outcomes, now));
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

    fn judge(&self, job: &Job, tried: Tried, now: Timestamp) -> Outcome {
        let live = self.live();
        let retry = &live.delivery.retry;
        let attempts = tried.recipient.attempts.saturating_add(1);
        let fate = match &tried.result {
            Ok(_) => Fate::Ended(Ended::Delivered),
            Err(failure) => {
                if disposition(failure, false) == Disposition::Bounce || attempts >= retry.max_attempts {
                    Fate::Ended(Ended::Bounced)
                } else if schedule::after(job.released_at, retry.expire_after) <= now {
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
            (Err(failure), Fate::Ended(_) | Fate::Untold(_)) => {
                metrics.bounced.increment();
                log::bounced(&line, failure, told);
            }
        }
        metrics.retries.observe(f64::from(*attempts));
    }
}

impl Outcome {
    fn settlement(&self, job: &Job) -> Settlement {
        let fate = match self.fate {
            Fate::Ended(ended) if self.untold(job).is_some() => Fate::Untold(ended),
            fate => fate,
        };
        Settlement { index: self.tried.recipient.index, attempts: self.attempts, fate }
    }

    /// Of what the sender wants to be told.
    fn untold(&self, job: &Job) -> Option<Untold> {
        let asked = job.envelope.notification_of(self.tried.recipient.index as usize);
        match (self.fate, self.tried.arrived) {
            (Fate::Ended(Ended::Bounced | Ended::Expired), _) if asked.on_failure() => Some(Untold::Failed),
            (Fate::Ended(Ended::Delivered), Some(Arrived::Delivered)) if asked.on_success() => {
                Some(Untold::Delivered)
            }
            (Fate::Ended(Ended::Delivered), Some(Arrived::Relayed)) if asked.on_success() => {
                Some(Untold::Relayed)
            }
            _ => None,
        }
    }

    /// An operator has removed the message meanwhile. What is delivered is.
    fn remove(&mut self) {
        if self.fate != Fate::Ended(Ended::Delivered) {
            self.fate = Fate::Ended(Ended::Removed);
        }
    }

    /// What the sender is told, if this recipient has failed.
    fn failed(&self, job: &Job, now: Timestamp) -> Option<Failed> {
        let (Some(Untold::Failed), Err(failure)) = (self.untold(job), &self.tried.result) else {
            return None;
        };
        let number = self.tried.recipient.index as usize;
        let expired = self.fate == Fate::Ended(Ended::Expired);
        Some(Failed {
            recipient: job.envelope.recipients().get(number)?.clone(),
            orcpt: job.envelope.notification_of(number).orcpt.clone(),
            status: if expired { EXPIRED } else { failure.status },
            host: self.tried.peer.as_ref().and_then(|peer| peer.host.clone()),
            reply: failure.reply.clone(),
            detail: failure.detail.clone(),
            local: Local::of(failure.status, failure.reply.as_ref()),
            last_attempt: Some(now),
            expired,
        })
    }

    /// What the sender is told if this recipient has the message, and he wanted to hear that from us.
    fn arrived(&self, job: &Job) -> Option<Success> {
        let (Some(Untold::Delivered | Untold::Relayed), Ok(reply)) = (self.untold(job), &self.tried.result)
        else {
            return None;
        };
        let number = self.tried.recipient.index as usize;
        Some(Success {
            recipient: job.envelope.recipients().get(number)?.clone(),
            orcpt: job.envelope.notification_of(number).orcpt.clone(),
            how: self.tried.arrived?,
            host: self.tried.peer.as_ref().and_then(|peer| peer.host.clone()),
            reply: reply.clone(),
        })
    }
}

/// Delivery time expired (RFC 3463 §3.5).
pub(super) const EXPIRED: EnhancedStatus = EnhancedStatus::new(4, 4, 7);

fn progress(job: &Job, next_hop: &NextHop, outcomes: &[Outcome], now: Timestamp) -> Progress {
    let next_hop = next_hop.to_string();
    let update = |outcome: &Outcome| {
        let (status, next_attempt_at) = match outcome.fate {
            Fate::Ended(ended) | Fate::Untold(ended) => (Status::Ended(ended), None),
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
            untold: outcome.untold(job),
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
    Progress { id: job.id, updates: outcomes.iter().map(update).collect() }
}

/// From reception, the time that the sender asked for, or the due time of a retry, to the job's being ready.
fn received(job: &Job) -> std::time::Duration {
    between(job.released_at, job.ready_at)
}

fn between(from: Timestamp, to: Timestamp) -> std::time::Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}
