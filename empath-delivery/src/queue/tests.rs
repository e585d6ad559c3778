use std::collections::{BTreeMap, BTreeSet, HashMap};

use empath_common::{ForwardPath, ReversePath};
use empath_spool::{Ended, Status};
use proptest::prelude::*;

use super::*;
use crate::{config::Config, schedule};

const EXPIRE_AFTER: Duration = Duration::from_hours(120);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn queue(max_concurrent: usize, max_per_server: usize) -> Queue {
    let mut config = Config::default();
    config.connection_pool.max_per_server = max_per_server;
    let routes = Routes::new(&config, "mx.home.test".parse().unwrap());
    Queue::new(
        routes,
        Limits {
            max_concurrent,
            content_memory: 1000,
            expire_after: EXPIRE_AFTER,
        },
    )
}

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn envelope(received_at: Timestamp, recipients: &[&str]) -> Arc<Envelope> {
    let path = |address: &&str| format!("<{address}>").parse::<ForwardPath>().unwrap();
    let mut paths = recipients.iter().map(path);
    let mut envelope = Envelope::new(ReversePath::Null, paths.next().unwrap());
    paths.for_each(|path| envelope.add(path, 1000).unwrap());
    envelope.received_at = received_at;
    Arc::new(envelope)
}

fn accept(queue: &mut Queue, number: u8, recipients: &[&str]) {
    queue.accept(
        id(number),
        envelope(at(0), recipients),
        Bytes::from_static(b"x\r\n"),
        at(0),
    );
}

/// The jobs of connections that were opened or resumed.
fn jobs(queue: &mut Queue) -> Vec<(ConnectionId, Job)> {
    let job = |action| match action {
        Action::Open { connection, job, .. } | Action::Resume { connection, job } => Some((connection, job)),
        Action::Close { .. } => None,
    };
    queue.take_actions().into_iter().filter_map(job).collect()
}

fn settle(queue: &mut Queue, job: &Job, fate: Fate, now: Timestamp) -> bool {
    let settlement = |recipient: &JobRecipient| Settlement {
        index: recipient.index,
        attempts: recipient.attempts + 1,
        fate,
    };
    let settlements: Vec<_> = job.recipients.iter().map(settlement).collect();
    queue.settle(job.id, &settlements, now)
}

const DELIVERED: Fate = Fate::Ended(Ended::Delivered);

#[test]
fn recipients_travel_together_by_next_hop_and_the_message_ends_with_the_last() {
    let mut queue = queue(10, 5);
    accept(&mut queue, 1, &["a@one.test", "b@two.test", "c@one.test"]);
    let started = jobs(&mut queue);
    let indexes: Vec<Vec<u32>> = started
        .iter()
        .map(|(_, job)| job.recipients.iter().map(|r| r.index).collect())
        .collect();
    assert_eq!(indexes, [vec![0, 2], vec![1]]);
    assert!(!settle(&mut queue, &started[0].1, DELIVERED, at(1)));
    assert_eq!(queue.len(), 1);
    assert!(settle(&mut queue, &started[1].1, DELIVERED, at(1)));
    assert!(queue.is_empty());
    assert_eq!(queue.poll(at(1)), Timestamp::MAX);
}

#[test]
fn a_job_has_no_more_recipients_than_every_server_must_take() {
    let mut queue = queue(10, 5);
    let addresses: Vec<_> = (0..250).map(|n| format!("u{n}@one.test")).collect();
    accept(
        &mut queue,
        1,
        &addresses.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let sizes: Vec<_> = jobs(&mut queue)
        .iter()
        .map(|(_, job)| job.recipients.len())
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn a_retry_starts_at_its_due_time_and_not_before() {
    let mut queue = queue(10, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    queue.poll(at(0));
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    assert!(
        queue.take_wake(),
        "the caller sleeps until the expiry and must hear of an earlier time"
    );
    assert!(matches!(queue.next(connection), Next::Idle));
    assert_eq!(queue.poll(at(59)), at(60));
    assert!(jobs(&mut queue).is_empty());
    queue.poll(at(60));
    let (again, job) = jobs(&mut queue).remove(0);
    assert_eq!(again, connection);
    assert_eq!(
        job.recipients,
        [JobRecipient {
            index: 0,
            attempts: 1,
            due: at(60)
        }]
    );
}

#[test]
fn a_message_expires_on_time_and_not_at_its_next_attempt() {
    let mut queue = queue(10, 5);
    let expiry = schedule::after(at(0), EXPIRE_AFTER);
    accept(&mut queue, 1, &["a@one.test", "b@two.test"]);
    let started = jobs(&mut queue);
    settle(
        &mut queue,
        &started[0].1,
        Fate::Due(schedule::after(expiry, Duration::from_hours(1))),
        at(0),
    );
    assert_eq!(queue.poll(at(0)), expiry);
    queue.poll(expiry);
    let expired = queue.take_expired().unwrap();
    assert_eq!(
        expired.recipients.iter().map(|r| r.index).collect::<Vec<_>>(),
        [0]
    );
    // The one in flight is left to its attempt.
    assert!(queue.take_expired().is_none());
    assert!(!settle(&mut queue, &expired, Fate::Ended(Ended::Expired), expiry));
    assert!(settle(&mut queue, &started[1].1, DELIVERED, expiry));
}

#[test]
fn what_is_ready_behind_a_busy_lane_expires_too() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test"]);
    accept(&mut queue, 2, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    let expiry = schedule::after(at(0), EXPIRE_AFTER);
    queue.poll(expiry);
    assert_eq!(queue.take_expired().map(|job| job.id), Some(id(2)));
    settle(&mut queue, &job, DELIVERED, expiry);
    assert!(
        matches!(queue.next(connection), Next::Idle),
        "what has expired is not tried any more"
    );
}

#[test]
fn an_expiry_that_cannot_be_recorded_is_tried_again_later_and_not_at_once() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test"]);
    let (_, job) = jobs(&mut queue).remove(0);
    let expiry = schedule::after(at(0), EXPIRE_AFTER);
    let later = schedule::after(expiry, Duration::from_mins(1));
    settle(&mut queue, &job, Fate::Due(later), expiry);
    assert_eq!(queue.poll(expiry), later);
    assert!(!queue.has_expired());
    queue.poll(later);
    assert!(queue.has_expired());
}

#[test]
fn a_stored_message_keeps_its_attempts_and_due_times() {
    let mut queue = queue(10, 5);
    let deferred = RecipientState {
        status: Status::Deferred,
        attempts: 3,
        next_attempt_at: Some(at(500)),
        ..RecipientState::default()
    };
    let ended = RecipientState {
        status: Status::Ended(Ended::Delivered),
        attempts: 1,
        ..RecipientState::default()
    };
    let pending = RecipientState::default();
    let states = [deferred, ended.clone(), pending];
    let envelope = envelope(at(0), &["a@one.test", "b@one.test", "c@one.test"]);
    assert!(queue.restore(id(1), Arc::clone(&envelope), 7, &states, at(100)));
    let started = jobs(&mut queue);
    assert_eq!(
        started[0].1.recipients,
        [JobRecipient {
            index: 2,
            attempts: 0,
            due: at(0)
        }]
    );
    assert!(started[0].1.content.is_none());
    let snapshot = queue.snapshot(id(1)).unwrap();
    assert_eq!(
        snapshot.recipients[0],
        (RecipientStatus::Deferred, 3, Some(at(500)))
    );
    assert_eq!(snapshot.recipients[1], (RecipientStatus::Completed, 1, None));
    assert_eq!(snapshot.size, 7);
    settle(&mut queue, &started[0].1, DELIVERED, at(100));
    assert_eq!(queue.poll(at(499)), at(500));
    queue.poll(at(500));
    assert_eq!(
        jobs(&mut queue)[0].1.recipients,
        [JobRecipient {
            index: 0,
            attempts: 3,
            due: at(500)
        }]
    );
    assert!(!queue.restore(
        id(2),
        envelope,
        7,
        &[ended.clone(), ended.clone(), ended],
        at(100)
    ));
    assert_eq!(queue.len(), 1);
}

#[test]
fn a_message_that_was_never_tried_is_tried_once_however_old_it_is() {
    let mut queue = queue(10, 5);
    let late = schedule::after(at(0), 2 * EXPIRE_AFTER);
    queue.restore(
        id(1),
        envelope(at(0), &["a@one.test"]),
        7,
        &[RecipientState::default()],
        late,
    );
    assert!(!queue.has_expired());
    assert_eq!(jobs(&mut queue).len(), 1);
}

#[test]
fn content_stays_in_memory_for_first_attempts_within_the_limit() {
    let mut queue = queue(1, 1);
    let big = Bytes::from(vec![b'x'; 600]);
    queue.accept(id(1), envelope(at(0), &["a@one.test"]), big.clone(), at(0));
    queue.accept(id(2), envelope(at(0), &["a@one.test"]), big.clone(), at(0));
    let (connection, first) = jobs(&mut queue).remove(0);
    assert_eq!(first.content.as_ref().map(Bytes::len), Some(600));
    settle(&mut queue, &first, Fate::Due(at(60)), at(0));
    let Next::Job(second) = queue.next(connection) else {
        panic!()
    };
    assert!(second.content.is_none(), "there was no room for the second");
    // The first gave its memory back when it was deferred.
    queue.accept(id(3), envelope(at(0), &["a@one.test"]), big, at(0));
    settle(&mut queue, &second, DELIVERED, at(0));
    let Next::Job(third) = queue.next(connection) else {
        panic!()
    };
    assert!(third.content.is_some());
    settle(&mut queue, &third, DELIVERED, at(0));
    queue.poll(at(60));
    assert!(matches!(queue.next(connection), Next::Job(job) if job.content.is_none()));
}

#[test]
fn lanes_take_turns_when_all_connections_are_busy() {
    let mut queue = queue(1, 5);
    let lanes = ["one.test", "two.test", "three.test"];
    for number in 0..60 {
        for (lane, domain) in lanes.iter().enumerate() {
            accept(
                &mut queue,
                number + 60 * u8::try_from(lane).unwrap(),
                &[&format!("u@{domain}")],
            );
        }
    }
    let mut order: Vec<(String, u32)> = Vec::new();
    let mut work = jobs(&mut queue);
    while let Some((connection, job)) = work.pop() {
        let domain = job.envelope.recipients()[0].domain().unwrap().to_string();
        match order.last_mut() {
            Some((last, count)) if *last == domain => *count += 1,
            _ => order.push((domain, 1)),
        }
        settle(&mut queue, &job, DELIVERED, at(0));
        match queue.next(connection) {
            Next::Job(job) => work.push((connection, job)),
            Next::Idle | Next::Close => {}
        }
        work.extend(jobs(&mut queue));
        assert!(queue.connections() <= 1);
    }
    assert!(queue.is_empty());
    let turns: Vec<_> = order
        .iter()
        .map(|(domain, count)| (domain.as_str(), *count))
        .collect();
    let round = lanes.map(|domain| (domain, TURN));
    assert_eq!(turns, [round, round, round].concat());
}

#[test]
fn an_idle_connection_makes_room_for_another_destination() {
    let mut queue = queue(1, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    let (idle, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, DELIVERED, at(0));
    assert!(matches!(queue.next(idle), Next::Idle));
    accept(&mut queue, 2, &["a@two.test"]);
    let actions = queue.take_actions();
    assert!(
        matches!(&actions[..], [Action::Close { connection }, Action::Open { .. }] if *connection == idle)
    );
    assert!(queue.leave(idle), "what was closed may go");
    assert_eq!(queue.connections(), 1);
}

#[test]
fn a_connection_that_leaves_while_it_is_given_a_job_stays() {
    let mut queue = queue(1, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, DELIVERED, at(0));
    queue.next(connection);
    accept(&mut queue, 2, &["a@one.test"]);
    assert!(!queue.leave(connection));
    assert_eq!(jobs(&mut queue)[0].0, connection);
}

#[test]
fn a_deleted_message_leaves_nothing_behind_but_what_is_in_flight() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test", "b@two.test"]);
    let (connection, flying) = jobs(&mut queue).remove(0);
    let removed = queue.delete(id(1), at(0)).unwrap();
    assert_eq!(
        removed.recipients.iter().map(|r| r.index).collect::<Vec<_>>(),
        [1]
    );
    assert!(!settle(&mut queue, &removed, Fate::Ended(Ended::Removed), at(0)));
    assert!(
        settle(&mut queue, &flying, Fate::Due(at(60)), at(0)),
        "it is not tried again"
    );
    assert!(matches!(queue.next(connection), Next::Idle | Next::Close));
    assert!(jobs(&mut queue).is_empty());
    assert!(queue.delete(id(1), at(0)).is_none());
}

#[test]
fn a_removal_that_failed_changes_nothing() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test"]);
    let (_, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    let claimed = queue.delete(id(1), at(1)).unwrap();
    queue.undelete(id(1));
    let back = Settlement {
        index: 0,
        attempts: claimed.recipients[0].attempts,
        fate: Fate::Due(claimed.recipients[0].due),
    };
    queue.settle(id(1), &[back], at(1));
    let snapshot = queue.snapshot(id(1)).unwrap();
    assert_eq!(
        snapshot.recipients,
        [(RecipientStatus::Deferred, 1, Some(at(60)))]
    );
    assert_eq!(queue.poll(at(1)), at(60));
}

#[test]
fn retry_makes_deferred_recipients_due_at_once() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    queue.next(connection);
    assert_eq!(queue.retry(id(1), at(1)), Some(1));
    assert_eq!(jobs(&mut queue).len(), 1);
    assert_eq!(queue.retry(id(1), at(1)), Some(0));
    assert_eq!(queue.retry(id(2), at(1)), None);
}

#[test]
fn nothing_starts_after_stop() {
    let mut queue = queue(5, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    accept(&mut queue, 2, &["a@two.test"]);
    let started = jobs(&mut queue);
    settle(&mut queue, &started[1].1, DELIVERED, at(0));
    queue.next(started[1].0);
    queue.stop();
    assert!(matches!(&queue.take_actions()[..], [Action::Close { .. }]));
    accept(&mut queue, 3, &["a@one.test"]);
    settle(&mut queue, &started[0].1, DELIVERED, at(0));
    assert!(matches!(queue.next(started[0].0), Next::Close));
    assert!(jobs(&mut queue).is_empty());
    assert_eq!(queue.connections(), 0);
}

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
    flying: Vec<(ConnectionId, Job)>,
    idle: BTreeSet<ConnectionId>,
    hops: HashMap<ConnectionId, String>,
    /// When each recipient that is not in flight may start at the earliest.
    due: BTreeMap<(MessageId, u32), i64>,
    accepted: u8,
}

const MAX_CONCURRENT: usize = 4;
const MAX_PER_SERVER: usize = 2;

impl Model {
    fn took(&mut self, connection: ConnectionId, job: Job) {
        for recipient in &job.recipients {
            let due = self.due.remove(&(job.id, recipient.index));
            assert!(
                due.is_some_and(|due| due <= self.now),
                "{recipient:?} is in flight twice or too early"
            );
        }
        self.flying.push((connection, job));
    }

    fn perform(&mut self, queue: &mut Queue) {
        for action in queue.take_actions() {
            match action {
                Action::Open {
                    connection,
                    next_hop,
                    job,
                } => {
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
                queue.accept(
                    id(self.accepted),
                    envelope,
                    Bytes::from_static(b"x\r\n"),
                    at(self.now),
                );
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
                if queue.retry(id(*number), at(self.now)).is_some() {
                    let meant = self.due.range_mut((id(*number), 0)..=(id(*number), u32::MAX));
                    meant.for_each(|(_, due)| *due = self.now.min(*due));
                }
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
        prop_assert_eq!(queue.content, 0);
    }
}
