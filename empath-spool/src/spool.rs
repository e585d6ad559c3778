use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use empath_common::{Envelope, MessageId};
use tokio::sync::oneshot;

use crate::{Content, KeptSegment, Progress, Quarantine, RecipientState, Verification, files::Free};

/// Where messages live between acceptance and their end.
///
/// The contract, which every implementation keeps and [`contract`](crate) tests check:
///
/// 1. When [`commit`](Self::commit) has answered `Ok`, the whole batch survives `kill -9` and power loss. When it
///    has answered `Err`, nothing of the batch appears, not even after a restart; only [`CommitError::Unsettled`]
///    leaves that open.
/// 2. Batches are atomic: after a crash either every entry of a batch is there or none is.
/// 3. Batches take effect in the order in which `commit` was called, also when the answers are not awaited.
/// 4. An entry about an unknown message (`Progress`, `Held`, `Removed`) changes nothing and is no error: the message has
///    ended before.
/// 5. Dropping [`Committed`] does not withdraw the batch.
/// 6. Nothing here blocks the calling thread on I/O.
pub trait Spool: Send + Sync + 'static {
    /// Makes a batch durable.
    fn commit(&self, batch: Batch) -> Committed;

    /// All messages that are not removed, oldest first.
    fn ids(&self) -> Vec<MessageId>;

    /// How many messages are not removed.
    fn len(&self) -> usize;

    /// Whether there is no message.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The envelope of a message and the state of each recipient.
    fn load(&self, id: MessageId) -> Loading<'_, Stored>;

    /// The same of some messages, at less cost than one after another.
    fn load_some(&self, ids: Vec<MessageId>) -> LoadingSome<'_>;

    /// The content of a message, exactly the octets committed.
    fn content(&self, id: MessageId) -> Loading<'_, Content>;

    /// Keeps what is stored of a message that is damaged for an operator to look at, before the message is ended.
    fn set_aside(&self, id: MessageId) -> Loading<'_, ()>;

    /// Begins content that is not to be in memory. It is written as it arrives; what comes out goes into the message's
    /// `Accepted`. A draft that is dropped, or never committed, leaves nothing behind.
    fn draft(&self, id: MessageId) -> Writing<'_, Box<dyn Draft>>;

    /// Octets and files that still fit into the storage.
    fn free(&self) -> io::Result<Free>;

    /// Reads everything that is stored and checks that it is what was committed.
    fn verify(&self) -> Verifying<'_>;

    /// Parts of the storage that are not given up although their time has come, because they cannot be read or what is
    /// damaged in them is nowhere else.
    fn kept(&self) -> Vec<KeptSegment> {
        Vec::new()
    }

    /// What is kept of damage; `None` for a storage that keeps none.
    fn quarantine(&self) -> Option<Quarantine>;

    /// Whether commits can succeed at present. False after failures of the storage, until a commit succeeds.
    fn is_healthy(&self) -> bool;

    /// Refuses further commits and waits until those before have been answered. Reading goes on. The storage is
    /// given up when the spool is dropped.
    fn close(&self) -> Closing<'_>;
}

/// What is made durable together.
#[derive(Debug, Clone, Default)]
pub struct Batch(pub Vec<Entry>);

/// One record.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A message was accepted.
    Accepted {
        /// Its id, never used before.
        id: MessageId,
        /// Its envelope.
        envelope: Arc<Envelope>,
        /// Its content: trace fields, headers and body as they go to the next hop, lines ended by CRLF, without
        /// dot-stuffing.
        content: Content,
    },
    /// Delivery made progress.
    Progress(Progress),
    /// An operator holds a message, or lets it go on.
    Held {
        /// Which.
        id: MessageId,
        /// Whether it is held from now on.
        held: bool,
    },
    /// Every recipient has ended; the message can be forgotten.
    Removed(MessageId),
}

impl From<Entry> for Batch {
    fn from(entry: Entry) -> Self {
        Self(vec![entry])
    }
}

/// The answer of [`Spool::commit`] to wait for.
#[derive(Debug)]
pub struct Committed(pub(crate) oneshot::Receiver<Result<(), CommitError>>);

impl Committed {
    /// An answer that is known at once.
    pub fn answered(answer: Result<(), CommitError>) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is there: sending can't fail.
        let _ = sender.send(answer);
        Self(receiver)
    }
}

impl Future for Committed {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(CommitError::Closed)))
    }
}

/// Why a batch was not made durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// No space, no inodes, no quota, or a file system that became read-only: 452 4.3.1.
    #[error("the spool is full: {0}")]
    Full(#[source] Arc<io::Error>),
    /// Writing or syncing failed: 451 4.3.0.
    #[error("the spool cannot be written: {0}")]
    Io(#[source] Arc<io::Error>),
    /// Writing or syncing failed, and so did everything that would take back what was written: the batch may be there,
    /// as a whole, after a crash. 451 4.3.0.
    #[error("the spool cannot be written: {0}")]
    Unsettled(#[source] Arc<io::Error>),
    /// The batch is larger than the format can hold: 552 5.3.4.
    #[error("a record of {0} octets is larger than a segment can hold")]
    TooLarge(u64),
    /// The spool has been closed: 451 4.3.0.
    #[error("the spool is closed")]
    Closed,
}

impl From<io::Error> for CommitError {
    fn from(failure: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match failure.kind() {
            StorageFull | QuotaExceeded | ReadOnlyFilesystem => Self::Full(Arc::new(failure)),
            _ => Self::Io(Arc::new(failure)),
        }
    }
}

/// What [`Spool::load`] and [`Spool::content`] return.
pub type Loading<'a, T> = Pin<Box<dyn Future<Output = Result<T, LoadError>> + Send + 'a>>;

/// What [`Spool::load_some`] returns: an answer for each id, in their order.
pub type LoadingSome<'a> =
    Pin<Box<dyn Future<Output = Vec<(MessageId, Result<Stored, LoadError>)>> + Send + 'a>>;

/// What [`Spool::draft`] and [`Draft`] return.
pub type Writing<'a, T> = Pin<Box<dyn Future<Output = Result<T, CommitError>> + Send + 'a>>;

/// What [`Spool::verify`] returns.
pub type Verifying<'a> = Pin<Box<dyn Future<Output = Verification> + Send + 'a>>;

/// Content on its way into the storage.
pub trait Draft: Send {
    /// Appends octets.
    fn write<'a>(&'a mut self, octets: &'a [u8]) -> Writing<'a, ()>;

    /// Makes durable what was written.
    fn finish(self: Box<Self>) -> Writing<'static, Content>;
}

/// What [`Spool::close`] returns.
pub type Closing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Why a message could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such message (any more).
    #[error("there is no message {0}")]
    Unknown(MessageId),
    /// Its record does not verify.
    #[error("message {id} is damaged on disk: {reason}")]
    Damaged {
        /// The message.
        id: MessageId,
        /// What does not verify.
        reason: &'static str,
    },
    /// Reading failed.
    #[error("message {id} cannot be read: {source}")]
    Io {
        /// The message.
        id: MessageId,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A message without its content.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The envelope as accepted.
    pub envelope: Arc<Envelope>,
    /// The state of each recipient, in the order of the envelope.
    pub recipients: Vec<RecipientState>,
    /// Octets of content.
    pub size: u64,
    /// Whether an operator holds it.
    pub held: bool,
}
