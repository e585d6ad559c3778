mod breakers;
mod holds;
mod lanes;
mod model;
mod operator;
mod places;
mod reload;
mod run;
mod scheduled;
mod senders;
mod sites;
mod sources;
mod untold;

use bytes::Bytes;
use empath_common::{ForwardPath, Host, Priority, ReversePath};
use empath_spool::{Ended, RecipientState, Status, Untold};

use super::*;
use crate::{config::Config, schedule};

const EXPIRE_AFTER: Duration = Duration::from_hours(120);
const DELAY_AFTER: Option<Duration> = Some(Duration::from_hours(4));

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn queue(max_concurrent: usize, max_per_server: usize) -> Queue {
    let mut config = Config { max_concurrent, ..Config::default() };
    config.connection_pool.max_per_server = max_per_server;
    configured(&config)
}

fn configured(config: &Config) -> Queue {
    let (routes, limits) = routes_and_limits(config);
    Queue::new(routes, limits)
}

fn routes_and_limits(config: &Config) -> (Routes, Limits) {
    let routes = Routes::new(config, "mx.home.test".parse().unwrap());
    let limits = Limits {
        max_concurrent: config.max_concurrent,
        content_memory: 2000,
        expire_after: EXPIRE_AFTER,
        delay_after: DELAY_AFTER,
        rate: config.rate_limits.global(),
        breaker: config.circuit_breaker,
    };
    (routes, limits)
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
    queue.accept(id(number), envelope(at(0), recipients), &Bytes::from_static(b"x\r\n").into(), at(0));
}

fn restore(
    queue: &mut Queue,
    number: u8,
    envelope: &Arc<Envelope>,
    states: &[RecipientState],
    now: Timestamp,
) -> bool {
    let stored = Stored { envelope: Arc::clone(envelope), recipients: states.to_vec(), size: 7, held: false };
    queue.restore(id(number), &stored, now)
}

/// The jobs of connections that were opened or resumed.
fn jobs(queue: &mut Queue) -> Vec<(ConnectionId, Queued)> {
    let job = |action| match action {
        Action::Open { connection, job, .. } | Action::Resume { connection, job } => Some((connection, job)),
        Action::Close { .. } => None,
    };
    queue.take_actions().into_iter().filter_map(job).collect()
}

fn settle(queue: &mut Queue, job: &Queued, fate: Fate, now: Timestamp) -> bool {
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
    let indexes: Vec<Vec<u32>> =
        started.iter().map(|(_, job)| job.recipients.iter().map(|r| r.index).collect()).collect();
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
    let addresses: Vec<_> = (0..150).map(|n| format!("u{n}@one.test")).collect();
    accept(&mut queue, 1, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let sizes: Vec<_> = jobs(&mut queue).iter().map(|(_, job)| job.recipients.len()).collect();
    assert_eq!(sizes, [100, 50]);
}

#[test]
fn a_retry_starts_at_its_due_time_and_not_before() {
    let mut queue = queue(10, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    queue.poll(at(0));
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    assert!(queue.take_wake(), "the caller sleeps until the expiry and must hear of an earlier time");
    assert!(matches!(queue.next(connection, at(0)), Next::Idle));
    assert_eq!(queue.poll(at(59)), at(60));
    assert!(jobs(&mut queue).is_empty());
    queue.poll(at(60));
    let (again, job) = jobs(&mut queue).remove(0);
    assert_eq!(again, connection);
    assert_eq!(job.recipients, [JobRecipient { index: 0, attempts: 1, due: at(60) }]);
}

#[test]
fn a_message_expires_on_time_and_not_at_its_next_attempt() {
    let mut queue = queue(10, 5);
    let expiry = schedule::after(at(0), EXPIRE_AFTER);
    accept(&mut queue, 1, &["a@one.test", "b@two.test"]);
    let started = jobs(&mut queue);
    settle(&mut queue, &started[0].1, Fate::Due(schedule::after(expiry, Duration::from_hours(1))), at(0));
    assert_eq!(queue.poll(at(0)), expiry);
    queue.poll(expiry);
    let expired = queue.take_expired().unwrap();
    assert_eq!(expired.recipients.iter().map(|r| r.index).collect::<Vec<_>>(), [0]);
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
    assert!(matches!(queue.next(connection, at(0)), Next::Idle), "what has expired is not tried any more");
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
    let ended =
        RecipientState { status: Status::Ended(Ended::Delivered), attempts: 1, ..RecipientState::default() };
    let pending = RecipientState::default();
    let states = [deferred, ended.clone(), pending];
    let envelope = envelope(at(0), &["a@one.test", "b@one.test", "c@one.test"]);
    assert!(restore(&mut queue, 1, &envelope, &states, at(100)));
    let started = jobs(&mut queue);
    assert_eq!(started[0].1.recipients, [JobRecipient { index: 2, attempts: 0, due: at(0) }]);
    assert!(started[0].1.content.is_none());
    let snapshot = queue.snapshot(id(1)).unwrap();
    assert_eq!(snapshot.recipients[0], (RecipientStatus::Deferred, 3, Some(at(500))));
    assert_eq!(snapshot.recipients[1], (RecipientStatus::Completed, 1, None));
    assert_eq!(snapshot.size, 7);
    settle(&mut queue, &started[0].1, DELIVERED, at(100));
    assert_eq!(queue.poll(at(499)), at(500));
    queue.poll(at(500));
    assert_eq!(jobs(&mut queue)[0].1.recipients, [JobRecipient { index: 0, attempts: 3, due: at(500) }]);
    assert!(!restore(&mut queue, 2, &envelope, &[ended.clone(), ended.clone(), ended], at(100)));
    assert_eq!(queue.len(), 1);
}

#[test]
fn a_message_that_was_never_tried_is_tried_once_however_old_it_is() {
    let mut queue = queue(10, 5);
    let late = schedule::after(at(0), 2 * EXPIRE_AFTER);
    restore(&mut queue, 1, &envelope(at(0), &["a@one.test"]), &[RecipientState::default()], late);
    assert!(!queue.has_expired());
    assert_eq!(jobs(&mut queue).len(), 1);
}

#[test]
fn content_stays_in_memory_for_first_attempts_within_the_limit() {
    let mut queue = queue(1, 1);
    let big = &Bytes::from(vec![b'x'; 1000]).into();
    queue.accept(id(1), envelope(at(0), &["a@one.test"]), big, at(0));
    queue.accept(id(2), envelope(at(0), &["a@one.test"]), big, at(0));
    let (connection, first) = jobs(&mut queue).remove(0);
    assert_eq!(first.content.as_ref().map(Bytes::len), Some(1000));
    settle(&mut queue, &first, Fate::Due(at(60)), at(0));
    let Next::Job(second) = queue.next(connection, at(0)) else { panic!() };
    assert!(second.content.is_none(), "there was no room for the second");
    // The first gave its memory back when it was deferred.
    queue.accept(id(3), envelope(at(0), &["a@one.test"]), big, at(0));
    settle(&mut queue, &second, DELIVERED, at(0));
    let Next::Job(third) = queue.next(connection, at(0)) else { panic!() };
    assert!(third.content.is_some());
    settle(&mut queue, &third, DELIVERED, at(0));
    queue.poll(at(60));
    assert!(matches!(queue.next(connection, at(0)), Next::Job(job) if job.content.is_none()));
}

#[tokio::test]
async fn of_large_content_nothing_is_kept_but_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let config = empath_spool::Config { path: directory.path().join("spool"), ..Default::default() };
    let metrics = empath_spool::Metrics::new(&empath_metrics::Registry::default());
    let (spool, _) = empath_spool::open(&config, metrics).unwrap();
    let mut draft = spool.draft(id(1)).await.unwrap();
    draft.write(b"Subject: x\r\n").await.unwrap();
    let content = draft.finish().await.unwrap();
    let mut queue = queue(1, 1);
    queue.accept(id(1), envelope(at(0), &["a@one.test"]), &content, at(0));
    assert!(jobs(&mut queue)[0].1.content.is_none());
    assert_eq!(queue.snapshot(id(1)).unwrap().size, 12);
}

#[test]
fn lanes_take_turns_when_all_connections_are_busy() {
    let mut queue = queue(1, 5);
    let lanes = ["one.test", "two.test", "three.test"];
    for number in 0..60 {
        for (lane, domain) in lanes.iter().enumerate() {
            accept(&mut queue, number + 60 * u8::try_from(lane).unwrap(), &[&format!("u@{domain}")]);
        }
    }
    let mut order: Vec<(&str, u32)> = Vec::new();
    let mut work = jobs(&mut queue);
    while let Some((connection, job)) = work.pop() {
        let domain = lanes[usize::from(job.id.to_bytes()[0] / 60)];
        match order.last_mut() {
            Some((last, count)) if *last == domain => *count += 1,
            _ => order.push((domain, 1)),
        }
        settle(&mut queue, &job, DELIVERED, at(0));
        match queue.next(connection, at(0)) {
            Next::Job(job) => work.push((connection, job)),
            Next::Idle | Next::Close => {}
        }
        work.extend(jobs(&mut queue));
        assert!(queue.connections() <= 1);
    }
    assert!(queue.is_empty());
    let round = lanes.map(|domain| (domain, TURN));
    assert_eq!(order, [round, round, round].concat());
}

#[test]
fn the_urgent_is_served_first_and_bulk_is_served_too() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 0, &["a@one.test"]);
    for number in 1..=80 {
        let mut envelope = Envelope::clone(&envelope(at(0), &["a@one.test"]));
        envelope.priority = if number <= 40 { Priority::Bulk } else { Priority::Critical };
        queue.accept(id(number), Arc::new(envelope), &Bytes::from_static(b"x\r\n").into(), at(0));
    }
    let (connection, mut job) = jobs(&mut queue).remove(0);
    let mut order = Vec::new();
    loop {
        settle(&mut queue, &job, DELIVERED, at(0));
        let Next::Job(next) = queue.next(connection, at(0)) else { break };
        order.push(next.id.to_bytes()[0]);
        job = next;
    }
    let bulk = |order: &[u8]| order.iter().filter(|number| **number <= 40).count();
    assert_eq!((order[0], bulk(&order[..17]), bulk(&order[..34])), (41, 1, 2));
    for class in [1..=40, 41..=80] {
        let served: Vec<_> = order.iter().copied().filter(|number| class.contains(number)).collect();
        assert_eq!(served, class.collect::<Vec<_>>(), "first come first served");
    }
}

#[test]
fn an_idle_connection_makes_room_for_another_destination() {
    let mut queue = queue(1, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    let (idle, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, DELIVERED, at(0));
    assert!(matches!(queue.next(idle, at(0)), Next::Idle));
    accept(&mut queue, 2, &["a@two.test"]);
    let actions = queue.take_actions();
    assert!(
        matches!(&actions[..], [Action::Close { connection }, Action::Open { .. }] if *connection == idle)
    );
    assert!(queue.leave(idle, at(0)), "what was closed may go");
    assert_eq!(queue.connections(), 1);
}

#[test]
fn a_connection_that_leaves_while_it_is_given_a_job_stays() {
    let mut queue = queue(1, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, DELIVERED, at(0));
    queue.next(connection, at(0));
    accept(&mut queue, 2, &["a@one.test"]);
    assert!(!queue.leave(connection, at(0)));
    assert_eq!(jobs(&mut queue)[0].0, connection);
}

#[test]
fn a_name_is_forgotten_with_its_last_message() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test", "b@two.test"]);
    accept(&mut queue, 2, &["a@one.test"]);
    assert_eq!(queue.destinations.len(), 2);
    let claimed = queue.delete(id(2), at(0)).unwrap();
    settle(&mut queue, &claimed, Fate::Ended(Ended::Removed), at(0));
    assert_eq!(queue.destinations.len(), 2);
    let claimed = queue.delete(id(1), at(0)).unwrap();
    settle(&mut queue, &claimed, Fate::Ended(Ended::Removed), at(0));
    let flying = jobs(&mut queue).remove(0).1;
    settle(&mut queue, &flying, DELIVERED, at(0));
    assert!(queue.is_empty());
    assert_eq!(queue.destinations.len(), 0);
}

#[test]
fn nothing_starts_after_stop() {
    let mut queue = queue(5, 5);
    accept(&mut queue, 1, &["a@one.test"]);
    accept(&mut queue, 2, &["a@two.test"]);
    let started = jobs(&mut queue);
    settle(&mut queue, &started[1].1, DELIVERED, at(0));
    queue.next(started[1].0, at(0));
    queue.stop(at(0));
    assert!(matches!(&queue.take_actions()[..], [Action::Close { .. }]));
    accept(&mut queue, 3, &["a@one.test"]);
    settle(&mut queue, &started[0].1, DELIVERED, at(0));
    assert!(matches!(queue.next(started[0].0, at(0)), Next::Close));
    assert!(jobs(&mut queue).is_empty());
    assert_eq!(queue.connections(), 0);
}
