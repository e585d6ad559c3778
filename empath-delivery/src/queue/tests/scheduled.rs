//! Messages that their senders want to be sent later.

use empath_common::FutureRelease;

use super::*;

const HOUR: i64 = 3600;

/// A message that was received at 0 and is to be sent an hour later.
fn scheduled(number_of_recipients: usize) -> Arc<Envelope> {
    let addresses: Vec<_> = (0..number_of_recipients).map(|n| format!("u{n}@one.test")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut envelope = Envelope::clone(&envelope(at(0), &addresses));
    envelope.reverse_path = "<a@home.test>".parse().unwrap();
    envelope.future_release = Some(FutureRelease::For(3600));
    Arc::new(envelope)
}

fn with(number: u8, envelope: &Arc<Envelope>) -> Queue {
    let mut queue = queue(10, 5);
    queue.accept(id(number), Arc::clone(envelope), &Bytes::from_static(b"x\r\n").into(), at(0));
    queue
}

fn pending(due: Option<i64>) -> (RecipientStatus, u32, Option<Timestamp>) {
    (RecipientStatus::Pending, 0, due.map(at))
}

#[test]
fn it_starts_at_its_time_and_takes_neither_lane_nor_memory_before() {
    let mut queue = with(1, &scheduled(2));
    assert_eq!(queue.poll(at(0)), at(HOUR));
    assert_eq!(queue.poll(at(HOUR - 1)), at(HOUR));
    assert!(queue.take_actions().is_empty());
    assert_eq!((queue.fresh, queue.connections()), (0, 0));
    assert_eq!(queue.snapshot(id(1)).unwrap().recipients, [pending(Some(HOUR)); 2]);
    assert_eq!(queue.count_of(MessageStatus::Pending), 1);
    queue.poll(at(HOUR));
    let (_, job) = jobs(&mut queue).remove(0);
    assert_eq!((job.recipients.len(), job.ready_at), (2, at(HOUR)));
    assert!(job.recipients.iter().all(|recipient| recipient.due == at(HOUR)));
}

#[test]
fn a_time_between_two_seconds_is_exact() {
    let time: Timestamp = "2026-12-24T18:00:00.25Z".parse().unwrap();
    let received = "2026-11-21T12:00:00.9Z".parse().unwrap();
    let mut envelope = Envelope::clone(&envelope(received, &["a@one.test"]));
    envelope.future_release = Some(FutureRelease::Until(time));
    let mut queue = queue(10, 5);
    queue.accept(id(1), Arc::new(envelope), &Bytes::new().into(), received);
    assert_eq!(queue.poll(received), time);
    let expiry = schedule::after(received, EXPIRE_AFTER);
    queue.poll(time);
    let (_, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(Timestamp::MAX), time);
    // Expiry is as exact as a second.
    let next = queue.poll(time);
    let late = next.duration_since(schedule::after(time, EXPIRE_AFTER));
    assert!(next > expiry && (0..1000).contains(&late.as_millis()), "{late}");
}

#[test]
fn delay_and_expiry_count_from_its_time() {
    let mut queue = with(1, &scheduled(1));
    queue.poll(at(HOUR));
    let (_, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(100 * 24 * HOUR)), at(HOUR));
    assert_eq!(queue.poll(at(HOUR)), at(5 * HOUR));
    assert!(queue.poll(at(5 * HOUR - 1)) == at(5 * HOUR) && !queue.has_expired());
    queue.poll(at(5 * HOUR));
    let late = queue.take_late().unwrap();
    let back = Settlement { index: 0, attempts: 1, fate: Fate::Due(late.recipients[0].due) };
    queue.settle(id(1), &[back], at(5 * HOUR));
    assert_eq!(queue.poll(at(5 * HOUR)), at(121 * HOUR));
    assert!(queue.take_expired().is_none());
    queue.poll(at(121 * HOUR));
    assert_eq!(queue.take_expired().unwrap().recipients.len(), 1);
}

#[test]
fn a_restart_changes_nothing_and_what_came_due_meanwhile_starts_at_once() {
    let envelope = scheduled(1);
    for (now, starts) in [(10, false), (HOUR - 1, false), (HOUR, true), (1000 * HOUR, true)] {
        let mut queue = queue(10, 5);
        assert!(restore(&mut queue, 1, &envelope, &[RecipientState::default()], at(now)));
        assert_eq!(jobs(&mut queue).len(), usize::from(starts), "{now}");
        if !starts {
            assert_eq!(queue.poll(at(now)), at(HOUR));
            assert_eq!(queue.snapshot(id(1)).unwrap().recipients, [pending(Some(HOUR))]);
        }
    }
}

#[test]
fn a_hold_lasts_beyond_its_time_and_a_release_before_it_changes_nothing() {
    let held = [(RecipientStatus::Held, 0, None)];
    let mut queue = with(1, &scheduled(1));
    assert_eq!(queue.hold(id(1), at(10)), Some(true));
    assert_eq!(
        (queue.poll(at(10)), queue.snapshot(id(1)).unwrap().recipients),
        (Timestamp::MAX, held.to_vec())
    );
    assert_eq!(queue.release(id(1), at(20)), Some(true));
    assert_eq!(queue.snapshot(id(1)).unwrap().recipients, [pending(Some(HOUR))]);
    assert_eq!((queue.poll(at(20)), jobs(&mut queue).len()), (at(HOUR), 0));
    queue.hold(id(1), at(30));
    queue.poll(at(2 * HOUR));
    assert_eq!(jobs(&mut queue).len(), 0);
    // While it is held nobody hurries it either.
    queue.unschedule(id(1), at(2 * HOUR));
    assert_eq!(queue.retry(id(1), at(2 * HOUR)), Some(0));
    queue.release(id(1), at(3 * HOUR));
    assert_eq!(jobs(&mut queue).len(), 1);
}

#[test]
fn a_retry_leaves_it_alone_unless_it_is_meant() {
    let mut queue = with(1, &scheduled(1));
    assert_eq!(queue.retry(id(1), at(10)), Some(0));
    assert_eq!(queue.snapshot(id(1)).unwrap().recipients, [pending(Some(HOUR))]);
    queue.unschedule(id(1), at(10));
    assert_eq!(queue.retry(id(1), at(10)), Some(1));
    let (_, job) = jobs(&mut queue).remove(0);
    assert!(settle(&mut queue, &job, DELIVERED, at(11)));
    assert_eq!(queue.poll(at(11)), Timestamp::MAX);
}

#[test]
fn delay_and_expiry_count_from_when_it_is_sent_early_also_after_a_restart() {
    let envelope = scheduled(2);
    let mut queue = with(1, &envelope);
    queue.unschedule(id(1), at(10));
    assert_eq!(queue.retry(id(1), at(10)), Some(2));
    let (_, job) = jobs(&mut queue).remove(0);
    assert_eq!(job.released_at, at(10));
    settle(&mut queue, &job, Fate::Due(at(100 * 24 * HOUR)), at(11));
    assert_eq!(queue.poll(at(11)), at(4 * HOUR + 10));

    let attempt = empath_spool::Attempt {
        at: at(11),
        next_hop: String::new(),
        host: None,
        reply: None,
        status: empath_common::EnhancedStatus::new(4, 0, 0),
        detail: String::new(),
    };
    let tried = RecipientState {
        status: Status::Deferred,
        attempts: 1,
        next_attempt_at: Some(at(100 * 24 * HOUR)),
        told_of_delay: true,
        history: vec![attempt],
        ..RecipientState::default()
    };
    let untried = RecipientState::default();
    let mut queue = self::queue(10, 5);
    assert!(restore(&mut queue, 1, &envelope, &[tried, untried], at(20)));
    let (_, job) = jobs(&mut queue).remove(0);
    assert_eq!(
        (job.released_at, job.recipients[0].index),
        (at(11), 1),
        "the other one was sent early as well"
    );
    settle(&mut queue, &job, DELIVERED, at(20));
    assert_eq!(queue.poll(at(20)), at(120 * HOUR + 11));
}

#[test]
fn it_can_be_deleted_and_stays_what_it_was_if_that_fails() {
    let mut queue = with(1, &scheduled(1));
    let job = queue.delete(id(1), at(10)).unwrap();
    queue.undelete(id(1));
    let back = Settlement { index: 0, attempts: 0, fate: Fate::Due(job.recipients[0].due) };
    assert!(!queue.settle(id(1), &[back], at(10)));
    assert_eq!(queue.snapshot(id(1)).unwrap().recipients, [pending(Some(HOUR))]);
    assert_eq!((queue.poll(at(10)), jobs(&mut queue).len()), (at(HOUR), 0));
    let job = queue.delete(id(1), at(10)).unwrap();
    assert_eq!(job.recipients.len(), 1);
    assert!(settle(&mut queue, &job, Fate::Ended(Ended::Removed), at(10)));
    assert_eq!(queue.poll(at(10)), Timestamp::MAX);
}

#[test]
fn a_frozen_domain_keeps_it_beyond_its_time() {
    let mut queue = with(1, &scheduled(1));
    let domain = "one.test".parse().unwrap();
    queue.freeze(&domain, at(0));
    queue.poll(at(2 * HOUR));
    assert_eq!((jobs(&mut queue).len(), queue.obstacle(id(1), 0, at(2 * HOUR))), (0, Some(Obstacle::Frozen)));
    queue.thaw(&domain);
    queue.thawed(id(1), at(2 * HOUR));
    assert_eq!(jobs(&mut queue).len(), 1);
}
