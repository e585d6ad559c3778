//! The sender is told once that a message takes long (RFC 3461 §4.1).

use std::sync::Arc;

use empath_common::{EnhancedStatus, MessageId};
use empath_spool::{Attempt, Entry, Progress, RecipientUpdate, Status};

use super::{
    Commits, Shared,
    stored::{failed, last_attempt},
};
use crate::{
    dsn::{Delayed, Failed, News},
    log,
    queue::{Fate, Job, JobRecipient, Settlement},
    schedule,
};

impl Shared {
    /// Tells of recipients that take long. That it was told is made durable together with the report; false if it could
    /// not be.
    pub(super) async fn tell_of_delay(self: &Arc<Self>, job: &Job, commits: &mut Commits) -> bool {
        let (states, content) = self.what_is_stored(job).await;
        let retry_until = schedule::after(job.released_at, self.live().delivery.retry.expire_after);
        let delayed = |recipient: &JobRecipient| {
            let last = states.get(recipient.index as usize).and_then(last_attempt);
            let failed = failed(job, recipient, last)?;
            Some(Delayed { last: Failed { status: status(last), expired: false, ..failed }, retry_until })
        };
        let news = News { delayed: job.recipients.iter().filter_map(delayed).collect(), ..News::default() };
        let progress = Progress { id: job.id, updates: job.recipients.iter().map(told).collect() };
        match self.tell(job, progress, &news, &content, commits).await {
            Ok(told) => {
                for Delayed { last, .. } in &news.delayed {
                    log::delayed(job.id, last, retry_until, told);
                }
                true
            }
            Err(failure) => {
                log::not_stored(job.id, &failure);
                let settlements: Vec<_> = job.recipients.iter().map(as_before).collect();
                let now = self.now();
                // An operator may have removed it meanwhile.
                if self.update(|queue| queue.settle(job.id, &settlements, now)) {
                    commits.push(self, job.id, Entry::Removed(job.id)).await;
                }
                false
            }
        }
    }

    pub(super) fn tell_again(self: &Arc<Self>, id: MessageId, recipients: &[u32]) {
        let now = self.now();
        self.update(|queue| queue.tell_again(id, recipients, now));
    }
}

/// It is only late: the status is transient, whatever the last attempt came to.
fn status(last: Option<&Attempt>) -> EnhancedStatus {
    let last = last.map(|last| last.status).filter(|status| status.class == 4);
    last.unwrap_or(EnhancedStatus::new(4, 0, 0))
}

fn told(recipient: &JobRecipient) -> RecipientUpdate {
    let tried = recipient.attempts > 0;
    RecipientUpdate {
        recipient: recipient.index,
        status: if tried { Status::Deferred } else { Status::Pending },
        attempts: recipient.attempts,
        next_attempt_at: tried.then_some(recipient.due),
        told_of_delay: true,
        untold: None,
        attempt: None,
    }
}

fn as_before(recipient: &JobRecipient) -> Settlement {
    Settlement { index: recipient.index, attempts: recipient.attempts, fate: Fate::Due(recipient.due) }
}
