//! What the first records of segments say about them and about each other.

use std::collections::BTreeMap;

use crate::{
    segment::{BLANK, Begin, Journal, OVERHEAD},
    window::Window,
};

/// What is known about a segment from its own first record or from that of the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) epoch: u64,
    /// Up to where the segment is valid; `None` if no later segment says so.
    pub(crate) end: Option<u64>,
}

/// What is known about each segment; void segments are left out.
pub(crate) fn chain(journal: &Journal, segments: &[u32]) -> BTreeMap<u32, Option<Known>> {
    let mut known: BTreeMap<u32, Option<Known>> = BTreeMap::new();
    let mut youngest_void = None;
    for number in segments.iter().rev().copied() {
        if youngest_void.is_some_and(|previous| number > previous) {
            continue;
        }
        let begin = begin(journal, number);
        let from_next = known.get(&number).copied().flatten();
        let own = begin.map(|(epoch, _)| Known { epoch, end: None });
        known.insert(number, from_next.or(own));
        if let Some((_, Begin { previous: Some(previous), .. })) = begin {
            known.insert(previous.segment, Some(Known { epoch: previous.epoch, end: Some(previous.end) }));
            youngest_void = Some(previous.segment);
        }
    }
    known.retain(|number, _| segments.contains(number));
    known
}

/// How far a segment was written when the power failed, if that was before its first record was durable: nothing is
/// written behind it until then, and there are zeros.
pub(crate) fn never_used(window: &mut Window<'_>) -> Option<u64> {
    let first = window.get(0, BLANK);
    let written = first.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    (written <= OVERHEAD).then_some(written as u64)
}

/// The first record of a segment with its epoch, if it is this segment's.
pub(crate) fn begin(journal: &Journal, number: u32) -> Option<(u64, Begin)> {
    let mut octets = vec![0; OVERHEAD];
    let file = journal.files.open_read(&journal.segment(number)).ok()?;
    let length = file.read_all_at(&mut octets, 0).ok()?;
    octets.truncate(length);
    let read = crate::record::read(&octets).ok()?;
    let begin = Begin::decode(&read).ok().filter(|begin| begin.segment == number);
    begin.map(|begin| (read.header.epoch, begin))
}
