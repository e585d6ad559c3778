//! Destinations that are dead leave places for the others.

use std::path::Path;

use proptest::prelude::*;

use super::{
    run::{FAILED, Run},
    *,
};
use crate::{queue::away::MAX_AWAY, route::NextHop};

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
fn a_destination_that_delivered_and_falls_silent_over_its_messages_does_not_have_every_place_again() {
    let mut run = run(8);
    accept_each(&mut run, "well", 1);
    run.accept(2, "well0.test");
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(run.queue.lanes.places.held(), [1, 0, 0]);
    run.finish(Outcome::Interrupted, FAILED);
    assert_eq!(run.queue.lanes.places.held(), [0, 1, 0]);
    run.finish(Outcome::Good, DELIVERED);
    run.accept(1, "well0.test");
    assert_eq!(run.queue.lanes.places.held(), [1, 0, 0], "it delivers again");
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

#[test]
fn what_was_tried_before_leaves_places_to_the_new_after_a_restart_too() {
    let mut run = run(8);
    let tried = RecipientState { status: Status::Deferred, attempts: 1, ..RecipientState::default() };
    for number in 1..=10 {
        let to = envelope(at(0), &[&format!("u@silent{number}.test")]);
        restore(&mut run.queue, number, &to, std::slice::from_ref(&tried), at(0));
    }
    run.queue.poll(at(0));
    run.take();
    assert_eq!(run.flying.len(), 4);
    run.next = 10;
    started(&mut run);
    accept_each(&mut run, "new", 3);
    assert_eq!(started(&mut run), [11, 12]);
    assert!(run.queue.is_pressed(), "the third one");
    run.flying.rotate_left(4);
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(started(&mut run), [13]);
    assert!(!run.queue.is_pressed(), "those that failed hurry nobody");
}

/// The places of all connections that are busy.
fn held(run: &Run) -> [usize; 3] {
    run.queue.lanes.places.held()
}

#[test]
fn who_waits_for_name_servers_gives_way_and_fails_without_a_place() {
    let mut run = run(8);
    accept_each(&mut run, "silent", 20);
    accept_each(&mut run, "new", 1);
    for number in 0..20 {
        assert!(run.give_way(number));
    }
    assert_eq!(started(&mut run), (1..=21).collect::<Vec<_>>(), "each once");
    assert_eq!((run.queue.connections(), held(&run), run.queue.is_pressed()), (1, [0, 1, 0], false));
    for _ in 0..20 {
        run.finish(Outcome::Failed, FAILED);
    }
    assert_eq!((run.queue.connections(), held(&run)), (1, [0, 1, 0]));
    run.deliver_all();
    assert_eq!((run.queue.connections(), run.queue.lanes.away), (1, 0), "an idle one");
}

#[test]
fn who_has_found_hosts_and_finds_no_place_is_before_those_who_had_no_turn() {
    for rolled_up in [false, true] {
        let mut run = run(8);
        accept_each(&mut run, "slow", 2);
        accept_each(&mut run, "dead", 20);
        assert!(run.give_way(0) && run.give_way(1));
        assert_eq!(started(&mut run), (1..=8).collect::<Vec<_>>());
        for number in 0..2 {
            if rolled_up {
                let (connection, job) = run.flying.remove(0);
                let site = sites::site(number);
                assert!(run.queue.roll_up(connection, job.id, &job.recipients, site, run.now()));
            } else {
                assert_eq!(run.come_back(0), Some(false));
            }
        }
        run.take();
        assert_eq!((started(&mut run), run.queue.lanes.away), (vec![], 0));
        for expected in [1, 2, 9, 10] {
            run.finish(Outcome::Failed, FAILED);
            assert_eq!(started(&mut run), [expected]);
        }
        assert_eq!(held(&run), [0, 6, 0]);
    }
}

#[test]
fn who_loses_its_place_again_and_again_keeps_it_in_the_end() {
    let mut run = run(8);
    accept_each(&mut run, "slow", 1);
    accept_each(&mut run, "dead", 20);
    let mut times = 0;
    while run.give_way(0) {
        assert_eq!(run.come_back(0), Some(false));
        run.finish(Outcome::Failed, FAILED);
        run.flying.rotate_right(1);
        assert_eq!(run.flying[0].1.id, id(1));
        times += 1;
        assert!(times < 10, "this never ends");
    }
    assert_eq!((times, held(&run)), (6, [0, 6, 0]));
    assert_eq!(run.flying[0].1.recipients[0].attempts, 0);
}

#[test]
fn there_is_a_bound_on_those_who_have_given_way() {
    let mut queue = run(1).queue;
    let mut busy = Vec::new();
    for number in 0..=MAX_AWAY {
        let id = MessageId::from_bytes((number as u128).to_be_bytes());
        let envelope = envelope(at(0), &[&format!("u@silent{number}.test")]);
        queue.accept(id, envelope, &Bytes::from_static(b"x\r\n").into(), at(0));
        let (connection, job) = jobs(&mut queue).remove(0);
        let goes = queue.give_way(connection, job.id, &job.recipients, at(0));
        assert_eq!(goes, number < MAX_AWAY, "{number}");
        busy.push((connection, job));
    }
    assert_eq!((queue.connections(), queue.lanes.places.held()), (1, [0, 1, 0]), "the last keeps its place");
    let (connection, job) = busy.remove(0);
    settle(&mut queue, &job, FAILED, at(0));
    assert!(matches!(queue.next(connection, at(0)), Next::Close));
    let (connection, job) = busy.remove(MAX_AWAY - 1);
    assert!(queue.give_way(connection, job.id, &job.recipients, at(0)), "there is room again");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Accept(u8),
    Finish(usize, Outcome),
    /// It waits for name servers.
    GiveWay(usize),
    /// It has its answer, and needs its place.
    ComeBack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Good), Just(Outcome::Failed), Just(Outcome::Unknown)];
    prop_oneof![
        (0..20_u8).prop_map(Step::Accept),
        (0..20_usize, outcome).prop_map(|(n, outcome)| Step::Finish(n, outcome)),
        (0..20_usize).prop_map(Step::GiveWay),
        (0..20_usize).prop_map(Step::ComeBack),
    ]
}

proptest! {
    #[test]
    fn nobody_waits_for_a_place_that_is_free_and_the_dead_have_their_part_alone(
        steps in prop::collection::vec(step(), 1..250), max in 1..12_usize
    ) {
        let mut config = Config { max_concurrent: max, ..Config::default() };
        config.connection_pool.max_per_server = 2;
        let mut run = Run::new(&config);
        for step in steps {
            match step {
                Step::Accept(domain) => run.accept(1, &format!("d{domain}.test")),
                Step::Finish(n, _) | Step::GiveWay(n) | Step::ComeBack(n) if n >= run.flying.len() => {}
                Step::Finish(n, outcome) => {
                    run.flying.rotate_left(n);
                    run.finish(outcome, if outcome == Outcome::Good { DELIVERED } else { FAILED });
                }
                Step::GiveWay(n) => drop(run.give_way(n)),
                Step::ComeBack(n) => drop(run.come_back(n)),
            }
            let (lanes, queue) = (&run.queue.lanes, &run.queue);
            let [proven, new, failing] = lanes.places.held();
            prop_assert_eq!(proven + new + failing, queue.connections() - queue.idle_connections());
            prop_assert!(new + failing <= max - max / 4 && failing <= max.div_ceil(2));
            let nobody = NextHop::Maildir(Path::new("/").into());
            let free = queue.connections() < max || queue.idle_connections() > 0;
            prop_assert!(!free || !lanes.places.is_wanted_by_others(&nobody, max), "somebody waits");
        }
    }
}
