use std::collections::{HashMap, VecDeque};

use super::{destinations::Destination, ready::Ready};

/// What is ready of one priority: first come first served within a domain, and domains take turns, so that a flood for one
/// of them does not hold up the others in its lane.
///
/// Nearly always there is one domain, which costs no more than a queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whose the line is, while there are not several.
    only: Option<Destination>,
    line: VecDeque<Ready>,
    many: Option<Box<Many>>,
}

/// Lines that are not empty.
#[derive(Debug, Default)]
struct Many {
    lines: HashMap<Destination, VecDeque<Ready>>,
    /// Whose turn it is next: each once.
    order: VecDeque<Destination>,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.many.is_none()
    }

    pub(super) fn push_back(&mut self, ready: Ready) {
        self.line(ready.destination).push_back(ready);
    }

    /// It had its turn, and has the next one of its domain.
    pub(super) fn push_front(&mut self, ready: Ready) {
        self.line(ready.destination).push_front(ready);
    }

    pub(super) fn pop_front(&mut self) -> Option<Ready> {
        let Some(many) = &mut self.many else {
            let ready = self.line.pop_front();
            self.tidy();
            return ready;
        };
        let destination = many.order.pop_front()?;
        let line = many.lines.get_mut(&destination)?;
        let ready = line.pop_front();
        if line.is_empty() {
            many.lines.remove(&destination);
        } else {
            many.order.push_back(destination);
        }
        self.tidy();
        ready
    }

    /// Takes out what is ready for a domain.
    pub(super) fn take(&mut self, destination: Destination) -> VecDeque<Ready> {
        let mut taken = VecDeque::new();
        if let Some(many) = &mut self.many {
            if let Some(line) = many.lines.remove(&destination) {
                many.order.retain(|other| *other != destination);
                taken = line;
            }
        } else if self.only == Some(destination) {
            taken = std::mem::take(&mut self.line);
        }
        self.tidy();
        taken
    }

    /// Puts what is ready for a domain behind what there is of it.
    pub(super) fn append(&mut self, destination: Destination, mut ready: VecDeque<Ready>) {
        if !ready.is_empty() {
            self.line(destination).append(&mut ready);
        }
    }

    /// The line of a domain, to put something there.
    fn line(&mut self, destination: Destination) -> &mut VecDeque<Ready> {
        if self.many.is_none() && self.only.is_none_or(|only| only == destination) {
            self.only = Some(destination);
            return &mut self.line;
        }
        let Many { lines, order } = &mut **self.many.get_or_insert_default();
        if let Some(first) = self.only.take() {
            lines.insert(first, std::mem::take(&mut self.line));
            order.push_back(first);
        }
        lines.entry(destination).or_insert_with(|| {
            order.push_back(destination);
            // Where there are many domains, most have one message.
            VecDeque::with_capacity(1)
        })
    }

    /// Memory of a flood is not kept.
    fn tidy(&mut self) {
        if self.line.is_empty() && self.many.as_ref().is_none_or(|many| many.order.is_empty()) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use empath_common::{Domain, Host, MessageId, Priority};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{queue::destinations::Destinations, route::SenderClass};

    fn domains(count: usize) -> Vec<Destination> {
        let mut destinations = Destinations::default();
        let domain = |number| format!("d{number}.test").parse::<Domain>().unwrap();
        (0..count).map(|number| destinations.enter(Some(&Host::Domain(domain(number))))).collect()
    }

    fn ready(number: usize, destination: Destination) -> Ready {
        Ready {
            id: MessageId::from_bytes((number as u128).to_be_bytes()),
            recipients: [0].into_iter().collect(),
            since: Timestamp::UNIX_EPOCH.into(),
            priority: Priority::Normal,
            sender: SenderClass::default(),
            destination,
            max_connections: 1,
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Push(usize),
        /// What was taken last is put back.
        Return,
        Pop,
        /// What is ready for one domain goes elsewhere and comes back.
        Move(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..5_usize).prop_map(Step::Push),
            1 => Just(Step::Return),
            5 => Just(Step::Pop),
            1 => (0..5_usize).prop_map(Step::Move),
        ]
    }

    proptest! {
        #[test]
        fn a_domain_waits_for_one_turn_of_each_other_and_its_mail_stays_in_order(
            steps in prop::collection::vec(step(), 1..300)
        ) {
            let domains = domains(5);
            let number_of = |destination| domains.iter().position(|other| *other == destination).unwrap();
            let mut turns = Turns::default();
            let mut expected: BTreeMap<usize, VecDeque<MessageId>> = BTreeMap::new();
            let (mut waited, mut last) = ([0; 5], None);
            let steps = steps.into_iter().chain((0..300).map(|_| Step::Pop));
            for (number, step) in steps.enumerate() {
                match step {
                    Step::Push(domain) => {
                        let ready = ready(number, domains[domain]);
                        expected.entry(domain).or_default().push_back(ready.id);
                        turns.push_back(ready);
                    }
                    Step::Return => if let Some(ready) = last.take() {
                        let ready: Ready = ready;
                        expected.entry(number_of(ready.destination)).or_default().push_front(ready.id);
                        turns.push_front(ready);
                    },
                    Step::Pop => if let Some(ready) = turns.pop_front() {
                        let domain = number_of(ready.destination);
                        prop_assert_eq!(expected.get_mut(&domain).unwrap().pop_front(), Some(ready.id));
                        expected.retain(|_, line| !line.is_empty());
                        waited[domain] = 0;
                        for other in expected.keys().filter(|other| **other != domain) {
                            waited[*other] += 1;
                            prop_assert!(waited[*other] < 5, "{other} is held up");
                        }
                        last = Some(ready);
                    },
                    Step::Move(domain) => {
                        let taken = turns.take(domains[domain]);
                        let ids: VecDeque<_> = taken.iter().map(|ready| ready.id).collect();
                        prop_assert_eq!(ids, expected.get(&domain).cloned().unwrap_or_default());
                        turns.append(domains[domain], taken);
                        // It stands behind the others.
                        waited[domain] = 0;
                    }
                }
                prop_assert_eq!(turns.is_empty(), expected.is_empty());
            }
            prop_assert!(turns.is_empty() && expected.is_empty());
        }
    }
}
