//! Messages that an operator deletes, or wants to go now.

use super::*;

#[test]
fn a_deleted_message_leaves_nothing_behind_but_what_is_in_flight() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test", "b@two.test"]);
    let (connection, flying) = jobs(&mut queue).remove(0);
    let removed = queue.delete(id(1), at(0)).unwrap();
    assert_eq!(removed.recipients.iter().map(|r| r.index).collect::<Vec<_>>(), [1]);
    assert!(!settle(&mut queue, &removed, Fate::Ended(Ended::Removed), at(0)));
    assert!(settle(&mut queue, &flying, Fate::Due(at(60)), at(0)), "it is not tried again");
    assert!(matches!(queue.next(connection, at(0)), Next::Idle | Next::Close));
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
    assert_eq!(snapshot.recipients, [(RecipientStatus::Deferred, 1, Some(at(60)))]);
    assert_eq!(queue.poll(at(1)), at(60));
}

#[test]
fn retry_makes_deferred_recipients_due_at_once() {
    let mut queue = queue(1, 1);
    accept(&mut queue, 1, &["a@one.test"]);
    let (connection, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    queue.next(connection, at(0));
    assert_eq!(queue.retry(id(1), at(1)), Some(1));
    assert_eq!(jobs(&mut queue).len(), 1);
    assert_eq!(queue.retry(id(1), at(1)), Some(0));
    assert_eq!(queue.retry(id(2), at(1)), None);
}
