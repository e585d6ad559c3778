//! Segments: the files of the journal, their names and their first record.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    config::Sync,
    fields::{FieldError, fields, put},
    files::{File, Files},
    quarantine::Quarantine,
    record::{Kind, Read, Record},
};

const SEGMENT: u16 = 1;
const PREVIOUS: u16 = 2;
const PREVIOUS_EPOCH: u16 = 3;
const PREVIOUS_END: u16 = 4;

/// What the first record of a segment says. It is durable before any batch is written behind it.
///
/// It decides about everything before: the previous segment is valid up to `end` and not an octet further, and
/// segments between the two hold nothing. So a batch that was refused, because its sync failed, stays refused
/// even when its octets are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) segment: u32,
    /// None for the first segment of a journal, and for one behind a segment that could not be opened.
    pub(crate) previous: Option<Previous>,
}

/// The segment that was written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) segment: u32,
    pub(crate) epoch: u64,
    /// Everything before this offset is valid.
    pub(crate) end: u64,
}

impl Begin {
    pub(crate) fn record(&self) -> Record {
        Record::new(Kind::Begin, 0, Bytes::new(), |out| {
            put(out, SEGMENT, &self.segment.to_le_bytes());
            if let Some(previous) = self.previous {
                put(out, PREVIOUS, &previous.segment.to_le_bytes());
                put(out, PREVIOUS_EPOCH, &previous.epoch.to_le_bytes());
                put(out, PREVIOUS_END, &previous.end.to_le_bytes());
            }
        })
        .last(true)
    }

    pub(crate) fn decode(record: &Read<'_>) -> Result<Self, FieldError> {
        if record.header.kind != Kind::Begin {
            return Err(FieldError::Missing);
        }
        let (mut segment, mut previous, mut epoch, mut end) = (None, None, None, None);
        for field in fields(record.head) {
            let field = field?;
            match field.number {
                SEGMENT => segment = Some(field.word()?),
                PREVIOUS => previous = Some(field.word()?),
                PREVIOUS_EPOCH => epoch = Some(field.long()?),
                PREVIOUS_END => end = Some(field.long()?),
                _ => {}
            }
        }
        let previous = match (previous, epoch, end) {
            (Some(segment), Some(epoch), Some(end)) => Some(Previous { segment, epoch, end }),
            _ => None,
        };
        Ok(Self { segment: segment.ok_or(FieldError::Missing)?, previous })
    }
}

/// Octets that a segment needs beside its batches: its first record and an `End`.
pub(crate) const OVERHEAD: usize = 256;

/// Octets at the start of a file that are zeros before it becomes a segment.
pub(crate) const BLANK: usize = 4096;

/// The directory of the spool, and how files in it are written.
#[derive(Clone)]
pub(crate) struct Journal {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) root: PathBuf,
    pub(crate) segment_size: u64,
    pub(crate) sync: Sync,
    pub(crate) preallocate: bool,
    /// What is kept of damage.
    pub(crate) damaged: Quarantine,
}

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) epoch: u64,
    pub(crate) file: Box<dyn File>,
    pub(crate) size: u64,
}

impl Segment {
    /// The segment as the next one's `Begin` describes it, if it is valid up to `end`.
    pub(crate) fn until(&self, end: u64) -> Previous {
        Previous { segment: self.number, epoch: self.epoch, end }
    }
}

/// What a name in the journal's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u32),
    Spare(u32),
    /// The contents of the segment with this number.
    Contents(u32),
}

impl Name {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (digits, kind) = name.split_once('.')?;
        let number: u32 = digits.parse().ok()?;
        // One number has one name.
        if digits != format!("{number:08}") {
            return None;
        }
        match kind {
            "seg" => Some(Self::Segment(number)),
            "spare" => Some(Self::Spare(number)),
            "contents" => Some(Self::Contents(number)),
            _ => None,
        }
    }
}

impl Journal {
    /// Octets of a segment that is begun on a full disk, and of the end of every other segment that content leaves
    /// alone: what frees space must always find some.
    pub(crate) fn small(&self) -> u64 {
        (self.segment_size / 256).max(4096)
    }

    /// Octets of the reserve for a full disk: enough for tens of thousands of outcomes.
    pub(crate) fn reserve(&self) -> u64 {
        (self.segment_size / 16).max(BLANK as u64)
    }

    /// Where the segments are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn damaged_directory(&self) -> PathBuf {
        self.root.join("damaged")
    }

    pub(crate) fn segment(&self, number: u32) -> PathBuf {
        self.directory().join(format!("{number:08}.seg"))
    }

    pub(crate) fn spare(&self, number: u32) -> PathBuf {
        self.directory().join(format!("{number:08}.spare"))
    }

    pub(crate) fn contents(&self, number: u32) -> PathBuf {
        self.directory().join(format!("{number:08}.contents"))
    }

    /// Makes what is in a file durable, as the configuration understands it.
    pub(crate) fn sync(&self, file: &dyn File) -> io::Result<()> {
        match self.sync {
            Sync::Data => file.sync(),
            Sync::All => file.sync_all(),
            Sync::Never => Ok(()),
        }
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.sync == Sync::Never { Ok(()) } else { self.files.sync_dir(path) }
    }

    /// Creates a file of this size for a segment, synced. It is full of zeros, unless the configuration says otherwise:
    /// writing into it later changes no metadata of the file system, so that a sync of the data is a sync of the data
    /// alone (measured: 1.5 times as many syncs as into space that is only allocated, twice as many as at the end of a
    /// growing file).
    ///
    /// While there is `time` it is synced piece by piece: a commit that syncs meanwhile waits for a piece, not for a whole
    /// segment. Once the committer waits for the file itself, one sync is faster.
    pub(crate) fn prepare(
        &self,
        path: &Path,
        size: u64,
        time: impl Fn() -> bool,
    ) -> io::Result<Box<dyn File>> {
        const PIECE: usize = 256 * 1024;
        static ZEROS: [u8; PIECE] = [0; PIECE];
        let fill = || {
            let file = self.files.create(path)?;
            if !self.preallocate {
                file.truncate(size)?;
                self.sync(&*file)?;
                return Ok(file);
            }
            file.allocate(size)?;
            for offset in (0..size).step_by(ZEROS.len()) {
                let zeros =
                    usize::try_from(size - offset).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
                file.write_all_at(&mut [IoSlice::new(zeros)], offset)?;
                if time() {
                    self.sync(&*file)?;
                }
            }
            self.sync(&*file)?;
            Ok(file)
        };
        fill().inspect_err(|_: &io::Error| {
            // Best effort: what stays is a spare file that the next start removes.
            let _ = self.files.remove(path);
        })
    }

    /// Gives a file another name, for good.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)?;
        self.sync_dir(&self.directory())
    }

    /// Removes a file of the journal for good.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.remove_name(path)?;
        self.sync_dir(&self.directory())
    }

    /// Removes a file, if there is one. Whether it stays away after a power loss does not matter.
    pub(crate) fn remove_name(&self, path: &Path) -> io::Result<()> {
        match self.files.remove(path) {
            Err(failure) if failure.kind() != io::ErrorKind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_name_and_other_names_are_left_alone() {
        for (name, expected) in [
            ("00000001.seg", Some(Name::Segment(1))),
            ("00000012.spare", Some(Name::Spare(12))),
            ("4294967295.contents", Some(Name::Contents(u32::MAX))),
            ("000000001.seg", None),
            ("1.seg", None),
            ("+0000001.seg", None),
            ("4294967296.seg", None),
            ("00000001.seg.old", None),
            ("seg", None),
        ] {
            assert_eq!(Name::parse(name), expected, "{name}");
        }
    }
}
