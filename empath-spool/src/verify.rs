//! Reading everything that is stored, to see whether it is what was committed.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use empath_common::MessageId;
use empath_metrics::Registry;

use crate::{
    Damage, DamageReason, KeptSegment, LoadError, Metrics, OpenError, Quarantine,
    chain::{Known, chain, never_used},
    committer::Shared,
    config::Config,
    directory::{failed, find, lock},
    encoding::{self, LargeContent},
    files::{Disk, Files, Share},
    index::Use,
    kept,
    large::Large,
    reader,
    record::{HEADER, Kind},
    scan::{Damaged, Found, Scanned, scan},
    segment::{Journal, Name},
    window::Window,
};

/// What a check of everything that is stored has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Segments that were read.
    pub segments: usize,
    /// Records that are whole.
    pub records: u64,
    /// Octets that were read.
    pub octets: u64,
    /// Files of large messages that were read.
    pub large: usize,
    /// Octets of a last write that did not finish, and was never acknowledged; the next start drops them.
    pub unfinished: u64,
    /// What does not verify in the journal.
    pub damaged: Vec<Damage>,
    /// Messages that cannot be read, and why.
    pub unreadable: Vec<(MessageId, String)>,
    /// Segments that the running spool keeps, and why.
    pub kept: Vec<KeptSegment>,
}

impl Verification {
    /// Whether everything is as it was committed.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.unreadable.is_empty() && self.kept.is_empty()
    }

    fn segment(
        &mut self,
        journal: &Journal,
        number: u32,
        known: Known,
        large: &mut BTreeMap<MessageId, LargeContent>,
    ) -> io::Result<()> {
        let file = journal.files.open_read(&journal.segment(number))?;
        let size = file.size()?;
        let end = known.end.unwrap_or(size);
        let mut window = Window::new(&*file, end.min(size));
        let mut scan = scan(&mut window, known.epoch, known.end.is_some());
        while let Some(found) = scan.next() {
            match found {
                Found::Record(record) => {
                    self.records += 1;
                    named(scan.window, &record, large);
                }
                Found::Damage(damaged) => {
                    let reason = damaged.reason.into();
                    self.damaged.push(Damage::of(number, damaged, reason));
                }
                Found::Senseless { damaged, .. } => {
                    self.damaged.push(Damage::of(number, damaged, DamageReason::Fields));
                }
                Found::Unfinished(Damaged { range, .. }) => self.unfinished += range.end - range.start,
            }
        }
        let unreadable = window.unreadable().into_iter();
        self.damaged.extend(unreadable.map(|range| Damage::new(number, range, DamageReason::Unreadable)));
        if end > size {
            self.damaged.push(Damage::new(number, size..end, DamageReason::CutOff));
        }
        self.segments += 1;
        self.octets += end.min(size);
        Ok(())
    }

    /// A segment whose first record does not say what belongs to it: one that was never used, or damage.
    fn without_begin(&mut self, journal: &Journal, number: u32) -> io::Result<()> {
        let file = journal.files.open_read(&journal.segment(number))?;
        let size = file.size()?;
        let mut window = Window::new(&*file, size);
        match never_used(&mut window) {
            _ if window.is_unreadable() => {
                self.damaged.push(Damage::new(number, 0..size, DamageReason::Unreadable));
            }
            Some(begun) => self.unfinished += begun,
            None => self.damaged.push(Damage::new(number, 0..size, DamageReason::Begin)),
        }
        self.segments += 1;
        Ok(())
    }

    /// Notes that a segment could not even be opened.
    fn unopened(&mut self, number: u32, failure: &io::Error) {
        tracing::error!(segment = number, error = %failure, "a segment of the journal cannot be opened");
        self.damaged.push(Damage::new(number, 0..0, DamageReason::Unreadable));
    }
}

/// Checks a spool that is in use: what stands in segments, and that every message can be read.
pub(crate) fn running(shared: &Shared) -> Verification {
    let mut verification = Verification { kept: kept::segments(shared), ..Verification::default() };
    let segments = shared.index().segments();
    for (number, Use { epoch, end, .. }) in segments.into_iter().filter(|(_, used)| used.end > 0) {
        let before = verification.clone();
        let read = verification.segment(
            &shared.journal,
            number,
            Known { epoch, end: Some(end) },
            &mut BTreeMap::new(),
        );
        if shared.index().segment(number).is_none() {
            // It was given up meanwhile, and is perhaps something else by now.
            verification = before;
        } else if let Err(failure) = read {
            verification.unopened(number, &failure);
        }
    }
    let ids = shared.index().ids();
    for id in ids {
        let is_large = shared.index().is_large(id);
        let failure = match reader::load(shared, id) {
            Ok(_) if !is_large => None,
            Ok(_) => reader::content(shared, id).and_then(|content| check(id, &content)).err(),
            Err(failure) => Some(failure),
        };
        verification.large += usize::from(is_large);
        match failure {
            None | Some(LoadError::Unknown(_)) => {}
            Some(failure) if shared.index().message(id).is_some() => {
                verification.unreadable.push((id, failure.to_string()));
            }
            Some(_) => {}
        }
    }
    verification
}

fn check(id: MessageId, content: &crate::Content) -> Result<(), LoadError> {
    let checked = content.as_large().map_or(Ok(()), |large| large.check());
    checked.map_err(|source| LoadError::Io { id, source })
}

/// Keeps the account of the files that records name.
fn named(window: &mut Window<'_>, record: &Scanned, large: &mut BTreeMap<MessageId, LargeContent>) {
    let Some(id) = record.id else {
        return;
    };
    match record.header.kind {
        Kind::Accepted if record.header.body == 0 => {
            let head = window.get(record.at + HEADER as u64, crate::record::size(record.header.head));
            if let Ok(Some(content)) = encoding::large(head) {
                large.insert(id, content);
            }
        }
        Kind::Removed => drop(large.remove(&id)),
        _ => {}
    }
}

/// Checks a spool that no daemon uses. Nothing is changed.
pub fn verify(path: &Path) -> Result<Verification, OpenError> {
    let files: Arc<dyn Files> = Arc::new(Disk);
    let root = find(&*files, path)?;
    let _lock = lock(&*files, &root, Share::Readers)?;
    let config = Config::default();
    let (segment_size, sync) = (config.segment_size.0, config.sync);
    let (directory, octets) = (root.join("damaged"), Metrics::new(&Registry::default()).damaged_octets);
    let damaged = Quarantine { files: Arc::clone(&files), directory, most: config.max_damaged.0, octets };
    let journal = Journal { files, root, segment_size, sync, preallocate: false, damaged };
    let directory = journal.directory();
    let names = journal.files.list(&directory).map_err(failed("list", &directory))?;
    let mut segments: Vec<u32> = names.iter().filter_map(|name| segment(name)).collect();
    segments.sort_unstable();
    let (mut verification, mut large) = (Verification::default(), BTreeMap::new());
    let known = chain(&journal, &segments);
    for (number, known) in segments.iter().filter_map(|number| Some((*number, known.get(number)?))) {
        let read = match known {
            Some(known) => verification.segment(&journal, number, *known, &mut large),
            None => verification.without_begin(&journal, number),
        };
        if let Err(failure) = read {
            verification.unopened(number, &failure);
        }
    }
    for (id, LargeContent { length, crc }) in large {
        let checked = Large::open(&journal, id, length, crc).and_then(|large| large.check());
        verification.large += 1;
        if let Err(failure) = checked {
            verification.unreadable.push((id, failure.to_string()));
        }
    }
    Ok(verification)
}

fn segment(name: &str) -> Option<u32> {
    match Name::parse(name)? {
        Name::Segment(number) => Some(number),
        Name::Spare(_) | Name::Contents(_) => None,
    }
}
