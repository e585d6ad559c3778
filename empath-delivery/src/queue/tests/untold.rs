//! Ends of which the sender is to be told.

use super::*;

const BOUNCED: Fate = Fate::Untold(Ended::Bounced);
const SOON: i64 = TELL_WITHIN.as_secs().cast_signed();

/// Whom somebody is to tell the sender of.
fn told(queue: &mut Queue, now: i64) -> Option<(Queued, Vec<u32>)> {
    queue.poll(at(now));
    let job = queue.take_untold()?;
    let recipients = job.recipients.iter().map(|recipient| recipient.index).collect();
    Some((job, recipients))
}

/// A message to three next hops, whose jobs are in flight.
fn three() -> (Queue, Vec<Queued>) {
    let mut queue = queue(10, 5);
    accept(&mut queue, 1, &["a@one.test", "b@two.test", "c@three.test"]);
    let mut started: Vec<_> = jobs(&mut queue).into_iter().map(|(_, job)| job).collect();
    started.sort_by_key(|job| job.recipients[0].index);
    (queue, started)
}

#[test]
fn with_one_next_hop_there_is_nothing_to_wait_for() {
    let mut queue = queue(10, 5);
    accept(&mut queue, 1, &["a@one.test", "b@one.test"]);
    jobs(&mut queue);
    assert!(queue.is_all_news(id(1), 2) && queue.is_all_news(id(2), 1));
}

#[test]
fn ends_are_told_together_when_the_last_in_flight_has_come_down() {
    let (mut queue, started) = three();
    assert!(!queue.is_all_news(id(1), 1));
    assert!(!settle(&mut queue, &started[2], BOUNCED, at(1)));
    assert!(!settle(&mut queue, &started[0], BOUNCED, at(2)));
    assert!(told(&mut queue, 2).is_none());
    // What waits for a later attempt is not waited for.
    assert!(!settle(&mut queue, &started[1], Fate::Due(at(500)), at(3)));
    assert!(queue.take_wake());
    let (job, recipients) = told(&mut queue, 3).unwrap();
    assert_eq!(recipients, [0, 2]);
    assert!(!queue.is_all_news(id(1), 1), "it is being told");
    assert!(!settle(&mut queue, &job, DELIVERED, at(3)));
    let ends = queue.snapshot(id(1)).unwrap().recipients;
    assert_eq!([ends[0].0, ends[2].0], [RecipientStatus::Failed; 2], "they stay what they are");
    assert_eq!(queue.poll(at(3)), at(500));
    assert!(told(&mut queue, 499).is_none(), "once");
}

#[test]
fn a_message_is_in_progress_if_a_recipient_is_or_only_its_sender_is_to_be_told() {
    let (mut queue, started) = three();
    let status = |queue: &Queue| queue.snapshot(id(1)).unwrap().status;
    settle(&mut queue, &started[0], BOUNCED, at(1));
    assert_eq!(status(&queue), MessageStatus::InProgress);
    settle(&mut queue, &started[2], DELIVERED, at(1));
    settle(&mut queue, &started[1], Fate::Due(at(500)), at(1));
    assert_eq!(status(&queue), MessageStatus::Deferred);
    let (job, _) = told(&mut queue, 1).unwrap();
    assert_eq!(status(&queue), MessageStatus::Deferred, "while the sender is told");
    queue.hold(id(1), at(1));
    assert_eq!(status(&queue), MessageStatus::Held);
    settle(&mut queue, &job, DELIVERED, at(1));
    let (mut queue, started) = three();
    for job in &started {
        assert!(!settle(&mut queue, job, BOUNCED, at(1)));
    }
    assert_eq!(status(&queue), MessageStatus::InProgress, "nothing else is left");
    assert_eq!(queue.count_of(MessageStatus::InProgress), 1);
}

#[test]
fn nobody_waits_longer_than_that_for_a_host_that_takes_its_time() {
    let (mut queue, started) = three();
    settle(&mut queue, &started[0], BOUNCED, at(10));
    settle(&mut queue, &started[1], BOUNCED, at(20));
    assert_eq!(queue.poll(at(20)), at(10 + SOON));
    assert!(told(&mut queue, 9 + SOON).is_none());
    let (job, recipients) = told(&mut queue, 10 + SOON).unwrap();
    assert_eq!(recipients, [0, 1]);
    // The third ends while the sender is told of the others: of that he is told when he has been.
    settle(&mut queue, &started[2], BOUNCED, at(11 + SOON));
    assert!(told(&mut queue, 11 + SOON).is_none());
    assert!(!settle(&mut queue, &job, DELIVERED, at(12 + SOON)));
    let (job, recipients) = told(&mut queue, 12 + SOON).unwrap();
    assert_eq!(recipients, [2]);
    assert!(settle(&mut queue, &job, DELIVERED, at(13 + SOON)));
    assert_eq!((queue.len(), queue.poll(at(13 + SOON))), (0, Timestamp::MAX));
}

#[test]
fn what_could_not_be_told_is_told_later_and_not_at_once() {
    let (mut queue, started) = three();
    for job in &started {
        settle(&mut queue, job, BOUNCED, at(1));
    }
    let (job, _) = told(&mut queue, 1).unwrap();
    assert!(!settle(&mut queue, &job, Fate::Due(at(100)), at(2)));
    assert_eq!(queue.poll(at(99)), at(100));
    let (job, recipients) = told(&mut queue, 100).unwrap();
    assert_eq!(recipients, [0, 1, 2]);
    assert!(settle(&mut queue, &job, DELIVERED, at(100)));
}

#[test]
fn what_was_not_told_before_a_restart_is_told_at_once_also_of_a_held_message() {
    for held in [false, true] {
        let mut queue = queue(10, 5);
        let ended = RecipientState {
            status: Status::Ended(Ended::Bounced),
            untold: Some(Untold::Failed),
            ..RecipientState::default()
        };
        let recipients = vec![ended, RecipientState::default()];
        let envelope = envelope(at(0), &["a@one.test", "b@two.test"]);
        let stored = Stored { envelope, recipients, size: 3, held };
        assert!(queue.restore(id(1), &stored, at(5)));
        assert_eq!(told(&mut queue, 5).unwrap().1, [0], "held: {held}");
        assert_eq!(jobs(&mut queue).is_empty(), held);
    }
}

#[test]
fn of_a_message_that_is_removed_nobody_is_told() {
    let (mut queue, started) = three();
    settle(&mut queue, &started[0], BOUNCED, at(1));
    assert_eq!(queue.delete(id(1), at(2)).unwrap().recipients, []);
    assert_eq!(queue.untold(id(1)).len(), 1);
    settle(&mut queue, &started[1], BOUNCED, at(3));
    assert!(told(&mut queue, 2 * SOON).is_none());
    // That was not durable: the message stays after all.
    queue.undelete(id(1));
    settle(&mut queue, &started[2], Fate::Due(at(500)), at(4));
    assert_eq!(told(&mut queue, 4).unwrap().1, [0]);
}
