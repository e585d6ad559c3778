//! Segments that stay because something in them is nowhere else, and what lets them go.

use std::{io, path::PathBuf};

use crate::{Damage, committer::Shared, window::Window};

/// A segment that is not given up when its time has come, and so none that is younger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSegment {
    /// Its number.
    pub segment: u32,
    /// Its file.
    pub path: PathBuf,
    /// Why it stays.
    pub reason: KeptReason,
}

/// Why a segment stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeptReason {
    /// Its damage could not be copied to `damaged/`, for which there is no space or more than `max_damaged` there.
    #[error("its damage could not be copied; it is tried again")]
    NotCopied,
    /// It, or some of it, could not be read at the start.
    #[error("it cannot be read; it is tried again")]
    Unreadable,
    /// It could not be read at the start, and can be now.
    #[error("it could not be read at the start; it can be now, and the next start takes it in")]
    ReadableAgain,
    /// Its messages cannot be read, or not be set aside, to give up the rest.
    #[error("its messages cannot be written again; it is tried again")]
    Stuck,
}

/// Why a segment stays, and what has to be copied, of which epoch, before it may go.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) reason: KeptReason,
    pub(crate) owed: Vec<(Damage, u64)>,
}

/// All segments that stay.
pub(crate) fn segments(shared: &Shared) -> Vec<KeptSegment> {
    let index = shared.index();
    let kept = index.kept().map(|(segment, kept)| KeptSegment {
        segment,
        path: shared.journal.segment(segment),
        reason: kept.reason,
    });
    kept.collect()
}

/// Tries whether a segment has to stay.
pub(crate) fn again(shared: &Shared, number: u32) -> io::Result<()> {
    let kept = shared.index().kept().find(|(segment, _)| *segment == number).map(|(_, kept)| kept.clone());
    match kept {
        Some(Kept { reason: KeptReason::NotCopied, owed }) => copy(shared, number, &owed),
        Some(Kept { reason: KeptReason::Unreadable, .. }) => read(shared, number),
        _ => Ok(()),
    }
}

fn copy(shared: &Shared, number: u32, owed: &[(Damage, u64)]) -> io::Result<()> {
    let file = shared.journal.files.open_read(&shared.journal.segment(number))?;
    for (damage, epoch) in owed {
        let range = damage.offset..damage.offset + damage.length;
        let mut window = Window::new(&*file, range.end);
        window.checksum(range);
        if !window.unreadable().is_empty() {
            // Zeros in a copy are no reason to give up what they stand for.
            return Err(io::Error::other("some of the damage cannot be read"));
        }
        shared.journal.damaged.keep(damage, *epoch, &*file)?;
    }
    shared.index().release(number);
    tracing::info!(segment = number, "the damage in a segment is copied now; it goes when its time comes");
    Ok(())
}

/// What was not read is in no index, so that the segment stays until the next start in any case.
fn read(shared: &Shared, number: u32) -> io::Result<()> {
    let file = shared.journal.files.open_read(&shared.journal.segment(number))?;
    let size = file.size()?;
    let mut window = Window::new(&*file, size);
    window.checksum(0..size);
    if !window.unreadable().is_empty() {
        return Err(io::Error::other("some of it cannot be read"));
    }
    shared.index().keep(number, KeptReason::ReadableAgain);
    tracing::warn!(
        segment = number,
        "a segment that could not be read at the start can be read now; the next start takes it in"
    );
    Ok(())
}
