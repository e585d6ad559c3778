//! Domains that share a lane because they have the same hosts.

mod down;

use super::{
    run::{FAILED, Run, domain, limited},
    *,
};
use crate::{
    config::{DomainConfig, Source},
    resolve::MxHost,
    route::NextHop,
    site::Site,
};

/// One that has a single host.
pub(super) fn site(number: u8) -> Site {
    Site::of(vec![MxHost { preference: 10, name: format!("h{number}.test").parse().unwrap() }])
}

/// The hosts of the domain of the oldest job in flight are found.
fn roll_up(run: &mut Run, number: u8) -> bool {
    let (connection, job) = run.flying.remove(0);
    let moved = run.queue.roll_up(connection, job.id, &job.recipients, site(number), run.now());
    if !moved {
        run.flying.insert(0, (connection, job));
    }
    run.queue.poll(run.now());
    run.take();
    moved
}

/// The domain of the oldest job in flight is found to have other hosts.
fn expel(run: &mut Run, name: &str) {
    let (connection, job) = run.flying.remove(0);
    assert!(run.queue.expel(connection, job.id, &job.recipients, &name.parse().unwrap(), run.now()));
    run.queue.refund(connection, run.now());
    run.queue.report(connection, Outcome::Unknown, None, run.now());
    match run.queue.next(connection, run.now()) {
        Next::Job(job) => run.took(connection, job),
        Next::Idle => drop(run.queue.leave(connection, run.now())),
        Next::Close => {}
    }
    run.queue.poll(run.now());
    run.take();
}

/// A queue that knows of these domains that they have the same hosts, with one connection to them busy with message 1.
fn together(config: &mut Config, names: &[&str]) -> Run {
    let mut run = Run::new(config);
    for name in names {
        run.accept(1, name);
        assert!(roll_up(&mut run, 1));
        run.deliver_all();
    }
    (run.next, run.started) = (0, Vec::new());
    run.accept(1, names[0]);
    run
}

fn lanes_of(run: &Run, numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| run.queue.lane(id(*number), 0).unwrap().to_string()).collect()
}

fn order(run: &Run) -> Vec<u8> {
    run.started.iter().map(|(_, number)| *number).collect()
}

fn one_connection() -> Config {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 1;
    config
}

#[test]
fn domains_with_the_same_hosts_share_connections_and_their_limit() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 2;
    let mut run = Run::new(&config);
    for name in ["one.test", "two.test", "three.test"] {
        run.accept(1, name);
    }
    assert_eq!(run.queue.connections(), 3, "their hosts are not known yet");
    (0..3).for_each(|_| assert!(roll_up(&mut run, 1)));
    assert_eq!((run.queue.connections(), run.flying.len()), (2, 2));
    assert_eq!(lanes_of(&run, &[1, 2, 3]), ["mx:h1.test"; 3]);
    assert_eq!(run.obstacle(3), Obstacle::Busy { connections: 2, allowed: 2, ready: 1 });
    assert_eq!(run.queue.snapshot(id(3)).unwrap().recipients, [(RecipientStatus::Pending, 0, None)]);
    run.deliver_all();
    // What comes later goes there at once, and in one transaction if it is one message.
    let both = envelope(at(0), &["a@two.test", "b@three.test"]);
    run.queue.accept(id(9), both, &Bytes::from_static(b"x\r\n").into(), at(0));
    let started = jobs(&mut run.queue);
    assert_eq!((started.len(), started[0].1.recipients.len()), (1, 2));
    assert_eq!(run.queue.connections(), 2);
}

#[test]
fn what_is_ready_for_a_domain_goes_along_and_in_its_order() {
    let mut run = Run::new(&one_connection());
    run.accept(5, "one.test");
    assert!(roll_up(&mut run, 1));
    assert_eq!((run.queue.connections(), lanes_of(&run, &[1, 5])), (1, vec!["mx:h1.test".to_owned(); 2]));
    run.deliver_all();
    assert_eq!(order(&run), [1, 1, 2, 3, 4, 5], "the first once to find its hosts");
    // And back, when it has other hosts.
    run.accept(4, "one.test");
    expel(&mut run, "one.test");
    assert_eq!(lanes_of(&run, &[6, 9]), ["mx:one.test"; 2]);
    run.deliver_all();
    assert_eq!(order(&run)[6..], [6, 6, 7, 8, 9]);
    assert!(run.queue.is_empty());
}

#[test]
fn a_message_for_two_domains_is_parted_when_one_of_them_leaves_their_lane() {
    let mut run = together(&mut one_connection(), &["one.test", "two.test"]);
    // It stands in the line of its last recipient's domain. In the other's it would be parted when its turn comes.
    let both = envelope(at(0), &["b@two.test", "a@one.test"]);
    run.queue.accept(id(2), both, &Bytes::from_static(b"x\r\n").into(), at(0));
    assert_eq!(run.obstacle(2), Obstacle::Busy { connections: 1, allowed: 1, ready: 1 }, "one job for both");
    expel(&mut run, "one.test");
    let mut taken = Vec::new();
    while let Some((connection, job)) = run.flying.first() {
        if job.id == id(2) {
            let indexes: Vec<_> = job.recipients.iter().map(|recipient| recipient.index).collect();
            taken.push((run.queue.lanes.next_hop(*connection).unwrap().to_string(), indexes));
        }
        run.finish(Outcome::Good, DELIVERED);
    }
    taken.sort_unstable();
    assert_eq!(taken, [("mx:h1.test".to_owned(), vec![0]), ("mx:one.test".to_owned(), vec![1])]);
    assert!(run.queue.is_empty());
}

#[test]
fn a_flood_for_one_domain_does_not_hold_up_another_in_its_lane() {
    let mut run = together(&mut one_connection(), &["one.test", "two.test", "three.test"]);
    run.accept(100, "one.test");
    run.accept(3, "two.test");
    run.accept(3, "three.test");
    run.deliver_all();
    assert_eq!(order(&run)[..12], [1, 2, 102, 105, 3, 103, 106, 4, 104, 107, 5, 6]);
}

#[test]
fn a_domain_with_a_rate_limit_waits_alone() {
    let mut config = one_connection();
    domain(&mut config, "one.test", limited(60, 2));
    let mut run = together(&mut config, &["one.test", "two.test"]);
    run.accept(3, "one.test");
    run.accept(3, "two.test");
    run.deliver_all();
    let mut started = order(&run);
    started.sort_unstable();
    assert_eq!(started, [1, 5, 6, 7], "the first used one token, and what found the hosts the other");
    assert_eq!(run.obstacle(2), Obstacle::Rate { until: at(1), common: false });
    run.deliver_all();
    assert_eq!(run.tick(), 1000);
    // The mail that waits for its token moves as well.
    expel(&mut run, "one.test");
    run.deliver_all();
    while !run.queue.is_empty() {
        run.tick();
        run.deliver_all();
    }
    let later: Vec<_> = run.started[4..].iter().map(|(moment, number)| (*moment, *number)).collect();
    assert_eq!(later, [(1000, 2), (1000, 2), (2000, 3), (3000, 4)]);
}

#[test]
fn jobs_that_are_not_sent_use_no_tokens() {
    let mut config = Config::default();
    config.rate_limits.global_per_second = Some(10);
    domain(&mut config, "one.test", limited(60, 2));
    // Moved to the lane of its hosts.
    let mut run = Run::new(&config);
    run.accept(3, "one.test");
    assert_eq!(run.flying.len(), 2);
    assert!(roll_up(&mut run, 1) && roll_up(&mut run, 1));
    assert_eq!(run.flying.len(), 2, "the two tokens that there were");
    // Turned away.
    let (second, job) = run.flying.pop().unwrap();
    assert!(run.queue.put_back(second, job.id, &job.recipients, at(0)));
    run.queue.poll(at(0));
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(run.flying.len(), 1, "the token is there for it");
    // A duplicate of what was delivered already.
    let (connection, duplicate) = run.flying.pop().unwrap();
    settle(&mut run.queue, &duplicate, DELIVERED, at(0));
    run.queue.refund(connection, at(0));
    run.queue.refund(connection, at(0));
    run.queue.report(connection, Outcome::Unknown, None, at(0));
    let Next::Job(third) = run.queue.next(connection, at(0)) else { panic!("its token is there") };
    assert_eq!(third.id, id(3));
    run.took(connection, third);
    run.deliver_all();
    run.accept(1, "one.test");
    assert!(run.flying.is_empty(), "two tokens, and no more");
}

#[test]
fn a_token_of_all_mail_that_comes_back_is_there_for_whoever_waits() {
    let mut config = Config::default();
    config.rate_limits.global_per_second = Some(1);
    let mut run = Run::new(&config);
    for number in 1..=10 {
        run.accept(1, &format!("d{number}.test"));
    }
    run.accept(1, "late.test");
    assert_eq!(run.flying.len(), 10, "the burst");
    let (connection, job) = run.flying.pop().unwrap();
    settle(&mut run.queue, &job, DELIVERED, at(0));
    run.queue.refund(connection, at(0));
    assert!(run.queue.take_wake(), "there is something to do at once");
    run.queue.poll(at(0));
    run.take();
    assert_eq!(order(&run).last(), Some(&11));
}

#[test]
fn the_domain_that_bears_the_fewest_connections_counts_while_its_mail_waits() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 4;
    let narrow = DomainConfig { max_connections: Some(1), ..DomainConfig::default() };
    domain(&mut config, "narrow.test", narrow);
    let mut run = together(&mut config, &["wide.test", "narrow.test"]);
    run.accept(40, "wide.test");
    while run.flying.len() < 4 {
        run.finish(Outcome::Good, DELIVERED);
    }
    let before = run.started.len();
    run.accept(1, "narrow.test");
    assert_eq!(run.flying.len(), 4, "those that are busy finish");
    for left in [3, 2, 1] {
        run.finish(Outcome::Good, DELIVERED);
        assert_eq!((run.flying.len(), run.started.len()), (left, before));
    }
    while run
        .queue
        .snapshot(id(42))
        .is_some_and(|message| message.recipients[0].0 == RecipientStatus::Pending)
    {
        assert_eq!(run.flying.len(), 1);
        run.finish(Outcome::Good, DELIVERED);
    }
    assert_eq!(run.flying.len(), 4, "nothing of it waits any more");
    run.deliver_all();
    assert!(run.queue.is_empty());
}

#[test]
fn a_domain_that_waits_for_its_rate_limit_does_not_keep_its_lane_narrow() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 4;
    let narrow = DomainConfig { max_connections: Some(1), ..limited(1, 2) };
    domain(&mut config, "narrow.test", narrow);
    let mut run = together(&mut config, &["wide.test", "narrow.test"]);
    run.deliver_all();
    run.accept(5, "narrow.test");
    run.deliver_all();
    assert!(matches!(run.obstacle(6), Obstacle::Rate { common: false, .. }));
    run.accept(40, "wide.test");
    (0..10).for_each(|_| run.finish(Outcome::Good, DELIVERED));
    assert_eq!(run.flying.len(), 4);
    let Obstacle::Busy { ready, .. } = run.obstacle(46) else { panic!("{:?}", run.obstacle(46)) };
    assert_eq!(ready, 26, "what waits for a token does not wait for a connection");
    // Its token is there, and it has its turn on one connection.
    run.now = 60_000;
    run.queue.poll(run.now());
    run.take();
    let number = |(_, job): &(ConnectionId, Queued)| job.id.to_bytes()[0];
    while !run.flying.iter().map(number).any(|number| (2..=6).contains(&number)) {
        run.finish(Outcome::Good, DELIVERED);
    }
    assert_eq!(run.flying.len(), 1);
    run.deliver_all();
    assert_eq!(run.queue.len(), 3, "all but what waits for the next tokens");
}

#[test]
fn a_frozen_domain_does_not_keep_its_lane_narrow() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 4;
    for (name, limit) in [("narrow.test", DomainConfig::default()), ("slow.test", limited(60, 20))] {
        domain(&mut config, name, DomainConfig { max_connections: Some(1), ..limit });
    }
    let mut run = together(&mut config, &["wide.test", "narrow.test", "slow.test"]);
    run.accept(40, "wide.test");
    while run.flying.len() < 4 {
        run.finish(Outcome::Good, DELIVERED);
    }
    let first = run.next + 1;
    for name in ["narrow.test", "slow.test"] {
        run.accept(10, name);
    }
    run.finish(Outcome::Good, DELIVERED);
    assert_eq!(run.flying.len(), 3);
    let frozen = ["narrow.test", "slow.test"].map(|name| name.parse().unwrap());
    assert!(frozen.iter().all(|domain| run.queue.freeze(domain, at(0))));
    run.queue.poll(run.now());
    run.take();
    assert_eq!(run.flying.len(), 4, "nothing of them can start");
    run.deliver_all();
    assert_eq!((run.queue.len(), run.obstacle(first)), (20, Obstacle::Frozen));
    // It goes on when it may, and nothing of it is lost or goes twice.
    assert!(frozen.iter().all(|domain| run.queue.thaw(domain)));
    (first..first + 20).for_each(|number| run.queue.thawed(id(number), at(0)));
    run.take();
    run.deliver_all();
    let mut went = order(&run)[order(&run).len() - 20..].to_vec();
    went.sort_unstable();
    assert_eq!(went, (first..first + 20).collect::<Vec<_>>());
    assert!(run.queue.is_empty());
}

#[test]
fn domains_on_other_terms_do_not_share() {
    let mut config = Config::default();
    let other = DomainConfig { pipelining: false, ..DomainConfig::default() };
    domain(&mut config, "two.test", other);
    let mut run = together(&mut config, &["one.test", "two.test"]);
    run.accept(1, "two.test");
    let mail = run.queue.snapshot(id(2)).unwrap().mail();
    let two = Host::Domain("two.test".parse().unwrap());
    let NextHop::Mx(_, terms) = run.queue.routes().route_to(mail, Some(&two)).next_hop else { panic!() };
    assert_eq!(run.queue.lane(id(2), 0), Some(NextHop::Site(Arc::new(site(1)), terms)));
    assert_ne!(run.queue.lane(id(1), 0), run.queue.lane(id(2), 0));
}

#[test]
fn domains_that_are_not_to_share_any_more_go_in_their_own_lanes_at_once() {
    let mut config = one_connection();
    let mut run = together(&mut config, &["one.test", "two.test"]);
    run.deliver_all();
    config.connection_pool.mx_rollup = false;
    reload::replace(&mut run.queue, &config, at(0));
    run.accept(1, "one.test");
    run.accept(1, "two.test");
    assert_eq!(lanes_of(&run, &[2, 3]), ["mx:one.test", "mx:two.test"]);
    assert_eq!(run.flying.len(), 2);
}
