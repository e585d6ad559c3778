//! The directory `damaged/`, for those who look after it.

use std::{io, path::PathBuf, sync::Arc};

use empath_common::MessageId;
use empath_metrics::Gauge;

use crate::{content::PIECE, files::Files, large};

/// What is kept of damage.
#[derive(Clone)]
pub struct Quarantine {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) directory: PathBuf,
    /// Octets that copies may come to.
    pub(crate) most: u64,
    /// Octets that are there, as far as is known.
    pub(crate) octets: Gauge,
}

/// One thing that is kept: a damaged range of the journal, or content that has lost its record. Or what somebody else has
/// put beside them.
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
    /// What is wrong with it, so that this is not all there is to say.
    pub problem: Option<String>,
}

/// What the copies, the reports and content without a record end in.
pub(crate) const COPY: &str = "octets";
pub(crate) const REPORT: &str = "report";
pub(crate) const CONTENT: &str = "content";

impl Kept {
    fn new(name: String, octets: io::Result<u64>) -> Self {
        let problem = octets.as_ref().err().map(|failure| format!("it cannot be read: {failure}"));
        Self { name, octets: octets.unwrap_or(0), report: Vec::new(), messages: Vec::new(), problem }
    }

    fn but(mut self, problem: &str) -> Self {
        self.problem.get_or_insert_with(|| problem.to_owned());
        self
    }
}

impl Quarantine {
    /// Everything that is kept, in the order of the names.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let names = self.files.list(&self.directory)?;
        let kept = names.iter().filter_map(|name| match name.rsplit_once('.') {
            Some((stem, REPORT)) => Some(self.reported(stem)),
            // A copy is listed with its report.
            Some((stem, COPY)) if names.binary_search(&format!("{stem}.{REPORT}")).is_ok() => None,
            Some((_, COPY)) => Some(self.kept(name).but("it has no report and may not be whole")),
            Some((stem, CONTENT)) if let Some(id) = large::id_of(stem) => {
                let report = vec![("reason".to_owned(), "content whose record is lost".to_owned())];
                Some(Kept { report, messages: vec![id], ..self.kept(name) })
            }
            _ => Some(self.kept(name).but("it is none of the spool's: look at it and remove it by hand")),
        });
        Ok(kept.collect())
    }

    /// Octets of all that is there.
    pub fn octets(&self) -> io::Result<u64> {
        let names = self.files.list(&self.directory)?;
        // What cannot be opened is listed as such.
        let octets = names.iter().map(|name| self.size(name).unwrap_or(0)).sum();
        self.octets.set(i64::try_from(octets).unwrap_or(i64::MAX));
        Ok(octets)
    }

    /// Takes room for so many octets.
    pub(crate) fn reserve(&self, octets: u64) -> io::Result<()> {
        let known = u64::try_from(self.octets.get()).unwrap_or(0);
        // Some may have been discarded.
        let taken = if known + octets > self.most { self.octets()? } else { known };
        if taken + octets > self.most {
            let reason = "there is as much of damage as max_damaged allows; discard some";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason));
        }
        self.octets.set(i64::try_from(taken + octets).unwrap_or(i64::MAX));
        Ok(())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        self.files.open_read(&self.directory.join(name))?.size()
    }

    fn kept(&self, name: &str) -> Kept {
        Kept::new(name.to_owned(), self.size(name))
    }

    fn reported(&self, stem: &str) -> Kept {
        let mut kept = self.kept(&format!("{stem}.{COPY}"));
        let name = format!("{stem}.{REPORT}");
        let text = match self.piece_of(&name, 0) {
            Ok(text) => text,
            Err(failure) => return kept.but(&format!("its report cannot be read: {failure}")),
        };
        if self.size(&name).is_ok_and(|octets| octets > text.len() as u64) {
            kept = kept.but("its report is longer than 64 KiB; only the beginning is shown");
        }
        for line in String::from_utf8_lossy(&text).lines() {
            match line.split_once(": ") {
                Some(("message", id)) => kept.messages.extend(id.parse::<MessageId>()),
                Some((key, value)) => kept.report.push((key.to_owned(), value.to_owned())),
                None => {}
            }
        }
        kept
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
            match self.files.remove(&self.directory.join(format!("{stem}{REPORT}"))) {
                // The copy may never have been finished.
                Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        self.files.remove(&self.directory.join(name))?;
        self.files.sync_dir(&self.directory)?;
        self.octets().map(drop)
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
