//! Which messages there are, and where in the journal they stand.

use std::collections::BTreeMap;

use empath_common::MessageId;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) head: u32,
    pub(crate) body: u32,
}

/// What a record does to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Accepted(MessageId),
    Progress(MessageId),
    Removed(MessageId),
}

/// A message: no content, no envelope, some 60 octets.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) accepted: Place,
    pub(crate) progress: Vec<Place>,
}

/// The messages, and how many records of theirs each segment holds.
///
/// Segments are given up from the oldest on and never out of order: a younger one may hold the `Removed` of a message
/// whose `Accepted` stands in an older one, or the note that the older one is valid only so far.
#[derive(Debug, Default)]
pub(crate) struct Index {
    messages: BTreeMap<MessageId, Message>,
    live: BTreeMap<u32, u64>,
}

impl Index {
    /// Makes a segment known, the youngest by now.
    pub(crate) fn begin(&mut self, segment: u32) {
        self.live.entry(segment).or_default();
    }

    /// Keeps a segment, and so all younger ones, whatever is in it.
    pub(crate) fn keep(&mut self, segment: u32) {
        *self.live.entry(segment).or_default() += 1;
    }

    pub(crate) fn apply(&mut self, effect: Effect, place: Place) {
        match effect {
            Effect::Accepted(id) => {
                self.forget(id);
                self.count(place);
                self.messages.insert(id, Message { accepted: place, progress: Vec::new() });
            }
            Effect::Progress(id) => {
                let Some(message) = self.messages.get_mut(&id) else {
                    return;
                };
                message.progress.reserve_exact(1);
                message.progress.push(place);
                self.count(place);
            }
            Effect::Removed(id) => self.forget(id),
        }
    }

    fn count(&mut self, place: Place) {
        *self.live.entry(place.segment).or_default() += 1;
    }

    fn forget(&mut self, id: MessageId) {
        let Some(message) = self.messages.remove(&id) else {
            return;
        };
        for place in message.progress.iter().chain([&message.accepted]) {
            if let Some(live) = self.live.get_mut(&place.segment) {
                *live = live.saturating_sub(1);
            }
        }
    }

    /// Takes out the segments that can be given up, oldest first; never the youngest.
    pub(crate) fn take_dead(&mut self) -> Vec<u32> {
        let mut dead = Vec::new();
        while self.live.len() > 1
            && let Some(oldest) = self.live.first_entry()
            && *oldest.get() == 0
        {
            dead.push(oldest.remove_entry().0);
        }
        dead
    }

    pub(crate) fn ids(&self) -> Vec<MessageId> {
        self.messages.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> MessageId {
        MessageId::from_bytes([number; 16])
    }

    fn at(segment: u32) -> Place {
        Place { segment, offset: 0, head: 0, body: 0 }
    }

    #[test]
    fn a_segment_goes_only_after_all_older_ones() {
        let mut index = Index::default();
        for segment in 1..=4 {
            index.begin(segment);
        }
        index.apply(Effect::Accepted(id(1)), at(1));
        index.apply(Effect::Accepted(id(2)), at(1));
        index.apply(Effect::Removed(id(1)), at(2));
        assert!(index.take_dead().is_empty(), "segment 2 holds what keeps message 1 from rising again");
        index.apply(Effect::Progress(id(2)), at(3));
        index.apply(Effect::Removed(id(2)), at(4));
        assert_eq!(index.take_dead(), [1, 2, 3]);
        assert!(index.take_dead().is_empty(), "the youngest is being written");
    }

    #[test]
    fn progress_of_an_unknown_message_keeps_no_segment() {
        let mut index = Index::default();
        index.begin(1);
        index.begin(2);
        index.apply(Effect::Progress(id(1)), at(1));
        assert_eq!(index.take_dead(), [1]);
    }
}
