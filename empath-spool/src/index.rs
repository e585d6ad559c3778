//! Which messages there are, and where in the journal they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Bound,
};

use empath_common::MessageId;

use crate::{
    Damage,
    kept::{Kept, KeptReason},
    record::At,
    segment::Previous,
};

/// What a record does to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Accepted(MessageId),
    Progress(MessageId),
    /// A `Progress` that takes the place of all before it, or is the first.
    Condensed(MessageId),
    Removed(MessageId),
}

impl Effect {
    pub(crate) fn id(self) -> MessageId {
        match self {
            Self::Accepted(id) | Self::Progress(id) | Self::Condensed(id) | Self::Removed(id) => id,
        }
    }
}

/// A message: no content, no envelope, 48 octets with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) accepted: At,
    /// Of the `Accepted`.
    pub(crate) accepted_octets: u32,
    /// The last `Progress`, which knows the one before.
    pub(crate) progress: Option<At>,
    /// Of all `Progress` that count.
    pub(crate) progress_octets: u32,
    /// How many they are.
    pub(crate) links: u32,
    /// Of the first of them, which says what all before it came to.
    pub(crate) condensed_octets: u32,
}

/// A message with more `Progress` than this, and twice as many octets of them as the last time, has them condensed: each
/// is to be read when it is loaded. A long history grows much before it is written again.
pub(crate) const MAX_LINKS: u32 = 16;

impl Message {
    /// Octets of all its records.
    pub(crate) fn octets(&self) -> u64 {
        u64::from(self.accepted_octets) + u64::from(self.progress_octets)
    }

    /// Whether its `Progress` are too many.
    pub(crate) fn is_long(&self) -> bool {
        self.links > MAX_LINKS && self.progress_octets > self.condensed_octets.saturating_mul(2)
    }
}

/// A message, and where damage has parted its `Progress`: a record, and the last good one before it.
pub(crate) type Known = (Message, Vec<(At, Option<At>)>);

/// A segment that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) epoch: u64,
    /// Octets of the file.
    pub(crate) size: u64,
    /// Octets of the file that says what is in it.
    pub(crate) contents: u64,
    /// Everything before this offset is valid.
    pub(crate) end: u64,
    /// Messages whose `Accepted` stands here.
    pub(crate) messages: u32,
    /// Octets of all records of these messages.
    pub(crate) live: u64,
    /// Whether it stays whatever is in it.
    pub(crate) kept: bool,
}

/// The messages, and what of them each segment holds.
///
/// Segments are given up from the oldest on and never out of order: a younger one may hold the `Removed` of a message
/// whose `Accepted` stands in an older one, or the note that the older one is valid only so far. So only the
/// `Accepted` records count: the `Progress` of a message stands behind it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    messages: BTreeMap<MessageId, Message>,
    /// Messages with a file of their own, and its octets.
    large: BTreeMap<MessageId, u64>,
    /// Where a `Progress` follows a damaged one: it, and the last good one before.
    gaps: BTreeMap<MessageId, Vec<(At, Option<At>)>>,
    segments: BTreeMap<u32, Use>,
    /// Octets of all segments' files and of those that say what is in them.
    size: u64,
    /// Octets of all records of all messages.
    live: u64,
    /// Octets of all files of messages.
    large_octets: u64,
    /// Why segments stay that would go.
    kept: BTreeMap<u32, Kept>,
    /// Messages that ended and have a file.
    ended_large: Vec<MessageId>,
    /// Messages with too many `Progress`.
    long: BTreeSet<MessageId>,
    /// Whether some of this may not be on disk, so that nothing may be given up because of it.
    unsettled: bool,
}

impl Index {
    /// Makes a segment known, the youngest by now.
    pub(crate) fn begin(&mut self, segment: u32, epoch: u64, size: u64) {
        let used = Use { epoch, size, contents: 0, end: 0, messages: 0, live: 0, kept: false };
        if let Some(before) = self.segments.insert(segment, used) {
            self.size -= before.size + before.contents;
        }
        self.size += size;
    }

    /// Keeps a segment, and so all younger ones, whatever is in it.
    pub(crate) fn keep(&mut self, segment: u32, reason: KeptReason) {
        if let Some(used) = self.segments.get_mut(&segment) {
            used.kept = true;
            let kept = self.kept.entry(segment).or_insert(Kept { reason, owed: Vec::new() });
            // Copies do not make up for what cannot be read.
            if kept.reason == KeptReason::NotCopied || reason != KeptReason::NotCopied {
                kept.reason = reason;
            }
        }
    }

    /// Keeps a segment until this damage is copied.
    pub(crate) fn keep_for(&mut self, damage: Damage, epoch: u64) {
        let segment = damage.segment;
        self.keep(segment, KeptReason::NotCopied);
        if let Some(kept) = self.kept.get_mut(&segment) {
            kept.owed.push((damage, epoch));
        }
    }

    /// Lets a segment go when its time comes.
    pub(crate) fn release(&mut self, segment: u32) {
        self.kept.remove(&segment);
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.kept = false;
        }
    }

    /// Notes whether some of what is here may not be on disk.
    pub(crate) fn unsettled(&mut self, unsettled: bool) {
        self.unsettled = unsettled;
    }

    /// Notes whether there is a segment whose messages cannot be written again, so that it stays.
    pub(crate) fn stuck(&mut self, stuck: Option<u32>) {
        self.kept.retain(|_, kept| kept.reason != KeptReason::Stuck);
        if let Some(segment) = stuck {
            self.kept.entry(segment).or_insert(Kept { reason: KeptReason::Stuck, owed: Vec::new() });
        }
    }

    /// The segments that stay whatever is in them.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (u32, &Kept)> {
        self.kept.iter().map(|(segment, kept)| (*segment, kept))
    }

    /// Notes up to where a segment is valid.
    pub(crate) fn written(&mut self, segment: u32, end: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.end = end;
        }
    }

    /// Notes epoch and end of a segment as a later one gives them.
    pub(crate) fn bound(&mut self, previous: Previous) {
        if let Some(segment) = self.segments.get_mut(&previous.segment) {
            segment.epoch = previous.epoch;
            segment.end = previous.end;
        }
    }

    /// Notes that the file of a segment was cut off.
    pub(crate) fn resized(&mut self, segment: u32, size: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            self.size = self.size - segment.size + size;
            segment.size = size;
        }
    }

    /// Notes that what is in a segment was written down in so many octets.
    pub(crate) fn has_contents(&mut self, segment: u32, octets: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            self.size = self.size - segment.contents + octets;
            segment.contents = octets;
        }
    }

    /// Notes that a message has a file of so many octets.
    pub(crate) fn has_large(&mut self, id: MessageId, octets: u64) {
        if self.large.insert(id, octets).is_none() {
            self.large_octets += octets;
        }
    }

    /// Notes what the `Progress` at `at`, to be entered next, says about the one before.
    pub(crate) fn follows(&mut self, id: MessageId, at: At, previous: Option<At>) {
        if let Some(message) = self.messages.get(&id)
            && message.progress != previous
        {
            self.gaps.entry(id).or_default().push((at, message.progress));
        }
    }

    /// Enters a record of so many octets at `at`.
    pub(crate) fn apply(&mut self, effect: Effect, at: At, octets: u64) {
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        match effect {
            Effect::Accepted(id) => {
                // Compaction writes a message again.
                self.forget(id);
                let message = Message {
                    accepted: at,
                    accepted_octets: octets,
                    progress: None,
                    progress_octets: 0,
                    links: 0,
                    condensed_octets: 0,
                };
                self.messages.insert(id, message);
                if let Some(segment) = self.segments.get_mut(&at.segment.get()) {
                    segment.messages += 1;
                    segment.live += u64::from(octets);
                }
                self.live += u64::from(octets);
            }
            Effect::Progress(id) | Effect::Condensed(id) => {
                let Some(message) = self.messages.get_mut(&id) else {
                    return;
                };
                let before = message.octets();
                if effect == Effect::Condensed(id) {
                    (message.links, message.progress_octets, message.condensed_octets) = (0, 0, octets);
                    self.gaps.remove(&id);
                    self.long.remove(&id);
                }
                message.progress = Some(at);
                message.progress_octets = message.progress_octets.saturating_add(octets);
                message.links = message.links.saturating_add(1);
                if message.is_long() {
                    self.long.insert(id);
                }
                let after = message.octets();
                if let Some(segment) = self.segments.get_mut(&message.accepted.segment.get()) {
                    segment.live = segment.live - before + after;
                }
                self.live = self.live - before + after;
            }
            Effect::Removed(id) => {
                self.forget(id);
                if let Some(octets) = self.large.remove(&id) {
                    self.large_octets -= octets;
                    self.ended_large.push(id);
                }
            }
        }
    }

    fn forget(&mut self, id: MessageId) {
        let Some(message) = self.messages.remove(&id) else {
            return;
        };
        self.gaps.remove(&id);
        self.long.remove(&id);
        self.live -= message.octets();
        if let Some(segment) = self.segments.get_mut(&message.accepted.segment.get()) {
            segment.messages -= 1;
            segment.live -= message.octets();
        }
    }

    /// Takes out the segments that can be given up, oldest first; never the youngest, and none before all is settled.
    pub(crate) fn take_dead(&mut self) -> Vec<u32> {
        let mut dead = Vec::new();
        while !self.unsettled
            && self.segments.len() > 1
            && let Some(oldest) = self.segments.first_entry()
            && oldest.get().messages == 0
            && !oldest.get().kept
        {
            let (number, segment) = oldest.remove_entry();
            self.kept.remove(&number);
            self.size -= segment.size + segment.contents;
            dead.push(number);
        }
        dead
    }

    /// Takes the messages whose files can go.
    pub(crate) fn take_ended_large(&mut self) -> Vec<MessageId> {
        mem::take(&mut self.ended_large)
    }

    /// The oldest segment, if its messages should be written again so that it can be given up: the journal is more
    /// than twice as large as what it holds and two segments, or the disk is full and half of the segment would come
    /// back.
    pub(crate) fn to_compact(&self, segment_size: u64, full: bool) -> Option<(u32, Use)> {
        let (number, oldest) = self.segments.first_key_value()?;
        let sparse = self.size > 2 * self.live + 2 * segment_size;
        let worthwhile = full && oldest.live <= oldest.size / 2;
        let stays = self.unsettled || oldest.kept;
        (self.segments.len() > 1 && !stays && (sparse || worthwhile)).then_some((*number, *oldest))
    }

    /// Takes some of the messages behind one that have too many `Progress`. Their next `Progress` brings them back.
    pub(crate) fn take_long(&mut self, behind: Option<MessageId>, most: usize) -> Vec<MessageId> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let taken: Vec<_> = self.long.range((from, Bound::Unbounded)).take(most).copied().collect();
        for id in &taken {
            self.long.remove(id);
        }
        taken
    }

    pub(crate) fn has_long(&self) -> bool {
        !self.long.is_empty()
    }

    /// Whether there is something to write again.
    pub(crate) fn wants_compaction(&self, segment_size: u64, full: bool) -> bool {
        self.has_long() || self.to_compact(segment_size, full).is_some()
    }

    pub(crate) fn ids(&self) -> Vec<MessageId> {
        self.messages.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn oldest(&self) -> Option<MessageId> {
        self.messages.first_key_value().map(|(id, _)| *id)
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<Message> {
        self.messages.get(&id).copied()
    }

    /// The messages whose `Accepted` stands in a segment, among the next `most` behind one; and the last of those, if
    /// there are any.
    pub(crate) fn in_segment(
        &self,
        number: u32,
        behind: Option<MessageId>,
        most: usize,
    ) -> (Vec<MessageId>, Option<MessageId>) {
        let (mut there, mut last) = (Vec::new(), None);
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        for (id, message) in self.messages.range((from, Bound::Unbounded)).take(most) {
            last = Some(*id);
            if message.accepted.segment.get() == number {
                there.push(*id);
            }
        }
        (there, last)
    }

    /// The message, and where damage parted its `Progress`.
    pub(crate) fn message_and_gaps(&self, id: MessageId) -> Option<Known> {
        self.message(id).map(|message| (message, self.gaps.get(&id).cloned().unwrap_or_default()))
    }

    pub(crate) fn is_large(&self, id: MessageId) -> bool {
        self.large.contains_key(&id)
    }

    pub(crate) fn segment(&self, number: u32) -> Option<Use> {
        self.segments.get(&number).copied()
    }

    pub(crate) fn segments(&self) -> Vec<(u32, Use)> {
        self.segments.iter().map(|(number, segment)| (*number, *segment)).collect()
    }

    /// Octets of the segments' files, of the records that matter, and of the messages' own files.
    pub(crate) fn octets(&self) -> (u64, u64, u64) {
        (self.size, self.live, self.large_octets)
    }
}

#[cfg(test)]
mod tests;
