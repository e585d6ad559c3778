//! The heads of records: which field has which number. Numbers are never given a second meaning.

#[cfg(test)]
mod tests;

use crate::{
    Entry,
    condensed::Sum,
    fields::{Field, FieldError, fields, nest, put, put_time},
    outcome,
    record::{Kind, Record},
};
use empath_common::{
    Body, Charset, Envelope, EnvelopeId, ForwardPath, FutureRelease, Mailbox, MessageId, MessageNotification,
    Metadata, MtPriority, Notify, OriginalRecipient, Priority, RecipientNotification, Ret, ReversePath,
};

/// Field 1 of every record about a message.
pub(crate) const ID: u16 = 1;

mod accepted {
    pub(super) const RECEIVED_AT: u16 = 2;
    pub(super) const REVERSE_PATH: u16 = 3;
    pub(super) const RECIPIENT: u16 = 4;
    pub(super) const BODY: u16 = 5;
    pub(super) const SMTPUTF8: u16 = 6;
    pub(super) const METADATA: u16 = 7;
    pub(super) const LARGE: u16 = 8;
    pub(super) const RET: u16 = 9;
    pub(super) const ENVID: u16 = 10;
    pub(super) const NOTIFICATION: u16 = 11;
    pub(super) const PRIORITY: u16 = 12;
    pub(super) const LOST: u16 = 13;
    pub(super) const HOLD_FOR: u16 = 14;
    pub(super) const HOLD_UNTIL: u16 = 15;
    pub(super) const MT_PRIORITY: u16 = 16;
    pub(super) const NAME: u16 = 1;
    pub(super) const VALUE: u16 = 2;
}

mod notification {
    pub(super) const RECIPIENT: u16 = 1;
    pub(super) const NOTIFY: u16 = 2;
    pub(super) const ORCPT: u16 = 3;
    /// Bits of `NOTIFY`.
    pub(super) const SUCCESS: u8 = 1;
    pub(super) const FAILURE: u8 = 2;
    pub(super) const DELAY: u8 = 4;
}

mod large {
    pub(super) const LENGTH: u16 = 1;
    pub(super) const CRC: u16 = 2;
}

/// Length and checksum of content that is not in the record but in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LargeContent {
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

/// Encodes one entry of a batch.
pub(crate) fn encode(entry: Entry, place: u32) -> Record {
    match entry {
        Entry::Accepted { id, envelope, content } => {
            let body = content.in_memory().cloned().unwrap_or_default();
            Record::new(Kind::Accepted, place, body, |out| {
                put(out, ID, &id.to_bytes());
                put_envelope(out, &envelope);
                if let Some(large) = content.as_large() {
                    nest(out, accepted::LARGE, |out| {
                        put(out, large::LENGTH, &large.length().to_le_bytes());
                        put(out, large::CRC, &large.crc().to_le_bytes());
                    });
                }
            })
        }
        Entry::Progress(progress) => Record::new(Kind::Progress, place, bytes::Bytes::new(), |out| {
            put(out, ID, &progress.id.to_bytes());
            outcome::put_updates(out, &progress.updates);
        }),
        Entry::Held { id, held } => Record::new(Kind::Progress, place, bytes::Bytes::new(), |out| {
            put(out, ID, &id.to_bytes());
            outcome::put_held(out, Some(held));
        }),
        Entry::Removed(id) => Record::new(Kind::Removed, place, bytes::Bytes::new(), |out| {
            put(out, ID, &id.to_bytes());
        }),
    }
}

/// Encodes an `Accepted` whose content was damaged.
pub(crate) fn encode_lost(id: MessageId, envelope: &Envelope, place: u32) -> Record {
    Record::new(Kind::Accepted, place, bytes::Bytes::new(), |out| {
        put(out, ID, &id.to_bytes());
        put_envelope(out, envelope);
        put(out, accepted::LOST, &[1]);
    })
}

/// Encodes the one `Progress` that says what all of a message's come to.
pub(crate) fn encode_sum(id: MessageId, sum: &Sum, place: u32) -> Record {
    Record::new(Kind::Progress, place, bytes::Bytes::new(), |out| {
        put(out, ID, &id.to_bytes());
        outcome::put_updates(out, &sum.updates);
        outcome::put_held(out, sum.held);
    })
}

/// The message that a record is about.
pub(crate) fn id(head: &[u8]) -> Result<MessageId, FieldError> {
    for field in fields(head) {
        let field = field?;
        if field.number == ID {
            return field.octets().map(MessageId::from_bytes);
        }
    }
    Err(FieldError::Missing)
}

fn put_envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    put_time(out, accepted::RECEIVED_AT, envelope.received_at);
    put(out, accepted::REVERSE_PATH, envelope.reverse_path.as_str().as_bytes());
    for recipient in envelope.recipients() {
        put(out, accepted::RECIPIENT, recipient.mailbox().map_or("", Mailbox::as_str).as_bytes());
    }
    put(out, accepted::BODY, &[u8::from(envelope.body == Body::EightBitMime)]);
    put(out, accepted::SMTPUTF8, &[u8::from(envelope.smtputf8)]);
    for (name, value) in envelope.metadata.iter() {
        nest(out, accepted::METADATA, |out| {
            put(out, accepted::NAME, name.as_bytes());
            put(out, accepted::VALUE, value.as_bytes());
        });
    }
    if envelope.priority != Priority::default() {
        put(out, accepted::PRIORITY, &[envelope.priority as u8]);
    }
    if let Some(priority) = envelope.mt_priority {
        put(out, accepted::MT_PRIORITY, &priority.get().to_le_bytes());
    }
    match envelope.future_release {
        None => {}
        Some(FutureRelease::For(seconds)) => put(out, accepted::HOLD_FOR, &seconds.to_le_bytes()),
        Some(FutureRelease::Until(time)) => put_time(out, accepted::HOLD_UNTIL, time),
    }
    if let Some(ret) = envelope.notification().ret {
        put(out, accepted::RET, &[u8::from(ret == Ret::Headers)]);
    }
    if let Some(envid) = &envelope.notification().envid {
        put(out, accepted::ENVID, envid.as_str().as_bytes());
    }
    for (number, asked) in envelope.notifications() {
        // A number of more than 32 bits can't get here: a batch of that size is refused by its estimate.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        nest(out, accepted::NOTIFICATION, |out| put_notification(out, number, asked));
    }
}

fn put_notification(out: &mut Vec<u8>, number: u32, asked: &RecipientNotification) {
    put(out, notification::RECIPIENT, &number.to_le_bytes());
    if let Some(notify) = asked.notify {
        let bit = |asked, bit| if asked { bit } else { 0 };
        let bits = bit(notify.success, notification::SUCCESS)
            | bit(notify.failure, notification::FAILURE)
            | bit(notify.delay, notification::DELAY);
        put(out, notification::NOTIFY, &[bits]);
    }
    if let Some(orcpt) = &asked.orcpt {
        put(out, notification::ORCPT, orcpt.as_str().as_bytes());
    }
}

/// Decodes the head of an `Accepted` record.
pub(crate) fn envelope(head: &[u8]) -> Result<Envelope, FieldError> {
    let mut envelope: Option<Envelope> = None;
    let (mut reverse_path, mut received_at) = (None, None);
    let (mut body, mut smtputf8) = (Body::default(), false);
    let (mut metadata, mut priority) = (Metadata::default(), Priority::default());
    let (mut mt_priority, mut future_release) = (None, None);
    let (mut of_message, mut of_recipients) = (MessageNotification::default(), Vec::new());
    for field in fields(head) {
        let field = field?;
        match field.number {
            accepted::RECEIVED_AT => received_at = Some(field.time()?),
            accepted::REVERSE_PATH => {
                reverse_path = Some(mailbox(field)?.map_or(ReversePath::Null, ReversePath::Mailbox));
            }
            accepted::RECIPIENT => {
                let recipient = mailbox(field)?.map_or(ForwardPath::Postmaster, ForwardPath::Mailbox);
                match &mut envelope {
                    // A recipient is known by its place, so every one that was stored must be taken.
                    Some(envelope) => envelope.add(recipient, usize::MAX).map_err(|_| FieldError::Value)?,
                    None => envelope = Some(Envelope::new(ReversePath::Null, recipient)),
                }
            }
            accepted::BODY => body = if field.byte()? == 0 { Body::SevenBit } else { Body::EightBitMime },
            accepted::SMTPUTF8 => smtputf8 = field.byte()? != 0,
            accepted::METADATA => {
                let (name, value) = named(field)?;
                metadata.insert(name, value).map_err(|_| FieldError::Value)?;
            }
            accepted::RET => {
                of_message.ret = Some(if field.byte()? == 0 { Ret::Full } else { Ret::Headers });
            }
            accepted::ENVID => {
                of_message.envid = Some(EnvelopeId::parse(field.value).ok_or(FieldError::Value)?);
            }
            accepted::NOTIFICATION => of_recipients.push(asked(field)?),
            accepted::PRIORITY => {
                // One that a later version may know must not keep the message from being delivered.
                priority = Priority::ALL.get(usize::from(field.byte()?)).copied().unwrap_or_default();
            }
            // As with that.
            accepted::MT_PRIORITY => mt_priority = MtPriority::new(field.byte()?.cast_signed()),
            accepted::HOLD_FOR => future_release = Some(FutureRelease::For(field.word()?)),
            accepted::HOLD_UNTIL => future_release = Some(FutureRelease::Until(field.time()?)),
            _ => {}
        }
    }
    let mut envelope = envelope.ok_or(FieldError::Missing)?;
    envelope.reverse_path = reverse_path.ok_or(FieldError::Missing)?;
    envelope.received_at = received_at.ok_or(FieldError::Missing)?;
    envelope.body = body;
    envelope.smtputf8 = smtputf8;
    envelope.metadata = metadata;
    envelope.priority = priority;
    (envelope.mt_priority, envelope.future_release) = (mt_priority, future_release);
    envelope.ask(of_message);
    for (number, asked) in of_recipients {
        envelope.ask_about(number, asked);
    }
    Ok(envelope)
}

/// What was asked about a recipient, with its number.
fn asked(field: Field<'_>) -> Result<(usize, RecipientNotification), FieldError> {
    let (mut number, mut asked) = (None, RecipientNotification::default());
    for field in fields(field.value) {
        let field = field?;
        match field.number {
            notification::RECIPIENT => number = Some(field.word()?),
            notification::NOTIFY => {
                let bits = field.byte()?;
                let notify = |bit| bits & bit != 0;
                asked.notify = Some(Notify {
                    success: notify(notification::SUCCESS),
                    failure: notify(notification::FAILURE),
                    delay: notify(notification::DELAY),
                });
            }
            notification::ORCPT => {
                asked.orcpt = Some(OriginalRecipient::parse(field.value).ok_or(FieldError::Value)?);
            }
            _ => {}
        }
    }
    let number = number.and_then(|number| usize::try_from(number).ok()).ok_or(FieldError::Missing)?;
    Ok((number, asked))
}

/// Where the content of an `Accepted` record is, if not in its body.
pub(crate) fn large(head: &[u8]) -> Result<Option<LargeContent>, FieldError> {
    for field in fields(head) {
        let field = field?;
        if field.number == accepted::LARGE {
            let (mut length, mut crc) = (None, None);
            for field in fields(field.value) {
                let field = field?;
                match field.number {
                    large::LENGTH => length = Some(field.long()?),
                    large::CRC => crc = Some(field.word()?),
                    _ => {}
                }
            }
            let (length, crc) = (length.ok_or(FieldError::Missing)?, crc.ok_or(FieldError::Missing)?);
            return Ok(Some(LargeContent { length, crc }));
        }
    }
    Ok(None)
}

/// Whether the content of an `Accepted` record was damaged, and is in `damaged/` alone.
pub(crate) fn is_lost(head: &[u8]) -> Result<bool, FieldError> {
    for field in fields(head) {
        let field = field?;
        if field.number == accepted::LOST {
            return Ok(field.byte()? != 0);
        }
    }
    Ok(false)
}

/// Empty is the null reverse-path or the bare `<Postmaster>`.
fn mailbox(field: Field<'_>) -> Result<Option<Mailbox>, FieldError> {
    if field.value.is_empty() {
        return Ok(None);
    }
    Mailbox::parse(field.value, Charset::Utf8).map(Some).map_err(|_| FieldError::Value)
}

fn named(metadata: Field<'_>) -> Result<(String, String), FieldError> {
    let (mut name, mut value) = (None, None);
    for field in fields(metadata.value) {
        let field = field?;
        match field.number {
            accepted::NAME => name = Some(field.text()?),
            accepted::VALUE => value = Some(field.text()?),
            _ => {}
        }
    }
    Ok((name.ok_or(FieldError::Missing)?.to_owned(), value.ok_or(FieldError::Missing)?.to_owned()))
}
