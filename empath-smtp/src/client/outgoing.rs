use empath_common::{
    Body, ForwardPath, MessageNotification, MtPriority, RecipientNotification, Reply, ReversePath,
};

use super::{Failure, Survey};

/// What one mail transaction hands over besides the content.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Who is told about failures.
    pub reverse_path: ReversePath,
    /// Who gets the message. Each has its own result.
    pub recipients: Vec<ForwardPath>,
    /// How the content was declared when it was received.
    pub body: Body,
    /// Whether the message was received with SMTPUTF8: then its header may be UTF-8.
    pub smtputf8: bool,
    /// How urgent it is, if anybody has said so who may.
    pub mt_priority: Option<MtPriority>,
    /// What the sender asked of reports.
    pub notification: MessageNotification,
    /// What the sender asked about recipients, in their order; nothing about those beyond the end.
    pub notifications: Vec<RecipientNotification>,
    /// What the content is like.
    pub survey: Survey,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// One result for each recipient, in their order: the reply to the end of data, or what went wrong.
    pub recipients: Vec<Result<Reply, Failure>>,
    /// Whether the server was told what the sender wants to hear, and sees to it from now on (RFC 3461 §5.2.1).
    pub notifies: bool,
    /// Whether the connection can take another transaction.
    pub reusable: bool,
}
