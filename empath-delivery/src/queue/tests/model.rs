//! A random run of the queue, watched from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::config::DomainConfig;

/// What happens next in a random run.
#[derive(Debug, Clone)]
enum Step {
    Accept(Vec<u8>),
    /// The n-th job in flight is delivered, or fails until so many seconds later, and says this about the destination.
    Finish(usize, Option<u16>, Outcome),
    /// The destination has too many connections for the n-th job.
    TurnAway(usize),
    Pass(u16),
    Leave(usize),
    Retry(u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0..6_u8, 1..5).prop_map(Step::Accept),
        6 => (any::<usize>(), prop::option::of(1..500_u16), outcome())
            .prop_map(|(n, due, outcome)| Step::Finish(n, due, outcome)),
        1 => any::<usize>().prop_map(Step::TurnAway),
        2 => (1..1000_u16).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Retry),
        1 => any::<u8>().prop_map(Step::Delete),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Good),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::TurnedAway),
        1 => Just(Outcome::Unknown),
    ]
}

/// Watches a queue from outside.
#[derive(Default)]
struct Model {
    now: i64,
    flying: Vec<(ConnectionId, Job)>,
    idle: BTreeSet<ConnectionId>,
    hops: HashMap<ConnectionId, String>,
    /// When each recipient that is not in flight may start at the earliest.
    due: BTreeMap<(MessageId, u32), i64>,
    accepted: u8,
    accepted_at: HashMap<MessageId, i64>,
    told_of_delay: BTreeSet<(MessageId, u32)>,
}

const MAX_CONCURRENT: usize = 4;
const MAX_PER_SERVER: usize = 2;

impl Model {
    fn took(&mut self, connection: ConnectionId, job: Job) {
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

    /// Somebody tells of what takes long.
    fn tell(&mut self, queue: &mut Queue) {
        let delay_after = i64::try_from(DELAY_AFTER.unwrap().as_secs()).unwrap();
        queue.poll(at(self.now));
        self.perform(queue);
        while let Some(job) = queue.take_late() {
            assert!(self.accepted_at[&job.id] + delay_after <= self.now, "too early");
            for recipient in &job.recipients {
                assert!(self.due.contains_key(&(job.id, recipient.index)), "it is in flight or has ended");
                assert!(self.told_of_delay.insert((job.id, recipient.index)), "it was told already");
                let back = Settlement {
                    index: recipient.index,
                    attempts: recipient.attempts,
                    fate: Fate::Due(recipient.due),
                };
                queue.settle(job.id, &[back], at(self.now));
            }
            queue.poll(at(self.now));
            self.perform(queue);
        }
        let late = |(id, _): &&(MessageId, u32)| self.accepted_at[id] + delay_after <= self.now;
        let waits = |(id, index): &&(MessageId, u32)| {
            let status = queue.snapshot(*id).map(|message| message.recipients[*index as usize].0);
            matches!(status, Some(RecipientStatus::Pending | RecipientStatus::Deferred))
        };
        let mut late = self.due.keys().filter(late).filter(waits);
        let untold = late.find(|key| !self.told_of_delay.contains(key));
        assert_eq!(untold, None);
    }

    fn finish(&mut self, queue: &mut Queue, n: usize, fate: Fate, outcome: Outcome) {
        let (connection, job) = self.flying.swap_remove(n % self.flying.len());
        if let Fate::Due(due) = fate {
            for recipient in &job.recipients {
                self.due.insert((job.id, recipient.index), due.as_second());
            }
        }
        settle(queue, &job, fate, at(self.now));
        queue.report(connection, outcome, job.domain(), at(self.now));
        match queue.next(connection, at(self.now)) {
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
                self.accepted_at.insert(id(self.accepted), self.now);
                let mut envelope = Arc::unwrap_or_clone(envelope(at(self.now), &addresses));
                envelope.reverse_path = "<a@home.test>".parse().unwrap();
                let envelope = Arc::new(envelope);
                queue.accept(id(self.accepted), envelope, &Bytes::from_static(b"x\r\n").into(), at(self.now));
            }
            Step::TurnAway(n) if !self.flying.is_empty() => {
                let (connection, job) = self.flying.swap_remove(n % self.flying.len());
                if queue.put_back(connection, job.id, &job.recipients, at(self.now)) {
                    self.hops.remove(&connection);
                    for recipient in &job.recipients {
                        self.due.insert((job.id, recipient.index), self.now);
                    }
                } else {
                    self.flying.push((connection, job));
                }
            }
            Step::Finish(n, due, outcome) if !self.flying.is_empty() => {
                let fate = due.map_or(DELIVERED, |due| Fate::Due(at(self.now + i64::from(due))));
                self.finish(queue, *n, fate, *outcome);
            }
            Step::Pass(seconds) => {
                self.now += i64::from(*seconds);
                queue.poll(at(self.now));
            }
            Step::Leave(n) if !self.idle.is_empty() => {
                let connection = *self.idle.iter().nth(n % self.idle.len()).unwrap();
                if queue.leave(connection, at(self.now)) {
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
        self.tell(queue);
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_runs_twice_and_limits_hold(
        steps in prop::collection::vec(step(), 1..300), limited: bool
    ) {
        let mut config = Config { max_concurrent: MAX_CONCURRENT, ..Config::default() };
        config.connection_pool.max_per_server = MAX_PER_SERVER;
        if limited {
            config.rate_limits.global_per_second = Some(1);
            let slow = DomainConfig { rate_limit: Some(2), rate_burst: Some(1), ..DomainConfig::default() };
            config.domains.insert("0.test".parse().unwrap(), slow);
        }
        let mut queue = configured(&config);
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
                model.run(&mut queue, &Step::Finish(0, None, Outcome::Good));
            }
        }
        prop_assert!(queue.is_empty());
        // Failures are forgotten, and tokens that nobody needs come.
        model.run(&mut queue, &Step::Pass(2 * 3600));
        prop_assert_eq!(queue.poll(at(model.now)), Timestamp::MAX);
        prop_assert_eq!(queue.content, 0);
    }
}
