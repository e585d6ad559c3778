//! What is in a sealed segment, in a file beside it, so that a start need not read the segment.
//!
//! Nothing relies on these files: one that is missing, damaged or of another state of its segment is made anew.

use std::{
    io::{self, IoSlice},
    mem,
    ops::Range,
};

use bytes::Bytes;
use empath_common::MessageId;

use crate::{
    content::PIECE,
    fields::{fields, put},
    files::File,
    index::Effect,
    record::{self, At, HEADER, Header, Kind, Record},
    scan::Scanned,
    segment::{Journal, Previous},
    window::Window,
};

const SEGMENT: u16 = 1;
const END: u16 = 2;

/// One record about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) effect: Effect,
    pub(crate) offset: u32,
    /// Octets of the record.
    pub(crate) octets: u32,
    pub(crate) previous: Option<At>,
}

/// Octets of an item in the file.
const ITEM: usize = 36;

/// What is known of a segment's contents while it is written.
#[derive(Debug, Default)]
pub(crate) struct Items {
    octets: Vec<u8>,
    /// There are too many to keep in memory: they are read back when the segment is sealed.
    too_many: bool,
}

/// Most octets of them in memory.
const MAX_ITEMS: usize = 4 << 20;

impl Items {
    pub(crate) fn push(&mut self, item: &Item) {
        if self.too_many || self.octets.len() + ITEM > MAX_ITEMS {
            *self = Self { octets: Vec::new(), too_many: true };
        } else {
            item.put(&mut self.octets);
        }
    }

    /// All of them, as they are written down.
    pub(crate) fn complete(self) -> Option<Vec<u8>> {
        (!self.too_many).then_some(self.octets)
    }
}

impl Item {
    /// `None` for records that are about no message.
    pub(crate) fn of(scanned: &Scanned) -> Option<Self> {
        let previous = scanned.header.previous;
        let effect = effect(scanned.header.kind, scanned.id?, previous)?;
        let (offset, octets) = (scanned.at.try_into().ok()?, scanned.header.len().try_into().ok()?);
        Some(Self { effect, offset, octets, previous })
    }

    /// A record that was just written.
    pub(crate) fn written(effect: Effect, at: At, record: &Record) -> Self {
        let octets = u32::try_from(record.len()).unwrap_or(u32::MAX);
        Self { effect, offset: at.offset, octets, previous: record.previous() }
    }

    /// The first octet behind the record.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.octets)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let kind = match self.effect {
            Effect::Accepted(_) => Kind::Accepted,
            Effect::Progress(_) | Effect::Condensed(_) => Kind::Progress,
            Effect::Removed(_) => Kind::Removed,
        };
        let (segment, offset) = self.previous.map_or((0, 0), |at| (at.segment.get(), at.offset));
        out.extend_from_slice(&self.effect.id().to_bytes());
        out.extend_from_slice(&u32::from(kind.number()).to_le_bytes());
        for number in [self.offset, self.octets, segment, offset] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(octets: &[u8; ITEM]) -> Option<Self> {
        let (id, words) = octets.split_first_chunk::<16>()?;
        let mut words = words.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_le_bytes));
        let mut word = || words.next();
        let kind = Kind::of(word()?.try_into().ok()?);
        let (offset, octets, previous) = (word()?, word()?, At::new(word()?, word()?));
        let effect = effect(kind, MessageId::from_bytes(*id), previous)?;
        Some(Self { effect, offset, octets, previous })
    }
}

fn effect(kind: Kind, id: MessageId, previous: Option<At>) -> Option<Effect> {
    match kind {
        Kind::Accepted => Some(Effect::Accepted(id)),
        Kind::Progress if previous.is_none() => Some(Effect::Condensed(id)),
        Kind::Progress => Some(Effect::Progress(id)),
        Kind::Removed => Some(Effect::Removed(id)),
        Kind::Begin | Kind::End | Kind::Contents | Kind::Unknown(_) => None,
    }
}

/// What is written down about a segment, verified.
pub(crate) struct Contents {
    file: Box<dyn File>,
    items: Range<u64>,
    /// The end of the segment.
    end: u64,
}

impl Contents {
    /// Octets of the file.
    pub(crate) fn octets(&self) -> u64 {
        self.items.end
    }

    /// Takes the items in their order; false if they cannot be read to the end, and then some were taken.
    pub(crate) fn each(&self, mut take: impl FnMut(&Item)) -> bool {
        self.walk(|_, item| take(item)).is_some()
    }

    fn walk(&self, mut take: impl FnMut(&[u8], &Item)) -> Option<()> {
        let mut window = Window::new(&*self.file, self.items.end);
        let (mut at, mut last) = (self.items.start, 0);
        while at < self.items.end {
            let octets: [u8; ITEM] = window.get(at, ITEM).try_into().ok()?;
            let item = Item::decode(&octets).filter(|_| !window.is_unreadable())?;
            // Records stand one behind the other.
            if u64::from(item.offset) < last || item.end() > self.end {
                return None;
            }
            take(&octets, &item);
            (at, last) = (at + ITEM as u64, item.end());
        }
        Some(())
    }
}

/// A file about a segment's contents that is being written: what it begins with comes last.
pub(crate) struct Writing {
    file: Box<dyn File>,
    piece: Vec<u8>,
    at: u64,
    length: u32,
    crc: u32,
}

impl Writing {
    pub(crate) fn push(&mut self, item: &Item) -> io::Result<()> {
        item.put(&mut self.piece);
        if self.piece.len() < PIECE {
            return Ok(());
        }
        let piece = mem::take(&mut self.piece);
        self.octets(&piece)?;
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }

    /// Items as they are written down.
    pub(crate) fn octets(&mut self, items: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&mut [IoSlice::new(items)], self.at)?;
        self.at += items.len() as u64;
        self.length = self.length.saturating_add(u32::try_from(items.len()).unwrap_or(u32::MAX));
        self.crc = crc32c::crc32c_append(self.crc, items);
        Ok(())
    }
}

/// The record of a file about the contents of a segment, up to the items.
fn record(sealed: Previous) -> Record {
    let record = Record::new(Kind::Contents, 0, Bytes::new(), |out| {
        put(out, SEGMENT, &sealed.segment.to_le_bytes());
        put(out, END, &sealed.end.to_le_bytes());
    });
    record.last(true)
}

impl Journal {
    /// Writes down what is in a segment that is valid up to where `sealed` says; returns the octets of the file. `write`
    /// writes the items, and says whether they are all: if not, there is no file.
    pub(crate) fn write_contents(
        &self,
        sealed: Previous,
        write: impl FnOnce(&mut Writing) -> io::Result<bool>,
    ) -> io::Result<u64> {
        let path = self.contents(sealed.segment);
        self.remove_name(&path)?;
        let file = self.files.create(&path)?;
        let (record, piece) = (record(sealed), Vec::new());
        let mut writing = Writing { file, piece, at: record.len(), length: 0, crc: 0 };
        if !write(&mut writing)? {
            return self.remove_name(&path).map(|()| 0);
        }
        let piece = mem::take(&mut writing.piece);
        writing.octets(&piece)?;
        let mut record = record.before(writing.length, writing.crc);
        record.seal(sealed.epoch, 0, None);
        // Not synced: one that a power loss damages is made anew.
        writing.file.write_all_at(&mut [IoSlice::new(&record.head)], 0)?;
        Ok(writing.at)
    }

    /// What was written down about a segment in exactly this state.
    pub(crate) fn read_contents(&self, sealed: Previous) -> Option<Contents> {
        /// What the file begins with is shorter by far.
        const FIRST: usize = 1024;
        let file = self.files.open_read(&self.contents(sealed.segment)).ok()?;
        let size = file.size().ok()?;
        let mut octets = vec![0; FIRST];
        let length = file.read_all_at(&mut octets, 0).ok()?;
        octets.truncate(length);
        let header = Header::parse(&octets, Some(sealed.epoch)).ok()?;
        let head = header.verify_head(&octets).ok()?;
        let (mut segment, mut end) = (None, None);
        for field in fields(head) {
            let field = field.ok()?;
            match field.number {
                SEGMENT => segment = Some(field.word().ok()?),
                END => end = Some(field.long().ok()?),
                _ => {}
            }
        }
        let expected = (Kind::Contents, Some(sealed.segment), Some(sealed.end), size);
        if (header.kind, segment, end, header.len()) != expected
            || !record::size(header.body).is_multiple_of(ITEM)
        {
            return None;
        }
        let items = (HEADER + head.len()) as u64..size;
        let contents = Contents { file, items, end: sealed.end };
        let mut crc = 0;
        contents.walk(|octets, _| crc = crc32c::crc32c_append(crc, octets))?;
        header.verify_checksum(crc).ok()?;
        Some(contents)
    }
}
