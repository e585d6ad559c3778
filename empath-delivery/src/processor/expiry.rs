use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use empath_common::MessageId;
use empath_spool::{Content, Ended, Progress, RecipientState, RecipientUpdate, Status, Untold};
use tokio::time::{Instant, sleep_until};

use super::{
    Commits, Shared,
    stored::{failed, last_attempt},
};
use crate::{
    dsn::{Failed, News},
    log::{self, Told},
    queue::{Job, JobRecipient, Queue},
};

/// How long nobody is told of a delay after the spool did not take the report.
const AGAIN: Duration = Duration::from_mins(1);

/// How many do this at the same time: what is in their hands can't be delivered meanwhile.
pub(super) const AT_ONCE: usize = 32;

/// Tells of what has ended, ends what was in the queue for too long, and tells of what is late, one after the other.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut commits = Commits::default();
    // Delays that nobody could be told of, and when to try again.
    let (mut untold, mut again_at) = (Vec::<(MessageId, Vec<u32>)>::new(), Instant::now());
    while !shared.stopping.is_cancelled() {
        while !shared.stopping.is_cancelled() {
            if let Some(job) = shared.update(Queue::take_untold) {
                shared.tell_untold(job, &mut commits).await;
            } else if let Some(job) = shared.update(Queue::take_expired) {
                if let Some(job) = shared.opened(job, &mut commits).await {
                    shared.expire(&job, &mut commits).await;
                }
            } else if let Some(job) = shared.update(Queue::take_late) {
                let Some(job) = shared.opened(job, &mut commits).await else { continue };
                if !shared.tell_of_delay(&job, &mut commits).await {
                    again_at = Instant::now() + AGAIN;
                    untold.push((job.id, job.recipients.iter().map(|recipient| recipient.index).collect()));
                }
            } else {
                break;
            }
        }
        commits.settled(&shared).await;
        tokio::select! {
            () = shared.expired.notified() => {}
            () = sleep_until(again_at), if !untold.is_empty() => {
                for (id, recipients) in untold.drain(..) {
                    shared.tell_again(id, &recipients);
                }
            }
            () = shared.stopping.cancelled() => {}
        }
    }
    commits.settled(&shared).await;
}

impl Shared {
    async fn expire(self: &Arc<Self>, job: &Job, commits: &mut Commits) {
        let (states, content) = self.what_is_stored(job).await;
        let last = |recipient: &JobRecipient| states.get(recipient.index as usize).and_then(last_attempt);
        let failed: Vec<_> =
            job.recipients.iter().filter_map(|recipient| failed(job, recipient, last(recipient))).collect();
        let asked = |recipient: &JobRecipient| job.envelope.notification_of(recipient.index as usize);
        let update = |recipient: &JobRecipient| RecipientUpdate {
            recipient: recipient.index,
            status: Status::Ended(Ended::Expired),
            attempts: recipient.attempts,
            next_attempt_at: None,
            told_of_delay: false,
            untold: asked(recipient).on_failure().then_some(Untold::Failed),
            attempt: None,
        };
        let progress = Progress { id: job.id, updates: job.recipients.iter().map(update).collect() };
        let wanted = |(recipient, failed): (&JobRecipient, &Failed)| {
            asked(recipient).on_failure().then(|| failed.clone())
        };
        let news = News {
            failed: job.recipients.iter().zip(&failed).filter_map(wanted).collect(),
            ..News::default()
        };
        match self.end(job, progress, &news, &content, commits).await {
            Ok(told) => self.say_expired(job, &failed, told),
            Err(failure) => {
                log::not_stored(job.id, &failure);
                self.put_off(job);
            }
        }
    }

    /// The state of each recipient and the content. What cannot be read is left out of the report; it comes all the same.
    pub(super) async fn what_is_stored(&self, job: &Job) -> (Vec<RecipientState>, Content) {
        let states = match self.spool.load(job.id).await {
            Ok(stored) => stored.recipients,
            Err(failure) => {
                log::not_read(job.id, &failure);
                Vec::new()
            }
        };
        (states, self.stored_content(job.id).await)
    }

    pub(super) async fn stored_content(&self, id: MessageId) -> Content {
        self.spool.content(id).await.unwrap_or_else(|failure| {
            log::not_read(id, &failure);
            Bytes::new().into()
        })
    }

    fn say_expired(&self, job: &Job, failed: &[Failed], told: Told) {
        for (recipient, failed) in job.recipients.iter().zip(failed) {
            self.metrics.expired.increment();
            self.metrics.retries.observe(f64::from(recipient.attempts));
            let asked = job.envelope.notification_of(recipient.index as usize);
            let told = if asked.on_failure() { told } else { Told::Nobody };
            log::expired(job.id, &failed.recipient, recipient.attempts, &failed.detail, told);
        }
    }
}
