use std::sync::Arc;

use bytes::Bytes;
use empath_common::{Clock, EnhancedStatus, Envelope, ForwardPath, MessageId, ReversePath, SystemClock};
use empath_spool::{Attempt, Entry, Progress, RecipientUpdate, Status};

/// One writer's messages: like those of the world, different in nothing but the id.
pub(crate) struct Messages {
    rng: fastrand::Rng,
    envelope: Arc<Envelope>,
    content: Bytes,
}

impl Messages {
    /// The content is the writer's own, so that it comes out of memory as a received message does and not out of a
    /// cache that all writers share.
    pub(crate) fn new(writer: u64, octets: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(writer);
        let mailbox = |name: &str| format!("{name}{writer:06}@department.example.test").parse().unwrap();
        let mut envelope =
            Envelope::new(ReversePath::Mailbox(mailbox("sender")), ForwardPath::Mailbox(mailbox("first")));
        envelope.add(ForwardPath::Mailbox(mailbox("second")), 100).unwrap();
        envelope.received_at = SystemClock.now();
        let content =
            std::iter::repeat_with(|| rng.alphanumeric()).map(|letter| letter as u8).take(octets).collect();
        Self { rng, envelope: Arc::new(envelope), content }
    }

    pub(crate) fn next(&mut self) -> (MessageId, Entry) {
        let id = MessageId::generate(SystemClock.now(), &mut self.rng);
        (
            id,
            Entry::Accepted {
                id,
                envelope: Arc::clone(&self.envelope),
                content: self.content.clone().into(),
            },
        )
    }
}

/// What an attempt that is to be repeated leaves behind.
pub(crate) fn deferred(id: MessageId, attempts: u32) -> Entry {
    let now = SystemClock.now();
    let update = |recipient| RecipientUpdate {
        recipient,
        status: Status::Deferred,
        attempts,
        next_attempt_at: Some(now),
        told_of_delay: false,
        untold: None,
        attempt: Some(Attempt {
            at: now,
            next_hop: "mx:department.example.test".to_owned(),
            host: Some("mx1.department.example.test[192.0.2.1]:25".to_owned()),
            reply: None,
            status: "4.4.1".parse::<EnhancedStatus>().unwrap(),
            detail: "connection to mx1.department.example.test[192.0.2.1]:25 timed out".to_owned(),
        }),
    };
    Entry::Progress(Progress { id, updates: (0..2).map(update).collect() })
}
