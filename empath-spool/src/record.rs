//! The one structure on disk: a record with a fixed header, a head of fields, and a body of content.

use std::num::NonZeroU32;

use bytes::Bytes;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first record of a segment: which segment, what came before.
    Begin,
    /// A message was accepted: the envelope in the head, the content in the body.
    Accepted,
    /// Delivery made progress.
    Progress,
    /// A message ended.
    Removed,
    /// The spool was closed in order; nothing follows in this segment.
    End,
    /// What is in a segment: the only record of a file of its own.
    Contents,
    /// Of a newer version; it is skipped.
    Unknown(u8),
}

/// The header of a record as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Whether the batch ends with this record.
    pub(crate) last: bool,
    /// The segment's secret number: what has another is a leftover of an earlier use of the file.
    pub(crate) epoch: u64,
    /// Where in the segment the write began that the record was part of.
    pub(crate) start: u32,
    /// The record's place in its batch.
    pub(crate) place: u32,
    pub(crate) head: u32,
    pub(crate) body: u32,
    body_crc: u32,
    /// Where the message's last `Progress` before this one stands.
    pub(crate) previous: Option<At>,
    crc: u32,
}

/// Where a record stands. Segment 0 does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) segment: NonZeroU32,
    pub(crate) offset: u32,
}

/// Why octets are not a record of this segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No record begins here.
    #[error("no record begins here")]
    Magic,
    /// A record of another epoch.
    #[error("a record of another epoch")]
    Epoch,
    /// A record in a later format.
    #[error("a record in a later format")]
    Version,
    /// A record that goes beyond the end.
    #[error("a record is cut off")]
    CutOff,
    /// The checksum of header and head does not match.
    #[error("the checksum of the record's head does not match")]
    Head,
    /// Other records of its batch are missing.
    #[error("other records of the batch are missing")]
    Batch,
    /// The checksum of the body does not match.
    #[error("the checksum of the content does not match")]
    Body,
}

/// A record on its way to disk. Everything is encoded in the thread that commits; only the segment is not yet
/// known then.
#[derive(Debug)]
pub(crate) struct Record {
    /// Header and head.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
    head_crc: u32,
}

/// A verified record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read<'a> {
    pub(crate) header: Header,
    pub(crate) head: &'a [u8],
}

/// Octets of a header.
pub(crate) const HEADER: usize = 48;
pub(crate) const MAGIC: [u8; 4] = *b"EMPR";
const VERSION: u8 = 1;
const LAST: u16 = 1;

impl Kind {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::Accepted => 2,
            Self::Progress => 3,
            Self::Removed => 4,
            Self::End => 5,
            Self::Contents => 6,
            Self::Unknown(number) => number,
        }
    }

    pub(crate) fn of(number: u8) -> Self {
        match number {
            1 => Self::Begin,
            2 => Self::Accepted,
            3 => Self::Progress,
            4 => Self::Removed,
            5 => Self::End,
            6 => Self::Contents,
            number => Self::Unknown(number),
        }
    }
}

impl Record {
    /// A record whose fields `write` appends.
    pub(crate) fn new(kind: Kind, place: u32, body: Bytes, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&[VERSION, kind.number(), 0, 0]);
        head.extend_from_slice(&[0; 12]);
        head.extend_from_slice(&place.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&length(body.len()).to_le_bytes());
        head.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        head.extend_from_slice(&[0; 12]);
        write(&mut head);
        let fields = head.get(HEADER..).unwrap_or_default();
        let (head_length, head_crc) = (length(fields.len()), crc32c::crc32c(fields));
        set(&mut head, 24, &head_length.to_le_bytes());
        Self { head, body, head_crc }
    }

    /// Says of a record without a body that one of so many octets follows, with this CRC-32C, that is written apart.
    pub(crate) fn before(mut self, body: u32, crc: u32) -> Self {
        set(&mut self.head, 28, &body.to_le_bytes());
        set(&mut self.head, 32, &crc.to_le_bytes());
        self
    }

    /// Says whether the batch ends with this record.
    pub(crate) fn last(mut self, last: bool) -> Self {
        set(&mut self.head, 6, &(if last { LAST } else { 0 }).to_le_bytes());
        self
    }

    /// The same record once more, at another place in another batch. `head` is header and head as read and verified.
    pub(crate) fn again(head: Vec<u8>, body: Bytes, place: u32) -> Self {
        let head_crc = crc32c::crc32c(head.get(HEADER..).unwrap_or_default());
        let mut record = Self { head, body, head_crc };
        set(&mut record.head, 20, &place.to_le_bytes());
        record
    }

    /// Makes the record part of a write to a segment. `previous` is the message's last `Progress` before this one.
    pub(crate) fn seal(&mut self, epoch: u64, start: u32, previous: Option<At>) {
        set(&mut self.head, 8, &epoch.to_le_bytes());
        set(&mut self.head, 16, &start.to_le_bytes());
        let (segment, offset) = previous.map_or((0, 0), |at| (at.segment.get(), at.offset));
        set(&mut self.head, 36, &segment.to_le_bytes());
        set(&mut self.head, 40, &offset.to_le_bytes());
        let crc = crc32c::crc32c_append(self.head_crc, self.head.get(..HEADER - 4).unwrap_or_default());
        set(&mut self.head, HEADER - 4, &crc.to_le_bytes());
    }

    /// The `Progress` before this one, as it was sealed.
    pub(crate) fn previous(&self) -> Option<At> {
        let word = |at: usize| self.head.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        At::new(word(36)?, word(40)?)
    }

    /// Octets on disk.
    pub(crate) fn len(&self) -> u64 {
        self.head.len() as u64 + self.body.len() as u64
    }
}

/// Batches that do not fit are refused before they are encoded, so no length is cut.
fn length(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}

fn set(octets: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = octets.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

impl At {
    pub(crate) fn new(segment: u32, offset: u32) -> Option<Self> {
        NonZeroU32::new(segment).map(|segment| Self { segment, offset })
    }
}

impl Header {
    /// Reads a header. What it says is true only when [`verify_head`](Self::verify_head) says so.
    pub(crate) fn parse(octets: &[u8], epoch: Option<u64>) -> Result<Self, RecordError> {
        let octets: &[u8; HEADER] = octets.first_chunk().ok_or(RecordError::CutOff)?;
        let [m0, m1, m2, m3, version, kind, f0, f1, rest @ ..] = *octets;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(RecordError::Magic);
        }
        let [e0, e1, e2, e3, e4, e5, e6, e7, words @ ..] = rest;
        let found = u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]);
        if epoch.is_some_and(|epoch| epoch != found) {
            return Err(RecordError::Epoch);
        }
        if version != VERSION {
            return Err(RecordError::Version);
        }
        let mut words = words.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_le_bytes));
        let mut word = || words.next().unwrap_or(0);
        Ok(Self {
            kind: Kind::of(kind),
            last: u16::from_le_bytes([f0, f1]) & LAST != 0,
            epoch: found,
            start: word(),
            place: word(),
            head: word(),
            body: word(),
            body_crc: word(),
            previous: At::new(word(), word()),
            crc: word(),
        })
    }

    /// Checks header and head. `octets` begin with the header.
    pub(crate) fn verify_head<'a>(&self, octets: &'a [u8]) -> Result<&'a [u8], RecordError> {
        let rest = octets.get(HEADER..).ok_or(RecordError::CutOff)?;
        let head = rest.get(..size(self.head)).ok_or(RecordError::CutOff)?;
        self.verify_head_checksum(octets, crc32c::crc32c(head))?;
        Ok(head)
    }

    /// The same by the CRC-32C of the head.
    pub(crate) fn verify_head_checksum(&self, octets: &[u8], head: u32) -> Result<(), RecordError> {
        let covered = octets.get(..HEADER - 4).ok_or(RecordError::CutOff)?;
        if crc32c::crc32c_append(head, covered) == self.crc { Ok(()) } else { Err(RecordError::Head) }
    }

    /// Checks the body.
    pub(crate) fn verify_body(&self, body: &[u8]) -> Result<(), RecordError> {
        self.verify_checksum(crc32c::crc32c(body))
    }

    /// Checks the body by its CRC-32C.
    pub(crate) fn verify_checksum(&self, crc: u32) -> Result<(), RecordError> {
        if crc == self.body_crc { Ok(()) } else { Err(RecordError::Body) }
    }

    /// Octets on disk.
    pub(crate) fn len(&self) -> u64 {
        HEADER as u64 + u64::from(self.head) + u64::from(self.body)
    }
}

/// Reads and verifies the record at the start of `octets`, of any epoch.
pub(crate) fn read(octets: &[u8]) -> Result<Read<'_>, RecordError> {
    let header = Header::parse(octets, None)?;
    let head = header.verify_head(octets)?;
    let body = octets.get(HEADER + head.len()..).and_then(|rest| rest.get(..size(header.body)));
    let body = body.ok_or(RecordError::CutOff)?;
    header.verify_body(body)?;
    Ok(Read { header, head })
}

pub(crate) fn size(octets: u32) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX)
}
