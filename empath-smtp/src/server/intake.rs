use empath_common::{Client, Envelope, MessageId};

/// Where accepted content goes. The daemon's implementation joins the protocol and the spool.
pub trait Intake: Send + Sync + 'static {
    /// Content on its way in.
    type Draft: Draft;

    /// Starts a message. Called before its first octet of content.
    fn begin(&self) -> Result<Self::Draft, IntakeError>;

    /// Makes the message durable. `Ok` means that it survives power loss from now on; only then may the client
    /// be told 250. Dropping a draft instead forgets it. `client` is for the log.
    fn commit(
        &self,
        draft: Self::Draft,
        envelope: Envelope,
        client: &Client,
    ) -> impl Future<Output = Result<MessageId, IntakeError>> + Send;
}

/// The content of one message, growing.
pub trait Draft: Send {
    /// The id that the message will have.
    fn id(&self) -> MessageId;

    /// Appends content: lines ended by CRLF, not dot-stuffed.
    fn write(&mut self, octets: &[u8]) -> impl Future<Output = Result<(), IntakeError>> + Send;
}

/// Why content was not taken. The rest of the content is consumed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// No space, memory or queue place at present: 452 4.3.1.
    #[error("insufficient system storage")]
    Full,
    /// The storage failed: 451 4.3.0.
    #[error("local error in processing")]
    Failed,
    /// The message can never be stored: 552 5.3.4.
    #[error("message too large")]
    TooLarge,
}
