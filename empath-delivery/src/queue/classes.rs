use std::collections::VecDeque;

use empath_common::Priority;

use super::{destinations::Destination, ready::Ready, turns::Turns};

/// How often each priority has its turn while all of them wait; the most urgent first.
const WEIGHTS: [i32; CLASSES] = [16, 8, 4, 2, 1];
pub(super) const CLASSES: usize = Priority::ALL.len();

/// What is ready in a lane: first come first served within a priority and a domain, and turns by weight among priorities, so that the
/// urgent is soon served and nothing starves.
///
/// Smooth weighted round robin: with each turn every priority that waits gains its weight, and the richest pays for all. So
/// a priority has its share of every round, evenly spread, and none saves up turns while it has nothing to do.
#[derive(Debug, Default)]
pub(super) struct Classes([Class; CLASSES]);

#[derive(Debug, Default)]
struct Class {
    ready: Turns,
    credit: i32,
}

impl Classes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|class| class.ready.is_empty())
    }

    pub(super) fn push_back(&mut self, ready: Ready) {
        if let Some(class) = self.0.get_mut(ready.priority as usize) {
            class.ready.push_back(ready);
        }
    }

    /// It had its turn, and has the next one of its priority and domain.
    pub(super) fn push_front(&mut self, ready: Ready) {
        if let Some(class) = self.0.get_mut(ready.priority as usize) {
            class.ready.push_front(ready);
        }
    }

    /// Takes out what is ready for a domain, by priority.
    pub(super) fn take(&mut self, destination: Destination) -> [VecDeque<Ready>; CLASSES] {
        self.0.each_mut().map(|class| class.ready.take(destination))
    }

    /// Puts what is ready for a domain behind what there is of it.
    pub(super) fn append(&mut self, destination: Destination, ready: [VecDeque<Ready>; CLASSES]) {
        for (class, ready) in self.0.iter_mut().zip(ready) {
            class.ready.append(destination, ready);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Ready> {
        let mut round = 0;
        for (class, weight) in self.0.iter_mut().zip(WEIGHTS) {
            if !class.ready.is_empty() {
                class.credit += weight;
                round += weight;
            }
        }
        let waiting = self.0.iter_mut().filter(|class| !class.ready.is_empty());
        // Of equals the first, which is the most urgent.
        let richest = waiting.rev().max_by_key(|class| class.credit)?;
        richest.credit -= round;
        let ready = richest.ready.pop_front();
        if richest.ready.is_empty() {
            // Memory of a flood is not kept.
            *richest = Class::default();
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use empath_common::MessageId;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::route::SenderClass;

    fn ready(number: usize, priority: Priority) -> Ready {
        Ready {
            id: MessageId::from_bytes((number as u128).to_be_bytes()),
            recipients: [0].into_iter().collect(),
            since: Timestamp::UNIX_EPOCH.into(),
            priority,
            sender: SenderClass::default(),
            destination: Destination::default(),
            max_connections: 1,
        }
    }

    #[test]
    fn while_all_wait_every_round_has_each_priority_by_its_weight() {
        let mut classes = Classes::default();
        for number in 0..200 {
            for priority in Priority::ALL {
                classes.push_back(ready(number, priority));
            }
        }
        for _ in 0..4 {
            let mut turns = [0; CLASSES];
            (0..31).for_each(|_| turns[classes.pop_front().unwrap().priority as usize] += 1);
            assert_eq!(turns, WEIGHTS);
        }
    }

    #[test]
    fn what_is_critical_is_next_or_the_one_after() {
        let mut classes = Classes::default();
        (0..1000).for_each(|number| classes.push_back(ready(number, Priority::Normal)));
        for _ in 0..50 {
            (0..7).for_each(|_| drop(classes.pop_front()));
            classes.push_back(ready(5000, Priority::Critical));
            let next = [(); 2].map(|()| classes.pop_front().unwrap().priority);
            assert!(next.contains(&Priority::Critical));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_overtaken_by_its_equals_and_nothing_starves(
            steps in prop::collection::vec(prop::option::of(0..CLASSES), 1..2000),
        ) {
            let mut classes = Classes::default();
            let mut expected: [VecDeque<MessageId>; CLASSES] = Default::default();
            // Turns that each has waited for its own.
            let mut waited = [0; CLASSES];
            let steps = steps.into_iter().enumerate().chain((0..3000).map(|_| (0, None)));
            for (number, step) in steps {
                if let Some(class) = step {
                    let ready = ready(number, Priority::ALL[class]);
                    expected[class].push_back(ready.id);
                    classes.push_back(ready);
                } else if let Some(ready) = classes.pop_front() {
                    let class = ready.priority as usize;
                    prop_assert_eq!(expected[class].pop_front(), Some(ready.id));
                    waited[class] = 0;
                    for (other, weight) in WEIGHTS.into_iter().enumerate() {
                        if other != class && !expected[other].is_empty() {
                            waited[other] += 1;
                            prop_assert!(waited[other] <= 2 * 31 / weight, "{other} starves");
                        }
                    }
                }
                prop_assert_eq!(classes.is_empty(), expected.iter().all(VecDeque::is_empty));
            }
            prop_assert!(classes.is_empty());
        }
    }
}
