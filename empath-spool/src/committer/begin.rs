//! Where the committer goes on when a segment is full, or broken.

use std::{io, sync::atomic::Ordering::Relaxed};

use super::{Committer, Current, OVERHEAD, append};
use crate::{
    CommitError,
    backlog::Class,
    contents::Items,
    keeper::Spare,
    segment::{Begin, Segment},
};

impl Committer {
    /// Begins a new segment with room for a batch of `needed` octets. Only when its first record is durable is it the
    /// current one; if that fails, the one before goes on.
    ///
    /// On a full disk content gets none, and what frees space gets a small one: content must not eat what that needs.
    pub(crate) fn begin(&mut self, needed: u64, class: Class) -> io::Result<()> {
        let journal = &self.shared.journal;
        let outcome = needed + 2 * OVERHEAD;
        let size = if class == Class::Outcome { outcome } else { outcome + journal.small() };
        let ordinary = size <= journal.segment_size;
        let begun = match self.keeper.spare(size).and_then(|spare| self.begin_in(spare)) {
            Ok(()) => {
                self.shared.starved.store(false, Relaxed);
                Ok(())
            }
            Err(failure) => {
                // A single batch that is too large for the disk says nothing about the others.
                if ordinary && !self.shared.starved.swap(true, Relaxed) {
                    tracing::error!(error = %failure, "no segment of the journal can be begun; messages are refused");
                }
                match self.small(outcome, class) {
                    Some(small)
                        if matches!(
                            CommitError::from(io::Error::from(failure.kind())),
                            CommitError::Full(_)
                        ) =>
                    {
                        self.keeper.small(small).and_then(|spare| self.begin_in(spare))
                    }
                    _ => Err(failure),
                }
            }
        };
        self.shared.healthy.store(self.current.is_some() && !self.shared.is_starved(), Relaxed);
        begun
    }

    /// Octets of a segment to begin on a full disk for `outcome` octets of outcomes, or for the messages of the oldest
    /// segment; none for a new message.
    fn small(&self, outcome: u64, class: Class) -> Option<u64> {
        let small = self.shared.journal.small();
        match class {
            Class::Content => None,
            Class::Outcome => Some(small.max(outcome)),
            Class::Moved(..) => {
                let (_, oldest) = self.shared.index().to_compact(self.shared.journal.segment_size, true)?;
                Some(oldest.live + outcome + small)
            }
        }
    }

    /// Makes a file the current segment.
    fn begin_in(&mut self, spare: Spare) -> io::Result<()> {
        let journal = &self.shared.journal;
        let number = self.next;
        // From here on the number is used, whatever happens.
        self.next = number.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        let previous =
            self.current.as_ref().map(|current| current.segment.until(current.end)).or(self.previous);
        let (unnamed, path) = (journal.spare(spare.number), journal.segment(number));
        let begun = journal.rename(&unnamed, &path).and_then(|()| {
            let size = spare.file.size()?;
            let segment = Segment { number, epoch: journal.files.secret(), file: spare.file, size };
            let mut begin = Begin { segment: number, previous }.record();
            begin.seal(segment.epoch, 0, None);
            append(journal, &segment, 0, [&begin].into_iter())?;
            Ok(Current { segment, end: begin.len(), items: Items::default() })
        });
        match begun {
            Ok(current) => {
                let mut index = self.shared.index();
                index.begin(number, current.segment.epoch, current.segment.size);
                index.written(number, current.end);
                drop(index);
                if let Some(Current { segment, end, items }) = self.current.replace(current) {
                    self.keeper.sealed(segment.until(end), items.complete());
                }
                Ok(())
            }
            Err(failure) => {
                // Best effort: what stays is a spare file that the next start removes.
                let _ = journal.files.remove(&unnamed);
                if let Err(failure) = journal.remove(&path) {
                    tracing::warn!(segment = number, error = %failure, "a segment that did not begin stays");
                    // After a crash it could still say where the one before ends: nothing may be added there. What
                    // is in itself does not count: the next segment that begins says so.
                    self.previous = previous;
                    self.current = None;
                }
                Err(failure)
            }
        }
    }
}
