//! Reading messages back: blocking, verified.

use std::{io, sync::Arc};

use bytes::Bytes;
use empath_common::MessageId;

use crate::{
    LoadError, RecipientState, Stored,
    committer::Shared,
    encoding,
    fields::FieldError,
    index::{Message, Place},
    outcome,
    record::{HEADER, Header, RecordError, size},
};

/// Why a record could not be read, without saying of which message.
enum Failure {
    Record,
    Fields,
    Other,
    Io(io::Error),
}

impl From<RecordError> for Failure {
    fn from(_: RecordError) -> Self {
        Self::Record
    }
}

impl From<FieldError> for Failure {
    fn from(_: FieldError) -> Self {
        Self::Fields
    }
}

impl From<io::Error> for Failure {
    fn from(failure: io::Error) -> Self {
        Self::Io(failure)
    }
}

/// Envelope and state of a message.
pub(crate) fn load(shared: &Shared, id: MessageId) -> Result<Stored, LoadError> {
    read(shared, id, |message| {
        let head = head(shared, id, message.accepted)?;
        let envelope = encoding::envelope(&head)?;
        let mut recipients = vec![RecipientState::default(); envelope.recipients().len()];
        for place in &message.progress {
            outcome::progress(&self::head(shared, id, *place)?)?.apply(&mut recipients);
        }
        Ok(Stored { envelope: Arc::new(envelope), recipients, size: message.accepted.body.into() })
    })
}

/// Content of a message.
pub(crate) fn content(shared: &Shared, id: MessageId) -> Result<Bytes, LoadError> {
    read(shared, id, |message| {
        let place = message.accepted;
        let octets = octets(shared, place, HEADER + size(place.head) + size(place.body))?;
        let header = verify(id, place, &octets)?;
        let content = Bytes::from(octets).slice(HEADER + size(place.head)..);
        header.verify_body(&content)?;
        Ok(content)
    })
}

fn read<T>(
    shared: &Shared,
    id: MessageId,
    read: impl FnOnce(&Message) -> Result<T, Failure>,
) -> Result<T, LoadError> {
    let message = shared.index().message(id).cloned().ok_or(LoadError::Unknown(id))?;
    read(&message).map_err(|failure| {
        if shared.index().message(id).is_none() {
            // It ended meanwhile, and its segment may have been given up or used again.
            return LoadError::Unknown(id);
        }
        match failure {
            Failure::Record => LoadError::Damaged { id, reason: "a checksum does not match" },
            Failure::Fields => LoadError::Damaged { id, reason: "a record has fields that make no sense" },
            Failure::Other => LoadError::Damaged { id, reason: "its record is about another message" },
            Failure::Io(source) => LoadError::Io { id, source },
        }
    })
}

/// The verified fields of a record.
fn head(shared: &Shared, id: MessageId, place: Place) -> Result<Vec<u8>, Failure> {
    let mut octets = octets(shared, place, HEADER + size(place.head))?;
    verify(id, place, &octets)?;
    Ok(octets.split_off(HEADER))
}

fn octets(shared: &Shared, place: Place, length: usize) -> Result<Vec<u8>, Failure> {
    let file = shared.journal.files.open(&shared.journal.segment(place.segment))?;
    let mut octets = vec![0; length];
    if file.read_all_at(&mut octets, place.offset.into())? < length {
        return Err(RecordError::CutOff.into());
    }
    Ok(octets)
}

fn verify(id: MessageId, place: Place, octets: &[u8]) -> Result<Header, Failure> {
    let header = Header::parse(octets, None)?;
    if (header.head, header.body) != (place.head, place.body) {
        return Err(Failure::Record);
    }
    if encoding::id(header.verify_head(octets)?)? != id {
        return Err(Failure::Other);
    }
    Ok(header)
}
