//! What is in the directory of the journal, by name.

use crate::{
    OpenError,
    chain::begin,
    directory::failed,
    segment::{Journal, Name},
};

/// The numbers in the names of the journal's files.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// In their order.
    pub(crate) segments: Vec<u32>,
    pub(crate) contents: Vec<u32>,
    pub(crate) spares: Vec<u32>,
    /// What has the name of a segment and is none.
    pub(crate) strays: Vec<u32>,
}

/// A segment is fewer numbers than this behind the one before it, even if none could be begun for months. The last so many
/// are for files that say of themselves that they have them.
const FAR: u32 = 1 << 24;

impl Listing {
    pub(crate) fn of(journal: &Journal) -> Result<Self, OpenError> {
        let mut listing = Self::default();
        let directory = journal.directory();
        for name in journal.files.list(&directory).map_err(failed("list", &directory))? {
            match Name::parse(&name) {
                Some(Name::Segment(number)) => listing.segments.push(number),
                Some(Name::Contents(number)) => listing.contents.push(number),
                Some(Name::Spare(number)) => listing.spares.push(number),
                None => tracing::warn!(file = name, "left alone: not a file of the journal"),
            }
        }
        listing.segments.sort_unstable();
        listing.part_strays(journal);
        Ok(listing)
    }

    /// What is no segment must not use up the numbers. A segment whose first record is damaged is told from it by those
    /// before it, which are not that far away.
    fn part_strays(&mut self, journal: &Journal) {
        let is_ours = |number: &u32| *number <= u32::MAX - FAR || begin(journal, *number).is_some();
        let newest = self.segments.iter().rev().copied().find(is_ours).unwrap_or(0);
        let first = self.segments.partition_point(|number| *number <= newest.saturating_add(FAR));
        self.strays = self.segments.split_off(first);
    }

    /// The number of the next segment.
    pub(crate) fn next(&self) -> u32 {
        self.segments.last().map_or(1, |newest| newest.saturating_add(1))
    }

    /// The number of the next spare file.
    pub(crate) fn next_spare(&self) -> u32 {
        let spares = self.spares.iter().filter(|number| **number < u32::MAX - FAR);
        spares.max().map_or(1, |newest| newest + 1)
    }
}
