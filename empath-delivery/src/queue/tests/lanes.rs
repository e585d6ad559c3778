//! Rate limits and windows as the queue applies them.

use std::collections::BTreeSet;

use super::{
    run::{FAILED, Run, domain, limited},
    *,
};
use crate::config::DomainConfig;

#[test]
fn limited_mail_starts_when_its_token_is_there_and_costs_nothing_before() {
    let mut config = Config::default();
    domain(&mut config, "one.test", limited(60, 2));
    let mut run = Run::new(&config);
    run.accept(5, "one.test");
    run.deliver_all();
    assert_eq!(run.started, [(0, 1), (0, 2)]);
    assert_eq!(run.obstacle(3), Obstacle::Rate { until: at(1), common: false });
    assert_eq!((run.queue.connections(), run.queue.idle_connections()), (2, 2), "none is held busy");
    assert_eq!(run.queue.snapshot(id(3)).unwrap().recipients, [(RecipientStatus::Pending, 0, None)]);
    while !run.queue.is_empty() {
        run.tick();
        run.deliver_all();
    }
    assert_eq!(run.started[2..], [(1000, 3), (2000, 4), (3000, 5)]);
    assert_eq!(run.events(), ["limited one.test"; 3]);
}

#[test]
fn a_limit_is_the_domains_own_also_where_domains_share_a_next_hop() {
    let mut config = Config::default();
    let over =
        |limit: DomainConfig| DomainConfig { mx_override: Some("relay.test".parse().unwrap()), ..limit };
    domain(&mut config, "*.slow.test", over(limited(1, 1)));
    domain(&mut config, "*", over(DomainConfig::default()));
    let mut run = Run::new(&config);
    run.accept(3, "a.slow.test");
    run.accept(2, "b.slow.test");
    run.accept(10, "fast.test");
    run.deliver_all();
    let mut started: Vec<_> = run.started.iter().map(|(_, number)| *number).collect();
    started.sort_unstable();
    assert_eq!(started, [1, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    // One message to both goes as two.
    let both = envelope(run.now(), &["u@a.slow.test", "u@fast.test"]);
    run.queue.accept(id(99), both, &Bytes::from_static(b"x\r\n").into(), run.now());
    assert_eq!(jobs(&mut run.queue)[0].1.recipients.iter().map(|r| r.index).collect::<Vec<_>>(), [1]);
}

#[test]
fn mail_that_went_or_was_removed_leaves_no_timer_that_does_anything() {
    let mut config = Config::default();
    domain(&mut config, "one.test", limited(60, 1));
    let mut run = Run::new(&config);
    run.accept(2, "one.test");
    run.deliver_all();
    let removed = run.queue.delete(id(2), at(0)).unwrap();
    settle(&mut run.queue, &removed, Fate::Ended(Ended::Removed), at(0));
    assert_eq!(run.tick(), 1000);
    assert_eq!(run.queue.poll(run.now()), Timestamp::MAX);
    run.accept(1, "one.test");
    assert_eq!(run.started.len(), 2, "the token of what was removed is still there");
}

#[test]
fn under_the_common_limit_lanes_take_turns() {
    let mut config = Config::default();
    config.rate_limits.global_per_second = Some(10);
    let mut run = Run::new(&config);
    run.accept(60, "one.test");
    for domain in ["two.test", "three.test"] {
        run.accept(5, domain);
    }
    run.deliver_all();
    assert_eq!(run.started.len(), 10, "the burst");
    while run.started.len() < 25 {
        run.tick();
    }
    run.deliver_all();
    let lane = |number: u8| match number {
        1..=60 => 1,
        61..=65 => 2,
        _ => 3,
    };
    let later: Vec<_> = run.started[10..25].iter().map(|(at, number)| (*at, lane(*number))).collect();
    for (number, (moment, _)) in (1..).zip(&later) {
        assert_eq!(*moment, number * 100);
    }
    for turns in later[..9].chunks(3) {
        let lanes: BTreeSet<_> = turns.iter().map(|(_, lane)| *lane).collect();
        assert_eq!(lanes.len(), 3, "{later:?}");
    }
}

#[test]
fn a_token_that_comes_while_a_lane_is_busy_is_not_lost() {
    let mut config = Config::default();
    config.rate_limits.global_per_second = Some(10);
    config.connection_pool.max_per_server = 1;
    let mut run = Run::new(&config);
    run.accept(15, "one.test");
    run.now = 10_000;
    run.queue.poll(run.now());
    run.deliver_all();
    assert_eq!(run.started.len(), 11, "the first, and a full bucket after ten seconds");
}

#[test]
fn a_lane_grows_while_there_is_more_to_do() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 8;
    let mut run = Run::new(&config);
    run.accept(100, "one.test");
    assert_eq!(run.flying.len(), 2);
    for expected in [3, 4, 5, 6, 7, 8, 8, 8] {
        run.finish(Outcome::Good, DELIVERED);
        assert_eq!(run.flying.len(), expected);
    }
    assert_eq!(run.obstacle(100), Obstacle::Busy { connections: 8, allowed: 8, ready: 84 });
}

#[test]
fn a_destination_that_takes_five_connections_costs_next_to_no_attempt() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 20;
    let mut run = Run::new(&config);
    let (mut refused, mut deferred, mut delivered) = (0, 0, 0);
    for _ in 0..10 {
        run.next = 0;
        run.accept(200, "one.test");
        while !run.flying.is_empty() {
            if run.flying.len() > 5 {
                let (connection, job) = run.flying.pop().unwrap();
                refused += 1;
                if !run.queue.put_back(connection, job.id, &job.recipients, run.now()) {
                    deferred += 1;
                }
                run.take();
            } else {
                delivered += 1;
                run.finish(Outcome::Good, DELIVERED);
            }
        }
        assert!(run.queue.is_empty());
    }
    assert_eq!((delivered, deferred), (2000, 0));
    assert!(refused > 0 && refused < 60, "{refused}");
}

#[test]
fn who_is_turned_away_alone_is_deferred() {
    let mut run = Run::new(&Config::default());
    run.accept(3, "one.test");
    let (second, job) = run.flying.pop().unwrap();
    assert!(run.queue.put_back(second, job.id, &job.recipients, at(0)));
    run.take();
    assert_eq!((run.flying.len(), run.queue.connections()), (1, 1), "it waits for the one that there is");
    let (first, job) = run.flying.pop().unwrap();
    assert!(!run.queue.put_back(first, job.id, &job.recipients, at(0)), "nobody else could take it");
    run.flying.push((first, job));
    run.finish(Outcome::TurnedAway, FAILED);
    assert_eq!(run.flying.len(), 1);
    run.deliver_all();
    assert_eq!(run.queue.len(), 1, "but the one that was deferred");
}

#[test]
fn what_is_removed_while_it_is_turned_away_is_not_put_back() {
    let mut run = Run::new(&Config::default());
    run.accept(2, "one.test");
    run.queue.delete(id(2), at(0));
    let (second, job) = run.flying.pop().unwrap();
    assert!(!run.queue.put_back(second, job.id, &job.recipients, at(0)));
}

#[test]
fn news_of_a_delay_does_not_undo_a_retry_that_waits() {
    let mut run = Run::new(&Config::default());
    for _ in 0..2 {
        run.accept(1, "one.test");
    }
    // Both connections are busy for long, a third message is deferred and wanted now.
    let mut envelope = Envelope::clone(&envelope(at(0), &["u@one.test"]));
    envelope.reverse_path = "<a@home.test>".parse().unwrap();
    let state = RecipientState {
        status: Status::Deferred,
        attempts: 3,
        next_attempt_at: Some(at(100_000)),
        ..RecipientState::default()
    };
    restore(&mut run.queue, 50, &Arc::new(envelope), &[state], at(0));
    run.queue.retry(id(50), at(10));
    run.now = 4 * 3_600_000;
    run.queue.poll(run.now());
    let late = run.queue.take_late().unwrap();
    let recipient = late.recipients[0];
    run.queue.settle(
        late.id,
        &[Settlement { index: 0, attempts: 3, fate: Fate::Due(recipient.due) }],
        run.now(),
    );
    run.queue.poll(run.now());
    run.take();
    run.deliver_all();
    assert!(
        run.queue.snapshot(id(50)).is_none(),
        "an operator wanted it to go: {:?}",
        run.queue.snapshot(id(50)).unwrap().recipients
    );
}
