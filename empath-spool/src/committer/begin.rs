//! Where the committer goes on when a segment is full, or broken.

use std::{io, mem, path::PathBuf, sync::atomic::Ordering::Relaxed};

use super::{Committer, Current, OVERHEAD, append};
use crate::{
    CommitError,
    backlog::Class,
    contents::Items,
    files::about,
    keeper::Spare,
    segment::{Begin, Segment},
};

/// A number is never used twice, and there are only so many.
#[derive(Debug, thiserror::Error)]
#[error(
    "the numbers of segments end at {}: if that file is not the daemon's, move it away and start again, else name another \
     directory for new mail and keep this one",
    newest.display()
)]
struct Exhausted {
    newest: PathBuf,
}

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
        let directory = journal.directory();
        let preparing = || about("prepare a file in", &directory);
        let spare = self.ready().and_then(|()| self.keeper.spare(size).map_err(preparing()));
        let begun = match spare.and_then(|spare| self.begin_in(spare)) {
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
                        if self.unsettled.is_none()
                            && matches!(
                                CommitError::from(io::Error::from(failure.kind())),
                                CommitError::Full(_)
                            ) =>
                    {
                        let spare = self.keeper.small(small).map_err(preparing());
                        spare.and_then(|spare| self.begin_in(spare))
                    }
                    _ => Err(failure),
                }
            }
        };
        self.shared.healthy.store(self.current.is_some() && !self.shared.is_starved(), Relaxed);
        begun
    }

    /// Makes durable what the start could not, before anything is built on it, and sees to it that there is a number.
    fn ready(&mut self) -> io::Result<()> {
        if let Some(unsettled) = &self.unsettled {
            unsettled.settle(&self.shared.journal)?;
            self.unsettled = None;
            self.shared.index().unsettled(false);
            self.shared.open.settled();
            self.give_up_dead();
        }
        self.after_next().map(drop)
    }

    /// Gives up what the start has found to be of no use, if that is durable.
    pub(crate) fn give_up_dead(&mut self) {
        if self.unsettled.is_none() {
            let dead = self.shared.index().take_dead();
            self.keeper.bury(dead, mem::take(&mut self.orphans), true);
        }
    }

    /// The number behind the next one.
    fn after_next(&self) -> io::Result<u32> {
        let exhausted = || Exhausted { newest: self.shared.journal.segment(self.next) };
        self.next.checked_add(1).ok_or_else(|| io::Error::other(exhausted()))
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
        self.next = self.after_next()?;
        let previous =
            self.current.as_ref().map(|current| current.segment.until(current.end)).or(self.previous);
        let (unnamed, path) = (journal.spare(spare.number), journal.segment(number));
        let begun = journal.rename(&unnamed, &path).map_err(about("create", &path)).and_then(|()| {
            let size = spare.file.size()?;
            let segment = Segment { number, epoch: journal.files.secret(), file: spare.file, size };
            let mut begin = Begin { segment: number, previous }.record();
            begin.seal(segment.epoch, 0, None);
            append(journal, &segment, 0, [&begin].into_iter()).map_err(about("write", &path))?;
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
