use empath_common::{
    Body, Envelope, ForwardPath, FutureRelease, Mailbox, MessageNotification, Metadata, MetadataFull,
    MtPriority, OriginalRecipient, RecipientNotification, Reply, ReversePath,
};

use super::{auth::Exchange, content::Content, parameter::Parameters, reply};

/// How far the client has come (RFC 5321 §4.1.4). A state owns what it knows; leaving it forgets that.
#[derive(Debug, Default)]
pub(super) enum State {
    /// No EHLO or HELO yet.
    #[default]
    Connected,
    /// No transaction.
    Ready,
    /// AUTH was accepted, and a response to a challenge is waited for.
    Auth(Exchange),
    /// MAIL was accepted.
    Mail(Mail),
    /// At least one RCPT was accepted.
    Rcpt(Envelope),
    /// After 354, or inside a chunk.
    Content(Box<Content>),
    /// Between chunks.
    Chunks(Box<Content>),
    /// Inside a chunk that is refused.
    Refused(Refused),
}

/// A refused chunk. It is read to its end all the same, and only then answered (RFC 3030 §2): its octets must not be
/// taken for commands.
#[derive(Debug)]
pub(super) struct Refused {
    /// Octets that are still to come.
    pub(super) left: u64,
    pub(super) reply: Reply,
    /// Whether the client has introduced itself.
    pub(super) greeted: bool,
}

/// What MAIL said, and what hooks stored.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) reverse_path: ReversePath,
    pub(super) body: Body,
    pub(super) smtputf8: bool,
    pub(super) notification: MessageNotification,
    pub(super) future_release: Option<FutureRelease>,
    pub(super) mt_priority: Option<MtPriority>,
    pub(super) metadata: Metadata,
}

impl Mail {
    pub(super) fn new(reverse_path: ReversePath, parameters: Parameters) -> Self {
        Self {
            reverse_path,
            body: parameters.body.unwrap_or_default(),
            smtputf8: parameters.smtputf8,
            notification: parameters.notification,
            future_release: parameters.future_release,
            mt_priority: parameters.mt_priority,
            metadata: Metadata::default(),
        }
    }

    fn envelope(self, recipient: ForwardPath, notification: RecipientNotification) -> Envelope {
        let mut envelope = Envelope::new(self.reverse_path, recipient);
        envelope.ask_about(0, notification);
        envelope.ask(self.notification);
        envelope.body = self.body;
        envelope.smtputf8 = self.smtputf8;
        (envelope.future_release, envelope.mt_priority) = (self.future_release, self.mt_priority);
        envelope.metadata = self.metadata;
        envelope
    }
}

impl State {
    /// The state inside a chunk of this size that is refused, and the transaction with it: the octets of the message would
    /// not be all there any more.
    pub(super) fn refuse_chunk(&mut self, size: u64, reply: Reply) {
        let greeted = !matches!(self, Self::Connected);
        *self = Self::Refused(Refused { left: size, reply, greeted });
    }

    /// Whether octets of a message are kept.
    pub(super) fn has_content(&self) -> bool {
        matches!(self, Self::Content(_) | Self::Chunks(_))
    }

    /// RSET, and every end of a transaction: only whether the client has introduced itself is kept.
    pub(super) fn reset(&mut self) {
        if !matches!(self, Self::Connected) {
            *self = Self::Ready;
        }
    }

    /// Whether MAIL may come (RFC 5321 §4.1.4: no MAIL before EHLO, nor inside a transaction), or another command with
    /// the same demands.
    pub(super) fn check_between_transactions(&self) -> Result<(), Reply> {
        if matches!(self, Self::Ready) { Ok(()) } else { Err(reply::BAD_SEQUENCE) }
    }

    /// Whether RCPT may come with this path and these parameters, which need SMTPUTF8 at MAIL if they are not ASCII (RFC 6531
    /// §3.5, RFC 6533 §3).
    pub(super) fn check_rcpt(
        &self,
        path: &ForwardPath,
        notification: &RecipientNotification,
    ) -> Result<(), Reply> {
        let smtputf8 = match self {
            Self::Mail(mail) => mail.smtputf8,
            Self::Rcpt(envelope) => envelope.smtputf8,
            _ => return Err(reply::BAD_SEQUENCE),
        };
        if !smtputf8 && path.mailbox().is_some_and(Mailbox::needs_utf8) {
            return Err(reply::RECIPIENT_NEEDS_UTF8);
        }
        if !smtputf8 && notification.orcpt.as_ref().is_some_and(OriginalRecipient::needs_utf8) {
            return Err(reply::BAD_PARAMETER);
        }
        Ok(())
    }

    /// Whether DATA may come.
    pub(super) fn check_data(&self) -> Result<(), Reply> {
        if matches!(self, Self::Rcpt(_)) { Ok(()) } else { Err(reply::BAD_SEQUENCE) }
    }

    /// The reverse-path, inside a transaction.
    pub(super) fn reverse_path(&self) -> Option<&ReversePath> {
        match self {
            Self::Mail(mail) => Some(&mail.reverse_path),
            Self::Rcpt(envelope) => Some(&envelope.reverse_path),
            Self::Content(content) | Self::Chunks(content) => Some(&content.envelope.reverse_path),
            Self::Connected | Self::Ready | Self::Auth(_) | Self::Refused(_) => None,
        }
    }

    /// A recipient that policy accepted, and what hooks stored with it. If it is refused here, nothing changes.
    pub(super) fn rcpt(
        self,
        path: ForwardPath,
        notification: RecipientNotification,
        metadata: Metadata,
        max: usize,
    ) -> (Self, Reply) {
        match self {
            Self::Mail(mut mail) => match merge(&mut mail.metadata, metadata) {
                Ok(()) => (Self::Rcpt(mail.envelope(path, notification)), reply::RECIPIENT_OK),
                Err(MetadataFull) => (Self::Mail(mail), reply::TOO_MUCH_METADATA),
            },
            Self::Rcpt(mut envelope) => {
                let (before, number) = (envelope.metadata.clone(), envelope.recipients().len());
                if merge(&mut envelope.metadata, metadata).is_err() {
                    return (Self::Rcpt(envelope), reply::TOO_MUCH_METADATA);
                }
                if envelope.add(path, max).is_err() {
                    envelope.metadata = before;
                    return (Self::Rcpt(envelope), reply::TOO_MANY_RECIPIENTS);
                }
                // Nothing, if the recipient was there already.
                envelope.ask_about(number, notification);
                (Self::Rcpt(envelope), reply::RECIPIENT_OK)
            }
            other => (other, reply::BAD_SEQUENCE),
        }
    }
}

/// All of `metadata`, or nothing.
fn merge(into: &mut Metadata, metadata: Metadata) -> Result<(), MetadataFull> {
    if metadata.is_empty() {
        return Ok(());
    }
    let mut merged = into.clone();
    merged.merge(metadata)?;
    *into = merged;
    Ok(())
}
