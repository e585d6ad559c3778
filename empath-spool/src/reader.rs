//! Reading messages back: blocking, verified.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use empath_common::{Envelope, MessageId};

use crate::{
    Content, LoadError, Progress, RecipientState, Stored,
    committer::Shared,
    condensed::{Condensed, Sum},
    encoding::{self, LargeContent},
    fields::FieldError,
    files::File,
    index::Known,
    large::Large,
    outcome,
    record::{At, HEADER, Header, RecordError, size},
    segment::Previous,
    settling::{LastWrite, Unsettled},
};

/// Why a record could not be read, without saying of which message.
#[derive(Debug)]
pub(crate) enum Failure {
    Record,
    Fields,
    Other,
    Large,
    Lost,
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

impl Failure {
    pub(crate) fn about(self, id: MessageId) -> LoadError {
        let reason = match self {
            Self::Io(source) => return LoadError::Io { id, source },
            Self::Record => "a checksum does not match",
            Self::Fields => "a record has fields that make no sense",
            Self::Other => "its record is about another message",
            Self::Large => "its content in large/ is missing",
            Self::Lost => "its content was damaged and is in damaged/",
        };
        LoadError::Damaged { id, reason }
    }
}

/// Segments that are open for reading.
#[derive(Default)]
pub(crate) struct Open(Mutex<Segments>);

#[derive(Default)]
struct Segments {
    /// The last used at the back.
    open: VecDeque<(u32, Arc<Segment>)>,
    /// What the disk may not give back.
    unsettled: Vec<Arc<LastWrite>>,
}

/// A segment that is open for reading, and the end of it that may not be on disk.
struct Segment {
    file: Box<dyn File>,
    unsettled: Option<Arc<LastWrite>>,
}

impl Segment {
    /// Fills `octets` as far as the segment goes; returns how many there were.
    fn read(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        let held = self.unsettled.as_ref().map_or(0, |write| write.read(octets, offset));
        let rest = octets.get_mut(held..).unwrap_or_default();
        Ok(held + self.file.read_all_at(rest, offset + held as u64)?)
    }
}

/// Most segments that are open at a time.
const MAX_OPEN: usize = 32;

impl Open {
    /// `unsettled` is what the start could not make durable.
    pub(crate) fn new(unsettled: Option<&Unsettled>) -> Self {
        let unsettled = unsettled.into_iter().flat_map(Unsettled::writes).cloned().collect();
        Self(Segments { unsettled, ..Segments::default() }.into())
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segment(&self, shared: &Shared, number: u32) -> io::Result<Arc<Segment>> {
        let Segments { open, unsettled } = &mut *self.segments();
        let found = open.iter().position(|(segment, _)| *segment == number).and_then(|at| open.remove(at));
        let segment = if let Some((_, segment)) = found {
            segment
        } else {
            let file = shared.journal.files.open_read(&shared.journal.segment(number))?;
            let unsettled = unsettled.iter().find(|write| write.segment == number).cloned();
            Arc::new(Segment { file, unsettled })
        };
        if open.len() >= MAX_OPEN {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&segment)));
        Ok(segment)
    }

    /// Closes a segment that is given up, so that its space is free and its name can mean another file.
    pub(crate) fn close(&self, number: u32) {
        self.segments().open.retain(|(segment, _)| *segment != number);
    }

    /// What the start has found is durable: the disk gives it back.
    pub(crate) fn settled(&self) {
        *self.segments() = Segments::default();
    }
}

/// Whether a damaged `Progress` is an error, or is passed: what its segment's contents say about it leads on to the one
/// before, and where there are none the history ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damaged {
    Fails,
    Passed,
}

/// Envelope and state of a message.
pub(crate) fn load(shared: &Shared, id: MessageId) -> Result<Stored, LoadError> {
    match load_or(shared, id, Damaged::Fails) {
        Err(failure @ LoadError::Damaged { .. }) => {
            // A message whose history is damaged is delivered nevertheless, to some perhaps once more.
            let stored = load_or(shared, id, Damaged::Passed)?;
            tracing::error!(message_id = %id, error = %failure, "the history of a message is damaged; what is left of it counts");
            Ok(stored)
        }
        loaded => loaded,
    }
}

fn load_or(shared: &Shared, id: MessageId, damaged: Damaged) -> Result<Stored, LoadError> {
    read(shared, id, |known| {
        let (header, octets) = head(shared, id, known.0.accepted)?;
        let head = octets.get(HEADER..).unwrap_or_default();
        let envelope = encoding::envelope(head)?;
        let size = encoding::large(head)?.map_or(u64::from(header.body), |large| large.length);
        let mut recipients = vec![RecipientState::default(); envelope.recipients().len()];
        let Sum { updates, held } = condensed(shared, id, known, damaged)?;
        Progress { id, updates }.apply(&mut recipients);
        Ok(Stored { envelope: Arc::new(envelope), recipients, size, held: held == Some(true) })
    })
}

/// Content of a message.
pub(crate) fn content(shared: &Shared, id: MessageId) -> Result<Content, LoadError> {
    read(shared, id, |(message, _)| {
        let (header, octets, body) = whole(shared, id, message.accepted)?;
        let head = octets.get(HEADER..).unwrap_or_default();
        if encoding::is_lost(head)? {
            return Err(Failure::Lost);
        }
        match encoding::large(head)? {
            None => {
                header.verify_body(&body)?;
                Ok(body.into())
            }
            Some(expected) => {
                let large = Large::open(&shared.journal, id, expected.length, expected.crc);
                Ok(Content::large(Arc::new(large.map_err(missing)?)))
            }
        }
    })
}

/// The envelope that a record says.
pub(crate) fn envelope(shared: &Shared, id: MessageId, at: At) -> Result<Envelope, Failure> {
    let (_, octets) = head(shared, id, at)?;
    Ok(encoding::envelope(octets.get(HEADER..).unwrap_or_default())?)
}

/// Whether nothing is left of a message but its envelope.
pub(crate) fn is_lost(shared: &Shared, id: MessageId, at: At) -> bool {
    let head = head(shared, id, at);
    head.is_ok_and(|(_, octets)| {
        encoding::is_lost(octets.get(HEADER..).unwrap_or_default()).unwrap_or_default()
    })
}

/// What the record of a message says about its file, if it has one.
pub(crate) fn large(shared: &Shared, id: MessageId, at: At) -> Result<Option<LargeContent>, Failure> {
    let (_, octets) = head(shared, id, at)?;
    Ok(encoding::large(octets.get(HEADER..).unwrap_or_default())?)
}

fn missing(failure: io::Error) -> Failure {
    if failure.kind() == io::ErrorKind::NotFound { Failure::Large } else { Failure::Io(failure) }
}

/// Reads what the index knows about a message; again, if compaction moved the message meanwhile.
fn read<T>(
    shared: &Shared,
    id: MessageId,
    read: impl Fn(&Known) -> Result<T, Failure>,
) -> Result<T, LoadError> {
    let mut known = shared.index().message_and_gaps(id).ok_or(LoadError::Unknown(id))?;
    loop {
        let failure = match read(&known) {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        // If it ended meanwhile, its segment may have been given up or used again.
        let now = shared.index().message_and_gaps(id).ok_or(LoadError::Unknown(id))?;
        if now == known {
            return Err(failure.about(id));
        }
        known = now;
    }
}

/// What all `Progress` of a message come to, read from the youngest to the oldest.
pub(crate) fn condensed(
    shared: &Shared,
    id: MessageId,
    (message, gaps): &Known,
    damaged: Damaged,
) -> Result<Sum, Failure> {
    let mut condensed = Condensed::default();
    let mut next = message.progress;
    while let Some(at) = next {
        let read = head(shared, id, at).and_then(|(header, octets)| {
            let head = octets.get(HEADER..).unwrap_or_default();
            Ok((header, outcome::progress(head)?, outcome::held(head)?))
        });
        let (header, progress, held) = match read {
            Err(Failure::Record | Failure::Fields | Failure::Other) if damaged == Damaged::Passed => {
                next = before(shared, id, at);
                continue;
            }
            read => read?,
        };
        let gap = gaps.iter().find(|(behind, _)| *behind == at);
        next = gap.map_or(header.previous, |(_, before)| *before);
        // Nothing follows itself or what is younger.
        if next.is_some_and(|next| (next.segment, next.offset) >= (at.segment, at.offset)) {
            return Err(Failure::Fields);
        }
        condensed.before(progress, held);
    }
    Ok(condensed.sum())
}

/// What was written down about a `Progress`: the one before it.
fn before(shared: &Shared, id: MessageId, at: At) -> Option<At> {
    let segment = at.segment.get();
    let used = shared.index().segment(segment)?;
    let contents = shared.journal.read_contents(Previous { segment, epoch: used.epoch, end: used.end })?;
    let mut before = None;
    let all = contents.each(|item| {
        if item.offset == at.offset && item.effect.id() == id {
            before = item.previous;
        }
    });
    // It must lead to what is older.
    before.filter(|before| all && (before.segment, before.offset) < (at.segment, at.offset))
}

/// Header, and header and fields as octets, of a record: verified.
fn head(shared: &Shared, id: MessageId, at: At) -> Result<(Header, Vec<u8>), Failure> {
    /// Most records without content fit.
    const FIRST: usize = 1024;
    let segment = shared.open.segment(shared, at.segment.get())?;
    let mut octets = vec![0; FIRST];
    let length = segment.read(&mut octets, at.offset.into())?;
    octets.truncate(length);
    let header = Header::parse(&octets, None)?;
    more(&segment, at, &mut octets, HEADER + size(header.head))?;
    verify(id, header, octets)
}

/// The same, and the body as it stands.
pub(crate) fn whole(shared: &Shared, id: MessageId, at: At) -> Result<(Header, Vec<u8>, Bytes), Failure> {
    let (header, octets) = head(shared, id, at)?;
    let mut body = vec![0; size(header.body)];
    let segment = shared.open.segment(shared, at.segment.get())?;
    if segment.read(&mut body, u64::from(at.offset) + octets.len() as u64)? < body.len() {
        return Err(RecordError::CutOff.into());
    }
    Ok((header, octets, body.into()))
}

/// Reads on until there are `length` octets.
fn more(segment: &Segment, at: At, octets: &mut Vec<u8>, length: usize) -> Result<(), Failure> {
    let have = octets.len();
    // A length that makes no sense must not become an allocation.
    if length > have && u64::from(at.offset) + length as u64 > segment.file.size()? {
        return Err(RecordError::CutOff.into());
    }
    octets.resize(length, 0);
    let rest = octets.get_mut(have..).unwrap_or_default();
    if segment.read(rest, u64::from(at.offset) + have as u64)? < rest.len() {
        return Err(RecordError::CutOff.into());
    }
    Ok(())
}

fn verify(id: MessageId, header: Header, octets: Vec<u8>) -> Result<(Header, Vec<u8>), Failure> {
    if encoding::id(header.verify_head(&octets)?)? != id {
        return Err(Failure::Other);
    }
    Ok((header, octets))
}
