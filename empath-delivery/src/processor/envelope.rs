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

    /// The job with its envelope for a connection. `None` if the spool does not give that back, or if it shows that the
    /// sender has another route by now: then the job is settled, or ready for another connection.
    pub(crate) async fn directed(self: &Arc<Self>, job: Queued, commits: &mut Commits) -> Option<Job> {
        let job = self.opened(job, commits).await?;
        let now = self.now();
        let Some(ended) = self.update(|queue| queue.redirect(&job, now)) else {
            return Some(job);
        };
        if ended {
            commits.push(self, job.id, Entry::Removed(job.id)).await;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use empath_common::{Clock as _, Envelope, SystemClock};
    use empath_spool::{MemorySpool, Spool as _};
    use empath_testkit::peer::{Act, At, Peer, Script};

    use super::*;
    use crate::{
        Config, Processor,
        config::{DomainConfig, SenderRoute},
        processor::{Filter, trial},
        queue::MessageStatus,
        route::Routes,
    };

    fn config(peers: [&Peer; 2], senders: &[&str]) -> Config {
        let to = |peer: &Peer| Some(peer.address().to_string().parse().unwrap());
        let mut config = Config::default();
        let any = DomainConfig { mx_override: to(peers[0]), ..DomainConfig::default() };
        config.domains.insert("*".parse().unwrap(), any);
        let own = SenderRoute { mx_override: to(peers[1]), ..SenderRoute::default() };
        config.sender_routes = senders.iter().map(|one| (one.parse().unwrap(), own.clone())).collect();
        config
    }

    async fn refused(peer: &Peer, processor: &Processor, attempts: u32) {
        peer.wait_for_connections(1).await;
        while processor.list(&Filter::default(), None, 1).await[0].recipients[0].attempts < attempts
            || processor.list(&Filter::default(), None, 1).await[0].status != MessageStatus::Deferred
        {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn mail_whose_sender_was_given_a_route_meanwhile_takes_it_and_no_other() {
        let busy = || Script::new().on(At::MailFrom, Act::reply("451 4.3.2 not now"));
        let (old, new) = (Peer::start(busy()).await.unwrap(), Peer::start(busy()).await.unwrap());
        let spool = Arc::new(MemorySpool::new());
        let processor = trial::processor(Arc::clone(&spool) as _, config([&old, &new], &[]));
        let mut envelope =
            Envelope::new("<news@home.test>".parse().unwrap(), "<bob@example.test>".parse().unwrap());
        envelope.received_at = SystemClock.now();
        let (id, envelope) = (MessageId::from_bytes([1; 16]), Arc::new(envelope));
        let content = Bytes::from_static(b"Subject: x\r\n").into();
        let accepted = Entry::Accepted { id, envelope: Arc::clone(&envelope), content: Bytes::new().into() };
        spool.commit(accepted.into()).await.unwrap();
        processor.accepted(id, envelope, &content);
        refused(&old, &processor, 1).await;

        let after = config([&old, &new], &["home.test"]);
        processor.0.update(|queue| {
            let replace = |routes: &mut Routes| {
                let before = std::mem::replace(routes, Routes::new(&after, "home.test".parse().unwrap()));
                routes.keep_classes_of(&before);
            };
            queue.reroute(&"elsewhere.test".parse().unwrap(), SystemClock.now(), replace);
        });
        let next_hop = |view: &crate::MessageView| view.recipients[0].next_hop.clone();
        let view = processor.view(id).await.unwrap().0;
        assert_eq!(next_hop(&view), Some(format!("smtp:{}", new.address())), "its envelope is known");
        processor.retry(&Filter::default()).await;
        refused(&new, &processor, 2).await;
        let (view, history) = processor.view(id).await.unwrap();
        assert_eq!(view.recipients[0].attempts, 2, "the way back cost none");
        assert_eq!(history[1].next_hop, format!("smtp:{}", new.address()));
        assert_eq!(old.transcript().matches("MAIL FROM").count(), 1, "{}", old.transcript());
        assert_eq!(new.transcript().matches("MAIL FROM").count(), 1, "{}", new.transcript());
    }
}
