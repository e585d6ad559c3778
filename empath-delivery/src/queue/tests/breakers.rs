//! Destinations that are down.

use super::{
    run::{FAILED, Run},
    *,
};

/// Fails until the breaker opens.
fn broken() -> Run {
    let mut run = Run::new(&Config::default());
    run.accept(20, "one.test");
    while !run.flying.is_empty() {
        run.finish(Outcome::Failed, FAILED);
    }
    run
}

#[test]
fn a_breaker_opens_and_the_rest_of_the_mail_waits_without_an_attempt() {
    let mut run = broken();
    // One was under way when the fifth failed.
    assert!((5..=6).contains(&run.started.len()), "{:?}", run.started);
    assert_eq!(
        run.events(),
        [format!("one.test Open {{ until: {} }}", at(60))
            .replace(&at(60).to_string(), &format!("{:?}", at(60)))]
    );
    assert_eq!(run.queue.snapshot(id(20)).unwrap().recipients, [(RecipientStatus::Pending, 0, None)]);
    assert_eq!(run.obstacle(20), Obstacle::Breaker { until: Some(at(60)) });
    run.accept(1, "one.test");
    run.accept(1, "two.test");
    assert_eq!(run.flying.len(), 1, "other destinations are not affected");
}

#[test]
fn one_probe_that_gets_through_closes_the_breaker() {
    let mut run = broken();
    run.events();
    let before = run.started.len();
    assert_eq!(run.tick(), 60_000);
    assert_eq!(run.events(), ["one.test HalfOpen"]);
    assert_eq!(run.flying.len(), 2, "the window is small after so many failures");
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(run.events(), ["one.test Closed"]);
    run.deliver_all();
    assert_eq!(run.started.len(), before + (20 - before));
}

#[test]
fn a_probe_that_fails_opens_the_breaker_again() {
    let mut run = broken();
    run.tick();
    run.events();
    run.finish(Outcome::Failed, FAILED);
    assert_eq!(run.flying.len(), 1, "nothing more than what was under way");
    run.finish(Outcome::Failed, FAILED);
    assert!(run.flying.is_empty());
    assert_eq!(run.obstacle(20), Obstacle::Breaker { until: Some(at(120)) });
    // One that says nothing about the destination lets another through.
    run.tick();
    let before = run.started.len();
    run.finish(Outcome::Unknown, FAILED);
    assert_eq!(run.started.len(), before + 1);
}

#[test]
fn messages_that_break_their_connections_open_no_breaker_and_do_not_shrink_the_window() {
    let mut run = Run::new(&Config::default());
    run.accept(40, "one.test");
    (0..6).for_each(|_| run.finish(Outcome::Good, DELIVERED));
    (0..20).for_each(|_| run.finish(Outcome::Interrupted, FAILED));
    assert_eq!((run.events().len(), run.flying.len(), run.started.len()), (0, 5, 31));
}

#[test]
fn a_probe_that_gets_as_far_as_its_message_closes_the_breaker() {
    let mut run = broken();
    run.tick();
    run.events();
    run.finish(Outcome::Interrupted, FAILED);
    assert_eq!(run.events(), ["one.test Closed"]);
    // What began before the breaker opened does not close it.
    let mut run = Run::new(&Config::default());
    run.accept(20, "one.test");
    while run.events().is_empty() {
        run.finish(Outcome::Failed, FAILED);
    }
    assert_eq!(run.flying.len(), 1);
    run.finish(Outcome::Interrupted, FAILED);
    assert_eq!((run.events().len(), run.flying.len()), (0, 0));
}

#[test]
fn an_operator_who_wants_mail_to_go_now_has_the_destination_tried_now() {
    let mut run = broken();
    run.events();
    assert_eq!(run.queue.retry(id(20), at(1)), Some(1), "it goes, though it was due before");
    run.take();
    // That is being tried for this one as well.
    assert_eq!(run.queue.retry(id(19), at(1)), Some(1));
    assert_eq!((run.events(), run.flying.len()), (vec!["one.test HalfOpen".to_owned()], 2));
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(run.queue.retry(id(20), at(1)), Some(0), "nothing kept it");
    run.deliver_all();
    assert!(run.queue.snapshot(id(20)).is_none());
}

#[test]
fn failures_count_in_a_row_also_when_nothing_is_queued_in_between() {
    let mut run = Run::new(&Config::default());
    for _ in 0..5 {
        run.accept(1, "one.test");
        run.finish(Outcome::Failed, FAILED);
    }
    assert_eq!(run.events().len(), 1);
    run.accept(1, "one.test");
    assert!(run.flying.is_empty());
    // Without mail it is forgotten in the end.
    let mut run = Run::new(&Config::default());
    run.accept(1, "one.test");
    run.finish(Outcome::Failed, FAILED);
    let removed = run.queue.delete(id(1), at(0)).unwrap();
    settle(&mut run.queue, &removed, Fate::Ended(Ended::Removed), at(0));
    assert_eq!(run.tick(), 3_600_000);
    assert_eq!(run.queue.poll(run.now()), Timestamp::MAX);
}

#[test]
fn mail_behind_an_open_breaker_expires_on_time() {
    let mut run = broken();
    let expiry = schedule::after(at(0), EXPIRE_AFTER);
    run.now = expiry.as_millisecond();
    run.queue.poll(expiry);
    let mut expired = 0;
    while run.queue.take_expired().is_some() {
        expired += 1;
    }
    assert!(expired >= 19, "all but what is a probe: {expired}");
}

/// As many connections as the destination bears are idle when it goes down for a while; mail comes meanwhile.
fn down_and_up_again() -> Run {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 20;
    let mut run = Run::new(&config);
    run.accept(100, "one.test");
    run.deliver_all();
    assert_eq!((run.queue.connections(), run.queue.idle_connections()), (20, 20));
    run.next = 0;
    for _ in 0..5 {
        run.accept(1, "one.test");
        run.finish(Outcome::Failed, FAILED);
    }
    run.accept(50, "one.test");
    assert!(run.flying.is_empty(), "the breaker is open");
    run.now = 60_000;
    run.queue.poll(run.now());
    run.take();
    assert_eq!(run.flying.len(), 3, "the probes");
    run
}

#[test]
fn mail_that_waited_for_a_breaker_goes_over_connections_that_were_idle_meanwhile() {
    let mut run = down_and_up_again();
    run.deliver_all();
    for _ in 0..1000 {
        run.tick();
        if run.now > 24 * 3_600_000 {
            break;
        }
    }
    let waiting =
        (1..=55).filter(|n| run.queue.snapshot(id(*n)).is_some_and(|m| m.recipients[0].1 == 0)).count();
    assert_eq!(
        waiting,
        0,
        "{:?}, {} idle",
        run.queue.obstacle(id(55), 0, run.now()),
        run.queue.idle_connections()
    );
}

#[test]
fn an_override_applies_to_mail_that_waits_behind_an_open_breaker() {
    let mut run = broken();
    let over = "relay.test:2525".parse().unwrap();
    let domain = "one.test".parse().unwrap();
    run.queue.reroute(&domain, at(1), |routes| routes.set_override(domain.clone(), over)).unwrap();
    for number in 1..=20 {
        run.queue.retry(id(number), at(1));
    }
    let hops: Vec<_> = run
        .queue
        .take_actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::Open { next_hop, .. } => Some(next_hop.to_string()),
            _ => None,
        })
        .collect();
    assert!(!hops.is_empty() && hops.iter().all(|hop| hop == "smtp:relay.test:2525"), "{hops:?}");
    // Nor does the rest go to the host that is dead.
    run.now = 60_000;
    run.queue.poll(run.now());
    let jobs = run.queue.take_actions().into_iter().filter_map(|action| match action {
        Action::Open { next_hop, job, .. } => Some((next_hop.to_string(), job.id.to_bytes()[0])),
        _ => None,
    });
    let elsewhere: Vec<_> = jobs.filter(|(hop, _)| hop != "smtp:relay.test:2525").collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}, and of the last is said {:?}", run.obstacle(20));
}
