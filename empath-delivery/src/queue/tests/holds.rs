//! Messages and domains that an operator has stopped.

use super::*;

#[test]
fn a_held_message_stands_still_until_it_is_released() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test"]);
    accept(&mut queue, 2, &["a@one.test"]);
    let (connection, flying) = jobs(&mut queue).remove(0);
    assert_eq!((queue.hold(id(1), at(0)), queue.hold(id(2), at(0))), (Some(true), Some(true)));
    assert_eq!((queue.hold(id(2), at(0)), queue.hold(id(3), at(0))), (Some(false), None));
    assert_eq!(queue.snapshot(id(1)).unwrap().status, MessageStatus::InProgress);
    assert_eq!(queue.snapshot(id(2)).unwrap().recipients[0], (RecipientStatus::Held, 0, None));
    settle(&mut queue, &flying, Fate::Due(at(60)), at(0));
    assert!(matches!(queue.next(connection, at(0)), Next::Idle), "what was ready is not any more");
    assert_eq!((queue.count_of(MessageStatus::Held), queue.fresh), (2, 0));
    // Neither due times nor the expiry mean anything, and nobody can hurry it.
    let late = schedule::after(at(0), 2 * EXPIRE_AFTER);
    assert_eq!(queue.poll(late), Timestamp::MAX);
    assert_eq!(queue.retry(id(2), late), Some(0));
    assert!(jobs(&mut queue).is_empty() && !queue.has_expired());
    // It is tried once more, however old it is.
    assert_eq!((queue.release(id(1), late), queue.release(id(1), late)), (Some(true), Some(false)));
    let again = jobs(&mut queue).remove(0).1;
    assert_eq!(again.recipients, [JobRecipient { index: 0, attempts: 1, due: at(60) }]);
    assert!(again.envelope.is_none(), "it is in the spool");
}

#[test]
fn holding_and_releasing_over_and_over_leaves_one_place_in_line() {
    let mut queue = queue(1, 1);
    for number in 1..=3 {
        accept(&mut queue, number, &["a@one.test"]);
    }
    let (connection, mut job) = jobs(&mut queue).remove(0);
    for _ in 0..100 {
        queue.hold(id(2), at(0));
        queue.release(id(2), at(0));
    }
    let mut order = Vec::new();
    loop {
        settle(&mut queue, &job, Fate::Due(at(60)), at(0));
        let Next::Job(next) = queue.next(connection, at(0)) else { break };
        order.push(next.id);
        job = next;
    }
    assert_eq!(order, [id(2), id(3)]);
}

#[test]
fn a_message_held_before_a_restart_is_held_after_it() {
    let mut queue = queue(1, 1);
    let late = schedule::after(at(0), 2 * EXPIRE_AFTER);
    let stored = Stored {
        envelope: envelope(at(0), &["a@one.test", "b@two.test"]),
        recipients: vec![
            RecipientState::default(),
            RecipientState { attempts: 2, ..RecipientState::default() },
        ],
        size: 7,
        held: true,
    };
    assert!(queue.restore(id(1), &stored, late));
    assert!(jobs(&mut queue).is_empty() && !queue.has_expired());
    assert_eq!((queue.is_held(id(1)), queue.count_of(MessageStatus::Held)), (true, 1));
    queue.release(id(1), late);
    assert_eq!(jobs(&mut queue).len(), 1);
}

#[test]
fn nothing_starts_to_a_frozen_domain_and_others_go_on() {
    let mut queue = queue(1, 1);
    let domain = "one.test".parse().unwrap();
    accept(&mut queue, 1, &["a@one.test"]);
    accept(&mut queue, 2, &["a@one.test"]);
    assert!(queue.freeze(&domain, at(0)) && !queue.freeze(&domain, at(0)));
    accept(&mut queue, 3, &["a@one.test", "b@two.test"]);
    let (connection, flying) = jobs(&mut queue).remove(0);
    settle(&mut queue, &flying, Fate::Due(at(60)), at(0));
    // What stood in the lane is not started either; the place goes to the other domain.
    assert!(matches!(queue.next(connection, at(0)), Next::Close));
    let (other, job) = jobs(&mut queue).remove(0);
    assert_eq!((job.id, job.recipients[0].index), (id(3), 1));
    settle(&mut queue, &job, DELIVERED, at(0));
    assert!(matches!(queue.next(other, at(0)), Next::Idle));
    queue.poll(at(60));
    assert!(jobs(&mut queue).is_empty());
    assert_eq!(queue.poll(at(61)), schedule::after(at(0), EXPIRE_AFTER), "there is nothing to do until then");
    assert!(queue.thaw(&domain) && !queue.thaw(&domain));
    for number in 1..=3 {
        queue.thawed(id(number), at(70));
        queue.thawed(id(number), at(70));
    }
    let (connection, mut job) = jobs(&mut queue).remove(0);
    let mut order = vec![job.id];
    loop {
        settle(&mut queue, &job, DELIVERED, at(70));
        let Next::Job(next) = queue.next(connection, at(0)) else { break };
        order.push(next.id);
        job = next;
    }
    assert_eq!(order, [id(1), id(2), id(3)]);
    assert!(queue.is_empty());
}

#[test]
fn mail_for_a_frozen_domain_expires_in_its_time() {
    let mut queue = queue(1, 1);
    queue.freeze(&"one.test".parse().unwrap(), at(0));
    accept(&mut queue, 1, &["a@one.test"]);
    queue.poll(schedule::after(at(0), EXPIRE_AFTER));
    assert_eq!(queue.take_expired().map(|job| job.id), Some(id(1)));
}

#[test]
fn what_was_never_tried_and_is_frozen_expires_after_a_restart_too() {
    let mut queue = queue(1, 1);
    queue.freeze(&"one.test".parse().unwrap(), at(0));
    restore(&mut queue, 1, &envelope(at(0), &["a@one.test"]), &[RecipientState::default()], at(6 * 86_400));
    let due = queue.poll(at(6 * 86_400));
    assert!(queue.take_expired().is_some() || due < Timestamp::MAX, "it stays for ever");
}
