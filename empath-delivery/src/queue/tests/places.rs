//! Destinations that are dead leave places for the others.

use super::{lanes::Run, *};

const FAILED: Fate = Fate::Due(Timestamp::MAX);

/// As many connections at the same time as that.
fn run(max_concurrent: usize) -> Run {
    let mut config = Config { max_concurrent, ..Config::default() };
    config.connection_pool.max_per_server = 1;
    Run::new(&config)
}

/// Messages for so many domains, one each.
fn accept_each(run: &mut Run, name: &str, count: usize) {
    for number in 0..count {
        run.accept(1, &format!("{name}{number}.test"));
    }
}

/// The messages that started since the last call.
fn started(run: &mut Run) -> Vec<u8> {
    std::mem::take(&mut run.started).into_iter().map(|(_, message)| message).collect()
}

/// All that is in flight fails, and what starts instead does not.
fn fail_all(run: &mut Run) {
    for _ in 0..run.flying.len() {
        run.finish(Outcome::Failed, FAILED);
    }
}

#[test]
fn unknown_destinations_leave_a_quarter_of_the_places_to_those_that_deliver() {
    let mut run = run(8);
    accept_each(&mut run, "well", 2);
    run.deliver_all();
    accept_each(&mut run, "silent", 20);
    assert_eq!((run.flying.len(), run.queue.connections()), (6, 8), "beside two idle ones");
    started(&mut run);
    run.accept(1, "well0.test");
    assert_eq!(started(&mut run), [23], "at once");
    run.finish(Outcome::Failed, FAILED);
    assert_eq!(started(&mut run), [9], "the next one that waits");
}

#[test]
fn a_destination_that_delivered_is_known_when_its_connections_have_gone() {
    let mut run = run(8);
    accept_each(&mut run, "well", 1);
    let (connection, job) = run.flying.remove(0);
    let now = run.now();
    settle(&mut run.queue, &job, DELIVERED, now);
    run.queue.report(connection, Outcome::Good, None, now);
    assert!(matches!(run.queue.next(connection, now), Next::Idle));
    assert!(run.queue.leave(connection, now));
    accept_each(&mut run, "silent", 20);
    started(&mut run);
    run.accept(2, "well0.test");
    assert_eq!(started(&mut run), [22]);
    // From now on it is one that fails.
    run.flying.rotate_right(1);
    run.finish(Outcome::Failed, FAILED);
    assert!(!started(&mut run).contains(&23));
    run.accept(1, "well0.test");
    assert!(started(&mut run).is_empty());
}

#[test]
fn destinations_that_failed_leave_places_to_those_that_nobody_has_tried() {
    let mut run = run(8);
    accept_each(&mut run, "silent", 6);
    fail_all(&mut run);
    accept_each(&mut run, "silent", 6);
    assert_eq!(run.flying.len(), 4);
    started(&mut run);
    accept_each(&mut run, "new", 3);
    assert_eq!(started(&mut run), [13, 14]);
    // What has failed makes room for what waits, of its kind or not.
    run.finish(Outcome::Failed, FAILED);
    assert_eq!(started(&mut run), [11]);
    run.flying.rotate_left(3);
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(started(&mut run), [15]);
}

#[test]
fn a_destination_that_fails_has_its_next_message_wait_behind_the_others() {
    let mut run = run(8);
    for number in 0..6 {
        run.accept(2, &format!("silent{number}.test"));
    }
    started(&mut run);
    for _ in 0..6 {
        run.finish(Outcome::Failed, FAILED);
    }
    assert_eq!(started(&mut run), [2, 4, 6, 8], "half of the places are for such");
    run.accept(1, "new.test");
    assert_eq!(started(&mut run), [13]);
}

#[test]
fn those_that_deliver_leave_places_to_the_unknown_when_they_had_their_turn() {
    let mut run = run(4);
    let turn = u8::try_from(TURN).unwrap();
    accept_each(&mut run, "busy", 4);
    run.deliver_all();
    for number in 0..4 {
        run.accept(turn + 5, &format!("busy{number}.test"));
    }
    assert_eq!(run.flying.len(), 4);
    run.accept(1, "new.test");
    let new = run.next;
    started(&mut run);
    for _ in 0..4 * TURN {
        run.finish(Outcome::Good, DELIVERED);
    }
    assert!(started(&mut run).contains(&new));
    run.deliver_all();
    assert!(run.queue.is_empty());
}

#[test]
fn a_destination_alone_has_all_places_once_it_delivers() {
    let mut config = Config { max_concurrent: 4, ..Config::default() };
    config.connection_pool.max_per_server = 10;
    let mut run = Run::new(&config);
    run.accept(20, "one.test");
    for _ in 0..4 {
        run.finish(Outcome::Good, DELIVERED);
    }
    assert_eq!(run.flying.len(), 4);
    run.deliver_all();
    assert!(run.queue.is_empty());
}
