//! What could not be read, and where it is kept.

use std::{
    fmt::Write as _,
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
};

use empath_common::MessageId;

use crate::{
    content::PIECE,
    files::{File, Files},
    quarantine::{COPY, Quarantine, REPORT},
    scan::Damaged,
    window::Window,
};

/// A range of the journal that does not verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment, as in the name of its file.
    pub segment: u32,
    /// Where the range begins.
    pub offset: u64,
    /// Its octets.
    pub length: u64,
    /// Why it does not verify.
    pub reason: DamageReason,
    /// The messages that were lost or lost some of their progress, as far as the damage shows: the first of them.
    pub ids: Vec<MessageId>,
    /// How many more there are.
    pub more_ids: u64,
    /// The copy; `None` if it could not be made, and then the segment stays until it can.
    pub copy: Option<PathBuf>,
}

/// Why a range does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// A record does not verify.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    /// The segment's first record does not verify, and nothing else says what belongs to the segment.
    #[error("the segment's first record does not verify")]
    Begin,
    /// The file is shorter than it was.
    #[error("the file is cut off")]
    CutOff,
    /// A record that verifies has fields that make no sense.
    #[error("a record has fields that make no sense")]
    Fields,
    /// The last write before a crash did not finish.
    #[error("the last write before a crash did not finish")]
    Unfinished,
    /// The record of a message does not verify.
    #[error("the record of a message does not verify")]
    Message,
    /// The disk refuses to read it.
    #[error("the disk cannot read it")]
    Unreadable,
}

impl Damage {
    pub(crate) fn new(segment: u32, range: Range<u64>, reason: DamageReason) -> Self {
        let (offset, length) = (range.start, range.end.saturating_sub(range.start));
        Self { segment, offset, length, reason, ids: Vec::new(), more_ids: 0, copy: None }
    }

    pub(crate) fn of(segment: u32, damaged: Damaged, reason: DamageReason) -> Self {
        let Damaged { range, ids, more_ids, .. } = damaged;
        Self { ids, more_ids, ..Self::new(segment, range, reason) }
    }
}

impl Quarantine {
    /// Copies a damaged range of `file` to `damaged/`, the octets and a report, synced. Doing it again changes nothing.
    pub(crate) fn keep(&self, damage: &Damage, epoch: u64, file: &dyn File) -> io::Result<PathBuf> {
        let Self { files, directory, .. } = self;
        let Damage { segment, offset, length, .. } = damage;
        let name = format!("{segment:08}-{offset:010}-{length:010}-{epoch:016x}");
        let copy = directory.join(format!("{name}.{COPY}"));
        let report = directory.join(format!("{name}.{REPORT}"));
        match files.kind(&report) {
            Ok(_) => return Ok(copy),
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
            Err(failure) => return Err(failure),
        }
        let description = describe(damage);
        self.reserve(length + description.len() as u64)?;
        let target = anew(&**files, &copy)?;
        copy_range(file, damage.offset..damage.offset + damage.length, &*target)?;
        target.sync()?;
        files.sync_dir(directory)?;
        // The report comes last: where it is, the copy is whole.
        let target = anew(&**files, &report)?;
        target.write_all_at(&mut [IoSlice::new(description.as_bytes())], 0)?;
        target.sync()?;
        files.sync_dir(directory)?;
        Ok(copy)
    }
}

/// Copies a range of a file. What the disk cannot read is zeros in the copy.
fn copy_range(from: &dyn File, range: Range<u64>, to: &dyn File) -> io::Result<()> {
    let mut window = Window::new(from, range.end);
    let mut read = range.start;
    while read < range.end {
        let octets = window.get(read, PIECE);
        to.write_all_at(&mut [IoSlice::new(octets)], read - range.start)?;
        read += octets.len() as u64;
    }
    Ok(())
}

fn describe(damage: &Damage) -> String {
    let Damage { segment, offset, length, reason, .. } = damage;
    let mut text = format!("segment: {segment:08}\noffset: {offset}\nlength: {length}\nreason: {reason}\n");
    for id in &damage.ids {
        // Writing to a string can't fail.
        let _ = writeln!(text, "message: {id}");
    }
    if damage.more_ids > 0 {
        let _ = writeln!(text, "more messages: {}", damage.more_ids);
    }
    text
}

/// Creates a file, in place of one that an interrupted start may have left half-written.
fn anew(files: &dyn Files, path: &Path) -> io::Result<Box<dyn File>> {
    let file = match files.create(path) {
        Err(failure) if failure.kind() == io::ErrorKind::AlreadyExists => files.open(path)?,
        created => created?,
    };
    file.truncate(0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use empath_metrics::Registry;

    use super::*;
    use crate::{Metrics, files::Disk};

    #[test]
    fn what_differs_in_place_length_or_epoch_is_kept_side_by_side() {
        let directory = tempfile::tempdir().unwrap();
        let octets = Metrics::new(&Registry::default()).damaged_octets;
        let damaged = directory.path().join("damaged");
        fs::create_dir(&damaged).unwrap();
        let quarantine =
            Quarantine { files: std::sync::Arc::new(Disk), directory: damaged, most: 10_000, octets };
        let source = directory.path().join("segment");
        let mut copies = Vec::new();
        for (number, (segment, range, epoch)) in
            [(1, 0..9, 1), (1, 0..10, 1), (1, 1..10, 1), (1, 0..9, 2), (2, 0..9, 1), (11, 0..9, 1)]
                .into_iter()
                .enumerate()
        {
            let content = [b'a' + u8::try_from(number).unwrap(); 10];
            fs::write(&source, content).unwrap();
            let file = Disk.open(&source).unwrap();
            let length = usize::try_from(range.end - range.start).unwrap();
            let damage = Damage::new(segment, range, DamageReason::Message);
            let copy = quarantine.keep(&damage, epoch, &*file).unwrap();
            copies.push((copy, content[..length].to_vec()));
        }
        for (copy, content) in &copies {
            assert_eq!(&fs::read(copy).unwrap(), content);
        }
        assert_eq!(quarantine.list().unwrap().len(), copies.len());
    }
}
