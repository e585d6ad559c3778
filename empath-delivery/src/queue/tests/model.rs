//! A random run of the queue, watched from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// What happens next in a random run.
#[derive(Debug, Clone)]
enum Step {
    Accept(Vec<u8>),
    /// The n-th job in flight is delivered, or fails until so many seconds later.
    Finish(usize, Option<u16>),
    Pass(u16),
    Leave(usize),
    Retry(u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0..6_u8, 1..5).prop_map(Step::Accept),
        6 => (any::<usize>(), prop::option::of(1..500_u16)).prop_map(|(n, due)| Step::Finish(n, due)),
        2 => (1..1000_u16).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Retry),
        1 => any::<u8>().prop_map(Step::Delete),
    ]
}

/// Watches a queue from outside.
#[derive(Default)]
struct Model {
    now: i64,
    flying: Vec<(ConnectionId, Queued)>,
    idle: BTreeSet<ConnectionId>,
    hops: HashMap<ConnectionId, String>,
    /// When each recipient that is not in flight may start at the earliest.
    due: BTreeMap<(MessageId, u32), i64>,
    accepted: u8,
}

const MAX_CONCURRENT: usize = 4;
const MAX_PER_SERVER: usize = 2;

impl Model {
    fn took(&mut self, connection: ConnectionId, job: Queued) {
        for recipient in &job.recipients {
            let due = self.due.remove(&(job.id, recipient.index));
            assert!(due.is_some_and(|due| due <= self.now), "{recipient:?} is in flight twice or too early");
        }
        self.flying.push((connection, job));
    }

    fn perform(&mut self, queue: &mut Queue) {
        for action in queue.take_actions() {
            match action {
                Action::Open { connection, next_hop, job } => {
                    self.hops.insert(connection, next_hop.to_string());
                    self.took(connection, job);
                }
                Action::Resume { connection, job } => {
                    assert!(self.idle.remove(&connection));
                    self.took(connection, job);
                }
                Action::Close { connection } => {
                    assert!(self.idle.remove(&connection));
                    self.hops.remove(&connection);
                }
            }
        }
        assert!(queue.connections() <= MAX_CONCURRENT);
        assert_eq!(queue.connections(), self.hops.len());
        let mut per_hop: HashMap<&str, usize> = HashMap::new();
        for hop in self.hops.values() {
            *per_hop.entry(hop).or_default() += 1;
        }
        assert!(per_hop.values().all(|count| *count <= MAX_PER_SERVER));
    }

    fn finish(&mut self, queue: &mut Queue, n: usize, fate: Fate) {
        let (connection, job) = self.flying.swap_remove(n % self.flying.len());
        if let Fate::Due(due) = fate {
            for recipient in &job.recipients {
                self.due.insert((job.id, recipient.index), due.as_second());
            }
        }
        settle(queue, &job, fate, at(self.now));
        match queue.next(connection) {
            Next::Job(job) => self.took(connection, job),
            Next::Idle => drop(self.idle.insert(connection)),
            Next::Close => drop(self.hops.remove(&connection)),
        }
    }

    fn run(&mut self, queue: &mut Queue, step: &Step) {
        match step {
            Step::Accept(recipients) if self.accepted < 200 => {
                self.accepted += 1;
                let domains: BTreeSet<_> = recipients.iter().map(|n| format!("u@{n}.test")).collect();
                let addresses: Vec<_> = domains.iter().map(String::as_str).collect();
                for index in 0..u32::try_from(addresses.len()).unwrap() {
                    self.due.insert((id(self.accepted), index), self.now);
                }
                let envelope = envelope(at(self.now), &addresses);
                queue.accept(id(self.accepted), envelope, &Bytes::from_static(b"x\r\n").into(), at(self.now));
            }
            Step::Finish(n, due) if !self.flying.is_empty() => {
                let fate = due.map_or(DELIVERED, |due| Fate::Due(at(self.now + i64::from(due))));
                self.finish(queue, *n, fate);
            }
            Step::Pass(seconds) => {
                self.now += i64::from(*seconds);
                queue.poll(at(self.now));
            }
            Step::Leave(n) if !self.idle.is_empty() => {
                let connection = *self.idle.iter().nth(n % self.idle.len()).unwrap();
                if queue.leave(connection) {
                    self.idle.remove(&connection);
                    self.hops.remove(&connection);
                }
            }
            Step::Retry(number) => {
                let known = queue.retry(id(*number), at(self.now)).is_some();
                let meant = self.due.range_mut((id(*number), 0)..=(id(*number), u32::MAX));
                meant.filter(|_| known).for_each(|(_, due)| *due = self.now.min(*due));
            }
            Step::Delete(number) => {
                if let Some(job) = queue.delete(id(*number), at(self.now)) {
                    for recipient in &job.recipients {
                        assert!(self.due.remove(&(job.id, recipient.index)).is_some());
                    }
                    settle(queue, &job, Fate::Ended(Ended::Removed), at(self.now));
                }
            }
            _ => {}
        }
        self.perform(queue);
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_runs_twice_and_limits_hold(steps in prop::collection::vec(step(), 1..300)) {
        let mut queue = queue(MAX_CONCURRENT, MAX_PER_SERVER);
        let mut model = Model::default();
        for step in &steps {
            model.run(&mut queue, step);
            let counted: usize = MessageStatus::ALL.iter().map(|status| queue.count_of(*status)).sum();
            prop_assert_eq!(counted, queue.len());
        }
        // From now on everything succeeds: then everything ends.
        for _ in 0..2000 {
            if queue.is_empty() {
                break;
            }
            model.run(&mut queue, &Step::Pass(500));
            while !model.flying.is_empty() {
                model.run(&mut queue, &Step::Finish(0, None));
            }
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(queue.poll(at(model.now)), Timestamp::MAX);
        prop_assert_eq!(queue.fresh, 0);
    }
}
