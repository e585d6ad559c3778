//! What is in a sealed segment, in a file beside it, so that a start need not read the segment.
//!
//! Nothing relies on these files: one that is missing, damaged or of another state of its segment is made anew.

use std::{
    io::{self, IoSlice},
    iter,
};

use bytes::Bytes;
use empath_common::MessageId;

use crate::{
    fields::{fields, put},
    files::File,
    index::Effect,
    record::{self, At, Kind, Record},
    scan::Scanned,
    segment::{Journal, Previous},
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

impl FromIterator<Item> for Items {
    fn from_iter<I: IntoIterator<Item = Item>>(items: I) -> Self {
        let mut octets = Vec::new();
        for item in items {
            item.put(&mut octets);
        }
        Self { octets, too_many: false }
    }
}

impl Item {
    /// `None` for records that are about no message.
    pub(crate) fn of(scanned: &Scanned) -> Option<Self> {
        let effect = effect(scanned.header.kind, scanned.id?)?;
        let (offset, octets) = (scanned.at.try_into().ok()?, scanned.header.len().try_into().ok()?);
        Some(Self { effect, offset, octets, previous: scanned.header.previous })
    }

    /// A record that was just written.
    pub(crate) fn written(effect: Effect, at: At, record: &Record) -> Self {
        let octets = u32::try_from(record.len()).unwrap_or(u32::MAX);
        Self { effect, offset: at.offset, octets, previous: record.previous() }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let kind = match self.effect {
            Effect::Accepted(_) => Kind::Accepted,
            Effect::Progress(_) => Kind::Progress,
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
        let effect = effect(kind, MessageId::from_bytes(*id))?;
        let (offset, octets) = (word()?, word()?);
        Some(Self { effect, offset, octets, previous: At::new(word()?, word()?) })
    }
}

fn effect(kind: Kind, id: MessageId) -> Option<Effect> {
    match kind {
        Kind::Accepted => Some(Effect::Accepted(id)),
        Kind::Progress => Some(Effect::Progress(id)),
        Kind::Removed => Some(Effect::Removed(id)),
        Kind::Begin | Kind::End | Kind::Contents | Kind::Unknown(_) => None,
    }
}

impl Journal {
    /// Writes down what is in a segment that is valid up to where `sealed` says.
    pub(crate) fn write_contents(&self, sealed: Previous, items: Vec<u8>) -> io::Result<()> {
        let mut record = Record::new(Kind::Contents, 0, Bytes::from(items), |out| {
            put(out, SEGMENT, &sealed.segment.to_le_bytes());
            put(out, END, &sealed.end.to_le_bytes());
        })
        .last(true);
        record.seal(sealed.epoch, 0, None);
        let path = self.contents(sealed.segment);
        self.remove_name(&path)?;
        let file = self.files.create(&path)?;
        // Not synced: one that a power loss damages is made anew.
        file.write_all_at(&mut [IoSlice::new(&record.head), IoSlice::new(&record.body)], 0)
    }

    /// What was written down about a segment in exactly this state.
    pub(crate) fn read_contents(&self, sealed: Previous) -> Option<Vec<Item>> {
        let octets = whole(&*self.files.open_read(&self.contents(sealed.segment)).ok()?)?;
        let read = record::read(&octets).ok()?;
        let (mut segment, mut end) = (None, None);
        for field in fields(read.head) {
            let field = field.ok()?;
            match field.number {
                SEGMENT => segment = Some(field.word().ok()?),
                END => end = Some(field.long().ok()?),
                _ => {}
            }
        }
        let found = Previous { segment: segment?, epoch: read.header.epoch, end: end? };
        if read.header.kind != Kind::Contents || found != sealed {
            return None;
        }
        let (items, rest) = read.body.as_chunks::<ITEM>();
        if !rest.is_empty() {
            return None;
        }
        items.iter().map(Item::decode).collect()
    }
}

fn whole(file: &dyn File) -> Option<Vec<u8>> {
    let size = usize::try_from(file.size().ok()?).ok()?;
    let mut octets = Vec::new();
    octets.try_reserve_exact(size).ok()?;
    octets.extend(iter::repeat_n(0, size));
    (file.read_all_at(&mut octets, 0).ok()? == size).then_some(octets)
}
