//! Envelopes that the queue does not keep are read back from the spool when a message's turn has come: off the async
//! threads, and not more at a time than there are connections.

use std::{sync::Arc, time::Duration};

use empath_common::MessageId;
use empath_spool::{Ended, Entry, LoadError, Stored};

use super::{Commits, Shared};
use crate::{
    log,
    queue::{Fate, Job, JobRecipient, Queued, Settlement},
    schedule,
};

/// How long a message is left alone after the disk did not give its envelope back, or did not take its end.
const AGAIN: Duration = Duration::from_mins(1);

impl Shared {
    /// The job with its envelope. `None` if the spool does not give that back: then the job is settled.
    pub(crate) async fn opened(self: &Arc<Self>, job: Queued, commits: &mut Commits) -> Option<Job> {
        let envelope = match job.envelope.clone() {
            Some(envelope) => envelope,
            None => self.stored(&job, commits).await?.envelope,
        };
        Some(job.with(envelope))
    }

    /// What the spool has of a job's message. `None` if it does not give that back: then the job is settled.
    pub(super) async fn stored(self: &Arc<Self>, job: &Queued, commits: &mut Commits) -> Option<Stored> {
        let failure = match self.spool.load(job.id).await {
            Ok(stored) => return Some(stored),
            Err(failure) => failure,
        };
        log::not_read(job.id, &failure);
        if self.is_lost(job.id, &failure).await {
            // Nobody can tell any more whose it was.
            let ended = self.take_back(job, Fate::Ended(Ended::Bounced));
            if ended {
                commits.push(self, job.id, Entry::Removed(job.id)).await;
            }
        } else {
            // It waits for whoever mends the spool; that costs no attempt.
            self.put_off(job);
        }
        None
    }

    /// Whether an envelope will never be read. What there is of it is kept for an operator then.
    async fn is_lost(&self, id: MessageId, failure: &LoadError) -> bool {
        match failure {
            LoadError::Io { .. } => false,
            LoadError::Unknown(_) => true,
            LoadError::Damaged { .. } => {
                let kept = self.spool.set_aside(id).await;
                kept.inspect_err(|failure| log::not_read(id, failure)).is_ok()
            }
        }
    }

    /// The spool did not give or take something: what was to be done for a job is left for a while.
    pub(super) fn put_off<E>(self: &Arc<Self>, job: &Job<E>) {
        let again = schedule::after(self.now(), AGAIN);
        self.take_back(job, Fate::Due(again));
    }

    /// Takes a job back without an attempt. True if that was the end of the message.
    fn take_back<E>(self: &Arc<Self>, job: &Job<E>, fate: Fate) -> bool {
        let now = self.now();
        let settlement = |recipient: &JobRecipient| Settlement {
            index: recipient.index,
            attempts: recipient.attempts,
            fate,
        };
        let settlements: Vec<_> = job.recipients.iter().map(settlement).collect();
        self.update(|queue| queue.settle(job.id, &settlements, now))
    }
}
