use std::sync::Arc;

use bytes::Bytes;
use empath_common::{Domain, Envelope, Host, MessageId, Priority};
use empath_spool::Ended;
use jiff::Timestamp;

use super::{ConnectionId, MessageStatus, RecipientStatus};
use crate::route::{Mail, NextHop, SenderClass};

/// Recipients of one message that travel together, taken out of the queue until they are settled.
#[derive(Debug, Clone)]
pub struct Job<E = Arc<Envelope>> {
    /// The message.
    pub id: MessageId,
    /// Its envelope.
    pub envelope: E,
    /// Its content, if it is still in memory.
    pub content: Option<Bytes>,
    /// Whom this job is about.
    pub recipients: Vec<JobRecipient>,
    /// Since when the job waited for a connection.
    pub ready_at: Timestamp,
    /// Since when the message may be sent, to a second: the time that it may take counts from then.
    pub released_at: Timestamp,
    /// The class of its sender by which it was routed.
    pub sender: SenderClass,
}

impl Job {
    /// The domain of its first recipient.
    pub fn domain(&self) -> Option<&Domain> {
        let first = self.recipients.first()?;
        self.envelope.recipients().get(first.index as usize)?.domain()
    }
}

/// A job as the queue gives it: the envelope of a message that was tried before is to be read back from the spool.
pub type Queued = Job<Option<Arc<Envelope>>>;

impl Queued {
    /// The job with the envelope of its message.
    pub fn with(self, envelope: Arc<Envelope>) -> Job {
        let Self { id, envelope: _, content, recipients, ready_at, released_at, sender } = self;
        Job { id, envelope, content, recipients, ready_at, released_at, sender }
    }
}

/// A recipient of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobRecipient {
    /// Its place in the envelope.
    pub index: u32,
    /// Attempts before this job.
    pub attempts: u32,
    /// When it was or is due; the time of acceptance before the first attempt.
    pub due: Timestamp,
}

/// What became of a recipient of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// Its place in the envelope.
    pub index: u32,
    /// Attempts from now on.
    pub attempts: u32,
    /// What comes next for it.
    pub fate: Fate,
}

/// What comes next for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: this was its end.
    Ended(Ended),
    /// This was its end, of which the sender is to be told: [`Queue::take_untold`](super::Queue::take_untold) has it then.
    Untold(Ended),
    /// Another attempt at this time.
    Due(Timestamp),
}

/// What the caller has to do with connections.
#[derive(Debug)]
pub enum Action {
    /// Start a connection with its first job.
    Open {
        /// Its name from now on.
        connection: ConnectionId,
        /// Where to.
        next_hop: NextHop,
        /// Its first job.
        job: Queued,
    },
    /// Give a job to an idle connection.
    Resume {
        /// Which.
        connection: ConnectionId,
        /// Its next job.
        job: Queued,
    },
    /// Close an idle connection: another destination needs its place.
    Close {
        /// Which.
        connection: ConnectionId,
    },
}

/// What a connection does next.
#[derive(Debug)]
pub enum Next {
    /// This job.
    Job(Queued),
    /// Wait for one.
    Idle,
    /// Close: it has been taken out of the queue already.
    Close,
}

/// A message as it is at one moment, as far as the queue knows it: the envelope is in the spool.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The message.
    pub id: MessageId,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// How urgent it is.
    pub priority: Priority,
    /// Octets of its content.
    pub size: u64,
    /// The class of its sender, as it was when it was last looked up.
    pub sender: SenderClass,
    /// The recipients in the order of the envelope, each with its attempts and its due time.
    pub recipients: Vec<(RecipientStatus, u32, Option<Timestamp>)>,
    /// What stands behind the `@` of each; `None` for the bare `<Postmaster>`.
    pub hosts: Vec<Option<Host>>,
    /// The message as a whole.
    pub status: MessageStatus,
}

impl Snapshot {
    /// What decides about its way.
    pub fn mail(&self) -> Mail {
        Mail { id: self.id, sender: self.sender }
    }
}
