//! The head of a `Progress` record.

use empath_common::{EnhancedStatus, Reply, ReplyCode};
use jiff::Timestamp;

use crate::{
    Attempt, Ended, Progress, RecipientUpdate, Status, Untold, encoding,
    fields::{Field, FieldError, fields, nest, put, put_time},
};

mod progress {
    pub(super) const UPDATE: u16 = 2;
    pub(super) const HELD: u16 = 3;
    pub(super) const RECIPIENT: u16 = 1;
    pub(super) const STATUS: u16 = 2;
    pub(super) const ATTEMPTS: u16 = 3;
    pub(super) const NEXT_ATTEMPT_AT: u16 = 4;
    pub(super) const ATTEMPT: u16 = 5;
    pub(super) const TOLD_OF_DELAY: u16 = 6;
    pub(super) const UNTOLD: u16 = 7;
}

mod attempt {
    pub(super) const AT: u16 = 1;
    pub(super) const NEXT_HOP: u16 = 2;
    pub(super) const HOST: u16 = 3;
    pub(super) const STATUS: u16 = 4;
    pub(super) const DETAIL: u16 = 5;
    pub(super) const REPLY_CODE: u16 = 6;
    pub(super) const REPLY_ENHANCED: u16 = 7;
    pub(super) const REPLY_TEXT: u16 = 8;
}

/// Appends the updates, each a field of fields.
pub(crate) fn put_updates(out: &mut Vec<u8>, updates: &[RecipientUpdate]) {
    for update in updates {
        nest(out, progress::UPDATE, |out| put_update(out, update));
    }
}

fn put_update(out: &mut Vec<u8>, update: &RecipientUpdate) {
    put(out, progress::RECIPIENT, &update.recipient.to_le_bytes());
    put(out, progress::STATUS, &[status_number(update.status)]);
    put(out, progress::ATTEMPTS, &update.attempts.to_le_bytes());
    if let Some(due) = update.next_attempt_at {
        put_time(out, progress::NEXT_ATTEMPT_AT, due);
    }
    if update.told_of_delay {
        put(out, progress::TOLD_OF_DELAY, &[1]);
    }
    if let Some(untold) = update.untold {
        put(out, progress::UNTOLD, &[untold_number(untold)]);
    }
    if let Some(attempt) = &update.attempt {
        nest(out, progress::ATTEMPT, |out| put_attempt(out, attempt));
    }
}

/// Appends whether an operator holds the message, if that changed.
pub(crate) fn put_held(out: &mut Vec<u8>, held: Option<bool>) {
    if let Some(held) = held {
        put(out, progress::HELD, &[held.into()]);
    }
}

/// Whether the message is held from then on, if a `Progress` record says so.
pub(crate) fn held(head: &[u8]) -> Result<Option<bool>, FieldError> {
    let mut held = None;
    for field in fields(head) {
        let field = field?;
        if field.number == progress::HELD {
            held = Some(field.byte()? != 0);
        }
    }
    Ok(held)
}

/// Decodes the head of a `Progress` record.
pub(crate) fn progress(head: &[u8]) -> Result<Progress, FieldError> {
    let mut updates = Vec::new();
    for field in fields(head) {
        let field = field?;
        if field.number == progress::UPDATE {
            updates.push(update(field)?);
        }
    }
    Ok(Progress { id: encoding::id(head)?, updates })
}

fn update(update: Field<'_>) -> Result<RecipientUpdate, FieldError> {
    let (mut recipient, mut status, mut attempts) = (None, None, None);
    let (mut next_attempt_at, mut told_of_delay, mut untold, mut attempt) = (None, false, None, None);
    for field in fields(update.value) {
        let field = field?;
        match field.number {
            progress::RECIPIENT => recipient = Some(field.word()?),
            progress::STATUS => status = Some(status_of(field.byte()?)?),
            progress::ATTEMPTS => attempts = Some(field.word()?),
            progress::NEXT_ATTEMPT_AT => next_attempt_at = Some(field.time()?),
            progress::ATTEMPT => attempt = Some(attempt_of(field)?),
            progress::TOLD_OF_DELAY => told_of_delay = field.byte()? != 0,
            progress::UNTOLD => untold = Some(untold_of(field.byte()?)?),
            _ => {}
        }
    }
    Ok(RecipientUpdate {
        recipient: recipient.ok_or(FieldError::Missing)?,
        status: status.ok_or(FieldError::Missing)?,
        attempts: attempts.ok_or(FieldError::Missing)?,
        next_attempt_at,
        told_of_delay,
        untold,
        attempt,
    })
}

fn status_number(status: Status) -> u8 {
    match status {
        Status::Pending => 0,
        Status::Deferred => 1,
        Status::Ended(Ended::Delivered) => 2,
        Status::Ended(Ended::Bounced) => 3,
        Status::Ended(Ended::Expired) => 4,
        Status::Ended(Ended::Removed) => 5,
    }
}

fn status_of(number: u8) -> Result<Status, FieldError> {
    Ok(match number {
        0 => Status::Pending,
        1 => Status::Deferred,
        2 => Status::Ended(Ended::Delivered),
        3 => Status::Ended(Ended::Bounced),
        4 => Status::Ended(Ended::Expired),
        5 => Status::Ended(Ended::Removed),
        _ => return Err(FieldError::Value),
    })
}

fn untold_number(untold: Untold) -> u8 {
    match untold {
        Untold::Failed => 1,
        Untold::Delivered => 2,
        Untold::Relayed => 3,
    }
}

fn untold_of(number: u8) -> Result<Untold, FieldError> {
    Ok(match number {
        1 => Untold::Failed,
        2 => Untold::Delivered,
        3 => Untold::Relayed,
        _ => return Err(FieldError::Value),
    })
}

fn put_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    put_time(out, attempt::AT, attempt.at);
    put(out, attempt::NEXT_HOP, attempt.next_hop.as_bytes());
    if let Some(host) = &attempt.host {
        put(out, attempt::HOST, host.as_bytes());
    }
    put_enhanced(out, attempt::STATUS, attempt.status);
    put(out, attempt::DETAIL, attempt.detail.as_bytes());
    if let Some(reply) = &attempt.reply {
        put(out, attempt::REPLY_CODE, &reply.code.get().to_le_bytes());
        if let Some(enhanced) = reply.enhanced {
            put_enhanced(out, attempt::REPLY_ENHANCED, enhanced);
        }
        put(out, attempt::REPLY_TEXT, reply.text.as_bytes());
    }
}

fn attempt_of(attempt: Field<'_>) -> Result<Attempt, FieldError> {
    let (mut at, mut next_hop, mut host) = (None::<Timestamp>, None, None);
    let (mut status, mut detail) = (None, None);
    let (mut code, mut enhanced, mut text) = (None, None, String::new());
    for field in fields(attempt.value) {
        let field = field?;
        match field.number {
            attempt::AT => at = Some(field.time()?),
            attempt::NEXT_HOP => next_hop = Some(field.text()?.to_owned()),
            attempt::HOST => host = Some(field.text()?.to_owned()),
            attempt::STATUS => status = Some(enhanced_of(field)?),
            attempt::DETAIL => detail = Some(field.text()?.to_owned()),
            attempt::REPLY_CODE => {
                code = Some(ReplyCode::new(field.short()?).map_err(|_| FieldError::Value)?);
            }
            attempt::REPLY_ENHANCED => enhanced = Some(enhanced_of(field)?),
            attempt::REPLY_TEXT => field.text()?.clone_into(&mut text),
            _ => {}
        }
    }
    Ok(Attempt {
        at: at.ok_or(FieldError::Missing)?,
        next_hop: next_hop.ok_or(FieldError::Missing)?,
        host,
        reply: code.map(|code| Reply { code, enhanced, text: text.into() }),
        status: status.ok_or(FieldError::Missing)?,
        detail: detail.ok_or(FieldError::Missing)?,
    })
}

fn put_enhanced(out: &mut Vec<u8>, number: u16, status: EnhancedStatus) {
    nest(out, number, |out| {
        out.push(status.class);
        out.extend_from_slice(&status.subject.to_le_bytes());
        out.extend_from_slice(&status.detail.to_le_bytes());
    });
}

fn enhanced_of(field: Field<'_>) -> Result<EnhancedStatus, FieldError> {
    let [class, s0, s1, d0, d1] = field.octets()?;
    Ok(EnhancedStatus::new(class, u16::from_le_bytes([s0, s1]), u16::from_le_bytes([d0, d1])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Entry;
    use crate::encoding::{self, encode};
    use crate::record;

    fn sample() -> Progress {
        let at = Timestamp::new(-5, -7).unwrap();
        let attempt = Attempt {
            at,
            next_hop: "mx:example.test".to_owned(),
            host: None,
            reply: Some(Reply::plain(250, "two\nlines")),
            status: EnhancedStatus::new(5, 999, 1),
            detail: String::new(),
        };
        let update = |recipient, status, attempt| RecipientUpdate {
            recipient,
            status,
            attempts: u32::MAX,
            next_attempt_at: Some(at).filter(|_| recipient == 0),
            told_of_delay: recipient == 1,
            untold: match recipient {
                2 => Some(Untold::Delivered),
                3 => Some(Untold::Failed),
                4 => Some(Untold::Relayed),
                _ => None,
            },
            attempt,
        };
        let statuses = [
            Status::Pending,
            Status::Deferred,
            Status::Ended(Ended::Delivered),
            Status::Ended(Ended::Bounced),
            Status::Ended(Ended::Expired),
            Status::Ended(Ended::Removed),
        ];
        let attempts = [Some(attempt.clone()), Some(Attempt { reply: None, ..attempt }), None];
        let updates = (0..)
            .zip(statuses)
            .map(|(n, status)| update(n, status, attempts[n as usize % 3].clone()))
            .collect();
        Progress { id: empath_common::MessageId::from_bytes([9; 16]), updates }
    }

    fn head(entry: Entry) -> Vec<u8> {
        encode(entry, 0).head.split_off(record::HEADER)
    }

    #[test]
    fn progress_is_decoded_as_it_was_encoded() {
        assert_eq!(progress(&head(Entry::Progress(sample()))), Ok(sample()));
    }

    #[test]
    fn fields_of_a_later_version_are_skipped_at_every_level() {
        let mut later = Vec::new();
        put(&mut later, 999, b"from the future");
        put(&mut later, encoding::ID, &[9; 16]);
        nest(&mut later, progress::UPDATE, |out| {
            put(out, 998, b"");
            put_update(out, &sample().updates[0]);
            put(out, 997, b"more");
        });
        assert_eq!(progress(&later).unwrap().updates, sample().updates[..1]);
    }

    #[test]
    fn a_missing_field_is_an_error_and_no_default() {
        let mut fields = Vec::new();
        put(&mut fields, encoding::ID, &[9; 16]);
        nest(&mut fields, progress::UPDATE, |out| {
            put(out, progress::RECIPIENT, &[0; 4]);
        });
        assert_eq!(progress(&fields), Err(FieldError::Missing));
    }

    proptest! {
        #[test]
        fn no_octets_make_a_decoder_panic(octets: Vec<u8>) {
            let _ = progress(&octets);
        }

        #[test]
        fn no_change_of_a_record_makes_a_decoder_panic(at: prop::sample::Index, octet: u8) {
            let mut octets = head(Entry::Progress(sample()));
            let at = at.index(octets.len());
            octets[at] = octet;
            let _ = progress(&octets);
        }
    }
}
