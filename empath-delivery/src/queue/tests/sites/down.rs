//! Domains that share hosts which are down.

use super::*;

#[test]
fn a_domain_that_has_moved_away_from_hosts_that_are_down_does_not_wait_for_them() {
    let mut run = together(&mut one_connection(), &["one.test", "two.test"]);
    run.accept(10, "one.test");
    run.accept(5, "two.test");
    while !run.flying.is_empty() {
        run.finish(Outcome::Failed, Fate::Due(Timestamp::MAX));
    }
    assert_eq!(run.obstacle(16), Obstacle::Breaker { until: Some(at(60)) });
    let before = run.started.len();
    // Its hosts are looked for again, and are the same: it waits with the others.
    run.accept(1, "two.test");
    assert_eq!(run.flying.len(), 1);
    assert!(roll_up(&mut run, 1));
    assert_eq!((run.flying.len(), run.obstacle(17)), (0, Obstacle::Breaker { until: Some(at(60)) }));
    // They are others: it takes along what waits.
    run.accept(1, "two.test");
    assert!(roll_up(&mut run, 2));
    run.deliver_all();
    let mut started = order(&run)[before..].to_vec();
    started.sort_unstable();
    started.dedup();
    assert_eq!(started, [14, 15, 16, 17, 18]);
    assert_eq!(lanes_of(&run, &[11]), ["mx:h1.test"]);
}

/// Two sources with one connection each, and mail for a domain with a host that is down for both.
fn down_from_two_sources() -> Run {
    let mut config = Config { source: Some("all".into()), ..one_connection() };
    let source = |last: u8| Source { ipv4: Some([192, 0, 2, last].into()), ..Source::default() };
    config.sources.insert("all".into(), vec![source(7), source(8)]);
    let mut run = Run::new(&config);
    run.accept(40, "one.test");
    assert_eq!(run.flying.len(), 2, "one from each source");
    assert!(roll_up(&mut run, 1));
    assert_eq!(lanes_of(&run, &[1, 2, 20, 39, 40]), ["mx:h1.test"; 5], "that of each source");
    while let Some((connection, _)) = run.flying.first() {
        if run.queue.lanes.next_hop(*connection).unwrap().to_string() == "mx:one.test" {
            assert!(roll_up(&mut run, 1));
        } else {
            run.finish(Outcome::Failed, FAILED);
        }
    }
    let waits = (1..=40).filter_map(|number| run.queue.obstacle(id(number), 0, at(0)));
    assert!(waits.into_iter().all(|obstacle| obstacle == Obstacle::Breaker { until: Some(at(60)) }));
    run
}

/// All that was not tried yet is delivered.
fn all_is_tried(run: &mut Run) {
    run.deliver_all();
    for number in 1..=run.next {
        let attempts = run.queue.snapshot(id(number)).map(|message| message.recipients[0].1);
        assert_ne!(attempts, Some(0), "message {number} is stranded");
    }
}

#[test]
fn mail_from_every_source_goes_along_to_the_hosts_that_a_domain_has_now() {
    let mut run = down_from_two_sources();
    run.accept(1, "one.test");
    assert_eq!(run.flying.len(), 1, "it looks for the hosts");
    assert!(roll_up(&mut run, 2));
    assert_eq!(run.flying.len(), 2, "the mail of the other source goes too");
    all_is_tried(&mut run);
}

#[test]
fn mail_from_every_source_leaves_hosts_that_a_domain_does_not_have_any_more() {
    let mut run = down_from_two_sources();
    run.now = 60_000;
    run.queue.poll(run.now());
    run.take();
    expel(&mut run, "one.test");
    run.finish(Outcome::Failed, FAILED);
    all_is_tried(&mut run);
}
