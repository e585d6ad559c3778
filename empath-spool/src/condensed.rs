//! What the `Progress` of a message come to: the state of each recipient, and what is kept of its history.

use std::collections::BTreeMap;

use crate::{
    Attempt, Progress, RecipientUpdate,
    progress::{HISTORY, Status, Untold},
};

/// The recipients that have a state, by their numbers, and whether the message is held. Little memory, however many
/// `Progress` there are.
#[derive(Default)]
pub(crate) struct Condensed {
    recipients: BTreeMap<u32, Latest>,
    held: Option<bool>,
}

/// What leads to the same states and histories as all that was taken in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) updates: Vec<RecipientUpdate>,
    /// `None` if that was never said.
    pub(crate) held: Option<bool>,
}

impl Sum {
    pub(crate) fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.held.is_none()
    }
}

struct Latest {
    status: Status,
    attempts: u32,
    next_attempt_at: Option<jiff::Timestamp>,
    told_of_delay: bool,
    untold: Option<Untold>,
    /// The last attempts, youngest first, and the oldest of those before.
    recent: Vec<Attempt>,
    first: Option<Attempt>,
}

impl Condensed {
    /// Takes in the `Progress` before those that were taken in so far, and what it says of the message's being held.
    pub(crate) fn before(&mut self, progress: Progress, held: Option<bool>) {
        self.held = self.held.or(held);
        for update in progress.updates.into_iter().rev() {
            let RecipientUpdate {
                recipient,
                status,
                attempts,
                next_attempt_at,
                told_of_delay,
                untold,
                attempt,
            } = update;
            let latest = self.recipients.entry(recipient).or_insert_with(|| Latest {
                status,
                attempts,
                next_attempt_at,
                told_of_delay: false,
                untold,
                recent: Vec::new(),
                first: None,
            });
            latest.told_of_delay |= told_of_delay;
            if let Some(attempt) = attempt {
                if latest.recent.len() < HISTORY - 1 {
                    latest.recent.push(attempt);
                } else {
                    latest.first = Some(attempt);
                }
            }
        }
    }

    pub(crate) fn sum(self) -> Sum {
        let mut updates = Vec::new();
        for (recipient, latest) in self.recipients {
            let Latest { status, attempts, next_attempt_at, told_of_delay, untold, recent, first } = latest;
            let update = |attempt| RecipientUpdate {
                recipient,
                status,
                attempts,
                next_attempt_at,
                told_of_delay,
                untold,
                attempt,
            };
            if recent.is_empty() {
                updates.push(update(None));
            }
            updates.extend(first.into_iter().chain(recent.into_iter().rev()).map(|one| update(Some(one))));
        }
        Sum { updates, held: self.held }
    }
}

#[cfg(test)]
mod tests {
    use empath_common::{EnhancedStatus, MessageId};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{Ended, RecipientState};

    fn update(number: u32, recipient: u32, tried: bool) -> RecipientUpdate {
        let at = Timestamp::new(number.into(), 0).unwrap();
        let attempt = Attempt {
            at,
            next_hop: String::new(),
            host: None,
            reply: None,
            status: EnhancedStatus::new(4, 0, 0),
            detail: number.to_string(),
        };
        RecipientUpdate {
            recipient,
            status: if number.is_multiple_of(2) { Status::Deferred } else { Status::Ended(Ended::Removed) },
            attempts: number,
            next_attempt_at: number.is_multiple_of(3).then_some(at),
            told_of_delay: number.is_multiple_of(5),
            untold: [Untold::Failed, Untold::Delivered, Untold::Relayed].get(number as usize % 7).copied(),
            attempt: tried.then_some(attempt),
        }
    }

    fn states(records: &[Vec<RecipientUpdate>]) -> Vec<RecipientState> {
        let mut states = vec![RecipientState::default(); 4];
        for updates in records {
            Progress { id: MessageId::from_bytes([9; 16]), updates: updates.clone() }.apply(&mut states);
        }
        states
    }

    fn condensed(records: &[Vec<RecipientUpdate>]) -> Vec<RecipientUpdate> {
        let mut condensed = Condensed::default();
        for updates in records.iter().rev() {
            condensed.before(Progress { id: MessageId::from_bytes([9; 16]), updates: updates.clone() }, None);
        }
        condensed.sum().updates
    }

    proptest! {
        #[test]
        fn nothing_shows_that_progress_was_condensed_on_the_way(
            records in prop::collection::vec(prop::collection::vec((0_u32..4, any::<bool>()), 0..6), 0..24),
            times in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let mut number = 0;
            let mut update = |(recipient, tried)| {
                number += 1;
                update(number, recipient, tried)
            };
            let records: Vec<Vec<_>> =
                records.into_iter().map(|updates| updates.into_iter().map(&mut update).collect()).collect();
            let mut chain = Vec::new();
            let times: Vec<_> = times.iter().map(|time| time.index(records.len() + 1)).collect();
            for (at, record) in records.iter().enumerate() {
                if times.contains(&at) {
                    chain = vec![condensed(&chain)];
                }
                chain.push(record.clone());
            }
            prop_assert_eq!(states(&[condensed(&chain)]), states(&records));
        }
    }

    #[test]
    fn the_last_word_counts_on_whether_a_message_is_held() {
        for (said, expected) in [
            (&[][..], None),
            (&[None, None], None),
            (&[Some(true), None], Some(true)),
            (&[Some(true), None, Some(false), None], Some(false)),
            (&[Some(false), Some(true)], Some(true)),
        ] {
            let mut condensed = Condensed::default();
            for held in said.iter().rev() {
                condensed.before(Progress { id: MessageId::from_bytes([9; 16]), updates: Vec::new() }, *held);
            }
            let sum = condensed.sum();
            assert_eq!((sum.held, sum.is_empty()), (expected, expected.is_none()), "{said:?}");
        }
    }

    #[test]
    fn the_first_and_the_last_attempts_are_kept() {
        let records: Vec<_> = (1..=100).map(|number| vec![update(number, 0, true)]).collect();
        let updates = condensed(&records);
        let kept: Vec<_> =
            updates.iter().map(|update| update.attempt.as_ref().unwrap().detail.as_str()).collect();
        assert_eq!(kept, ["1", "94", "95", "96", "97", "98", "99", "100"]);
        assert!(updates.iter().all(|update| update.attempts == 100));
    }
}
