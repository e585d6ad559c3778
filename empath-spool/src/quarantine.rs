//! The directory `damaged/`, for those who look after it.

use std::{io, path::PathBuf, sync::Arc};

use empath_common::MessageId;

use crate::{content::PIECE, files::Files};

/// What is kept of damage.
#[derive(Clone)]
pub struct Quarantine {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) directory: PathBuf,
}

/// One thing that is kept: a damaged range of the journal, or content that has lost its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name by which it is exported and discarded.
    pub name: String,
    /// Octets that are kept.
    pub octets: u64,
    /// What is known about it, as `key` and `value`: segment, offset, length, reason.
    pub report: Vec<(String, String)>,
    /// The messages that it seems to be about.
    pub messages: Vec<MessageId>,
}

/// What the copies, the reports and content without a record end in.
const COPY: &str = "octets";
const REPORT: &str = "report";
const CONTENT: &str = "content";

impl Quarantine {
    /// Everything that is kept, in the order of the names.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for name in self.files.list(&self.directory)? {
            match name.rsplit_once('.') {
                // Nothing of ours has a name that is not UTF-8, and it could not be opened by what stands for it.
                Some((stem, _)) if stem.contains(char::REPLACEMENT_CHARACTER) => {}
                Some((stem, REPORT)) => kept.push(self.reported(stem)?),
                Some((stem, CONTENT)) => kept.push(Kept {
                    octets: self.files.open_read(&self.directory.join(&name))?.size()?,
                    report: vec![("reason".to_owned(), "content whose record is lost".to_owned())],
                    messages: stem.parse().into_iter().collect(),
                    name,
                }),
                // A copy is listed with its report.
                _ => {}
            }
        }
        Ok(kept)
    }

    fn reported(&self, stem: &str) -> io::Result<Kept> {
        let name = format!("{stem}.{COPY}");
        let octets =
            self.files.open_read(&self.directory.join(&name)).and_then(|file| file.size()).unwrap_or(0);
        let text = self.piece_of(&format!("{stem}.{REPORT}"), 0)?;
        let (mut report, mut messages) = (Vec::new(), Vec::new());
        for line in String::from_utf8_lossy(&text).lines() {
            match line.split_once(": ") {
                Some(("message", id)) => messages.extend(id.parse::<MessageId>()),
                Some((key, value)) => report.push((key.to_owned(), value.to_owned())),
                None => {}
            }
        }
        Ok(Kept { name, octets, report, messages })
    }

    /// Some octets of what is kept under a name, from `at` on: at most 64 KiB, none at the end.
    pub fn piece(&self, name: &str, at: u64) -> io::Result<Vec<u8>> {
        self.piece_of(known(name)?, at)
    }

    fn piece_of(&self, name: &str, at: u64) -> io::Result<Vec<u8>> {
        let mut octets = vec![0; PIECE];
        let read = self.files.open_read(&self.directory.join(name))?.read_all_at(&mut octets, at)?;
        octets.truncate(read);
        Ok(octets)
    }

    /// Deletes what is kept under a name, for good.
    pub fn discard(&self, name: &str) -> io::Result<()> {
        let name = known(name)?;
        // The report goes first: where it is, the copy is whole.
        if let Some(stem) = name.strip_suffix(COPY) {
            self.files.remove(&self.directory.join(format!("{stem}{REPORT}")))?;
        }
        self.files.remove(&self.directory.join(name))?;
        self.files.sync_dir(&self.directory)
    }
}

/// A name that can be ours, and so leads nowhere else.
fn known(name: &str) -> io::Result<&str> {
    let ours = |stem: &str| {
        !stem.is_empty() && stem.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    };
    match name.rsplit_once('.') {
        Some((stem, COPY | CONTENT)) if ours(stem) => Ok(name),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "nothing of this name is kept")),
    }
}
