//! A new configuration while there is mail.

use super::{run::Run, *};
use crate::config::{DomainConfig, RateLimits};

pub(super) fn replace(queue: &mut Queue, config: &Config, now: Timestamp) {
    let (routes, limits) = routes_and_limits(config);
    queue.replace(routes, limits, now);
}

/// A configuration with other next hops, other limits of rates, and other limits of connections, or some of that.
pub(super) fn another(n: u8) -> Config {
    let mut config = Config { max_concurrent: model::MAX_CONCURRENT, ..Config::default() };
    config.connection_pool.max_per_server = model::MAX_PER_SERVER;
    if n & 1 != 0 {
        let elsewhere =
            DomainConfig { mx_override: Some("h.test".parse().unwrap()), ..DomainConfig::default() };
        config.domains = ["0.test", "1.test"].map(|name| (name.parse().unwrap(), elsewhere.clone())).into();
    }
    if n & 2 != 0 {
        config.rate_limits = RateLimits { global_per_second: Some(1), per_domain_per_second: Some(1) };
    }
    if n & 4 != 0 {
        config.max_concurrent = 3;
        config.circuit_breaker.failure_threshold = 1;
        config.circuit_breaker.timeout = Duration::from_secs(5);
    }
    config
}

fn to(host: &str) -> DomainConfig {
    DomainConfig { mx_override: Some(host.parse().unwrap()), ..DomainConfig::default() }
}

fn one_connection(domains: &[(&str, DomainConfig)]) -> Config {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 1;
    config.domains = domains.iter().map(|(name, domain)| (name.parse().unwrap(), domain.clone())).collect();
    config
}

/// The messages that start, each with its next hop or the connection that it goes over.
fn started(queue: &mut Queue) -> Vec<(u8, String)> {
    let started = queue.take_actions().into_iter().filter_map(|action| match action {
        Action::Open { next_hop, job, .. } => Some((job.id.to_bytes()[0], next_hop.to_string())),
        Action::Resume { job, .. } => Some((job.id.to_bytes()[0], "idle".to_owned())),
        Action::Close { .. } => None,
    });
    started.collect()
}

fn status(queue: &Queue, number: u8) -> MessageStatus {
    queue.snapshot(id(number)).unwrap().status
}

#[test]
fn what_is_ready_goes_the_new_way_and_what_is_in_flight_the_old_one_to_its_end() {
    let mut queue = configured(&one_connection(&[("one.test", to("old.test"))]));
    (1..=3).for_each(|number| accept(&mut queue, number, &["a@one.test", "b@two.test"]));
    let flying = jobs(&mut queue);
    assert_eq!(flying.len(), 2);
    replace(&mut queue, &one_connection(&[("one.test", to("new.test"))]), at(1));
    assert!(queue.take_wake(), "the caller must hear that there is work");
    assert_eq!(queue.poll(at(1)), at(0) + EXPIRE_AFTER);
    assert_eq!(started(&mut queue), [(2, "smtp:new.test:25".to_owned())]);
    // The connection of the old way has nothing more to do; that of the way that stays goes on in order.
    let next = |queue: &mut Queue, n: usize| {
        let (connection, job): &(ConnectionId, Queued) = &flying[n];
        settle(queue, job, DELIVERED, at(2));
        queue.next(*connection, at(2))
    };
    assert!(matches!(next(&mut queue, 1), Next::Idle));
    let Next::Job(job) = next(&mut queue, 0) else { panic!("the second is ready") };
    assert_eq!((job.id, job.recipients[0].index), (id(2), 1));
    assert_eq!(queue.len(), 2, "nothing was disturbed");
}

#[test]
fn what_waits_keeps_its_due_time() {
    let mut queue = configured(&Config::default());
    accept(&mut queue, 1, &["a@one.test"]);
    let (_, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    replace(&mut queue, &one_connection(&[("*", to("new.test"))]), at(1));
    assert_eq!(queue.poll(at(1)), at(60));
    assert_eq!(started(&mut queue), []);
    queue.poll(at(60));
    assert_eq!(started(&mut queue), [(1, "smtp:new.test:25".to_owned())]);
}

#[test]
fn many_messages_are_worked_through_in_batches_and_others_pass() {
    let mut queue = configured(&one_connection(&[("one.test", to("old.test"))]));
    let long_id = |number: u32| MessageId::from_bytes(u128::from(number).to_be_bytes());
    for number in 0..1000 {
        let content = Bytes::from_static(b"x\r\n").into();
        queue.accept(long_id(number), envelope(at(0), &["a@one.test"]), &content, at(0));
    }
    jobs(&mut queue);
    replace(&mut queue, &one_connection(&[("one.test", to("new.test"))]), at(1));
    let other = long_id(5000);
    queue.accept(other, envelope(at(1), &["a@two.test"]), &Bytes::new().into(), at(1));
    assert_eq!(jobs(&mut queue).remove(0).1.id, other);
    let ready = |queue: &Queue| match queue.obstacle(long_id(999), 0, at(1)) {
        Some(Obstacle::Busy { ready, .. }) => ready,
        _ => 0,
    };
    let mut polls = Vec::new();
    while queue.poll(at(1)) <= at(1) {
        polls.push(ready(&queue));
    }
    assert_eq!(polls, [255, 511, 767], "one is in flight");
    assert_eq!(ready(&queue), 998);
    assert_eq!(jobs(&mut queue).remove(0).1.id, long_id(1), "they keep their order");
}

#[test]
fn a_message_that_comes_to_its_end_or_is_held_on_the_way_does_not_start() {
    let mut queue = configured(&one_connection(&[("one.test", to("old.test"))]));
    (1..=4).for_each(|number| accept(&mut queue, number, &["a@one.test"]));
    jobs(&mut queue);
    replace(&mut queue, &one_connection(&[("one.test", to("new.test"))]), at(1));
    let deleted = queue.delete(id(2), at(1)).unwrap();
    settle(&mut queue, &deleted, Fate::Ended(Ended::Removed), at(1));
    queue.hold(id(3), at(1));
    queue.poll(at(1));
    assert_eq!(started(&mut queue), [(4, "smtp:new.test:25".to_owned())]);
    queue.release(id(3), at(2));
    assert_eq!(status(&queue, 3), MessageStatus::Pending);
}

#[test]
fn overrides_and_frozen_domains_outlast_a_new_configuration() {
    let mut queue = configured(&Config::default());
    let one = "one.test".parse().unwrap();
    queue
        .reroute(&one, at(0), |routes| routes.set_override(one.clone(), "mine.test".parse().unwrap()))
        .unwrap();
    queue.freeze(&"two.test".parse().unwrap(), at(0));
    replace(&mut queue, &one_connection(&[("*", to("new.test"))]), at(1));
    accept(&mut queue, 1, &["a@one.test", "b@two.test"]);
    assert_eq!(started(&mut queue), [(1, "smtp:mine.test:25".to_owned())]);
    assert_eq!(queue.obstacle(id(1), 1, at(1)), Some(Obstacle::Frozen));
}

#[test]
fn new_limits_of_time_apply_to_every_message() {
    let mut queue = configured(&Config::default());
    accept(&mut queue, 1, &["a@one.test"]);
    let (_, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(100_000)), at(0));
    accept(&mut queue, 2, &["held@one.test"]);
    queue.hold(id(2), at(0));
    let (_, mut limits) = routes_and_limits(&Config::default());
    let mut change = |queue: &mut Queue, expire_after, now| {
        let (routes, _) = routes_and_limits(&Config::default());
        limits.expire_after = Duration::from_secs(expire_after);
        queue.replace(routes, limits, at(now));
    };
    change(&mut queue, 2000, 10);
    assert_eq!(queue.poll(at(10)), at(2000));
    change(&mut queue, 5000, 20);
    assert_eq!(queue.poll(at(2000)), at(5000), "it has more time");
    change(&mut queue, 1000, 3000);
    queue.poll(at(3000));
    assert_eq!(queue.take_expired().unwrap().id, id(1), "its time is over");
    assert!(queue.take_expired().is_none(), "what is held does not expire");
}

#[test]
fn what_expired_while_the_daemon_was_down_keeps_its_last_attempt() {
    let mut queue = configured(&Config { max_concurrent: 1, ..Config::default() });
    let (received, now) = (at(0), at(0) + EXPIRE_AFTER);
    let first = envelope(received, &["a@one.test"]);
    assert!(restore(&mut queue, 1, &first, &[RecipientState::default()], now));
    assert!(restore(&mut queue, 2, &envelope(received, &["a@two.test"]), &[RecipientState::default()], now));
    let (connection, job) = jobs(&mut queue).remove(0);
    let (routes, limits) = routes_and_limits(&Config { max_concurrent: 1, ..Config::default() });
    queue.replace(routes, Limits { expire_after: Duration::from_hours(1), ..limits }, now);
    queue.poll(now);
    assert!(queue.take_expired().is_none());
    settle(&mut queue, &job, DELIVERED, now);
    queue.next(connection, now);
    queue.leave(connection, now);
    assert_eq!(started(&mut queue), [(2, "mx:two.test".to_owned())]);
}

#[test]
fn a_shorter_time_until_senders_are_told_applies_to_every_message() {
    let mut queue = configured(&Config::default());
    let mut envelope = Envelope::clone(&envelope(at(0), &["a@one.test"]));
    envelope.reverse_path = "<a@home.test>".parse().unwrap();
    queue.accept(id(1), Arc::new(envelope), &Bytes::new().into(), at(0));
    let (_, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(50_000)), at(0));
    let (routes, limits) = routes_and_limits(&Config::default());
    queue.replace(routes, Limits { delay_after: Some(Duration::from_mins(1)), ..limits }, at(100));
    queue.poll(at(100));
    assert_eq!(queue.take_late().unwrap().id, id(1));
}

#[test]
fn a_limit_holds_back_what_is_ready_and_lets_it_go_when_it_is_gone() {
    let limited = DomainConfig { rate_limit: Some(1), rate_burst: Some(1), ..DomainConfig::default() };
    let by_domain = one_connection(&[("one.test", limited)]);
    let mut by_all = one_connection(&[]);
    by_all.rate_limits.global_per_second = Some(1);
    for (config, common) in [(by_domain, false), (by_all, true)] {
        let mut queue = configured(&one_connection(&[]));
        (1..=30).for_each(|number| accept(&mut queue, number, &["a@one.test"]));
        let mut flying = jobs(&mut queue);
        replace(&mut queue, &config, at(0));
        queue.poll(at(0));
        let next = loop {
            let (connection, job) = flying.remove(0);
            settle(&mut queue, &job, DELIVERED, at(0));
            match queue.next(connection, at(0)) {
                Next::Job(job) => flying.push((connection, job)),
                next => break next,
            }
        };
        assert!(matches!(next, Next::Idle), "{next:?}");
        let waits = queue.obstacle(id(30), 0, at(0)).unwrap();
        assert!(matches!(waits, Obstacle::Rate { common: by, .. } if by == common), "{waits:?}");
        replace(&mut queue, &one_connection(&[]), at(0));
        queue.poll(at(0));
        assert_eq!(started(&mut queue).len(), 1, "at once, over the connection that there is");
    }
}

#[test]
fn what_waits_for_a_token_has_it_when_the_new_rate_gives_it() {
    let by_domain = |messages, burst| {
        let limited =
            DomainConfig { rate_limit: Some(messages), rate_burst: Some(burst), ..DomainConfig::default() };
        one_connection(&[("one.test", limited)])
    };
    let by_all = |messages| {
        let mut config = one_connection(&[]);
        config.rate_limits.global_per_second = Some(messages);
        config
    };
    for (before, after, accepted, soon) in
        [(by_domain(1, 1), by_domain(6000, 100), 5, 50), (by_all(1), by_all(100), 20, 200)]
    {
        let mut run = Run::new(&before);
        run.accept(accepted, "one.test");
        run.deliver_all();
        assert!(usize::from(accepted) > run.started.len(), "the others wait");
        run.now = 100;
        let now = run.now();
        replace(&mut run.queue, &after, now);
        run.queue.poll(now);
        let waits = run.obstacle(accepted);
        assert!(matches!(waits, Obstacle::Rate { until, .. } if until < at(1)), "{waits:?}");
        while run.started.len() < usize::from(accepted) {
            assert!(run.tick() <= 100 + soon, "{:?} of {accepted}", run.started);
        }
    }
}

#[test]
fn a_shorter_pause_of_the_breaker_ends_the_one_that_is_under_way() {
    let mut config = one_connection(&[]);
    config.circuit_breaker.failure_threshold = 1;
    config.circuit_breaker.timeout = Duration::from_hours(1);
    let mut queue = configured(&config);
    (1..=2).for_each(|number| accept(&mut queue, number, &["a@one.test"]));
    let (connection, job) = jobs(&mut queue).remove(0);
    settle(&mut queue, &job, Fate::Due(at(9000)), at(0));
    queue.report(connection, Outcome::Failed, None, at(0));
    assert!(matches!(queue.next(connection, at(0)), Next::Idle));
    queue.leave(connection, at(0));
    assert_eq!(queue.obstacle(id(2), 0, at(0)), Some(Obstacle::Breaker { until: Some(at(3600)) }));
    config.circuit_breaker.timeout = Duration::from_secs(10);
    replace(&mut queue, &config, at(5));
    assert_eq!(queue.poll(at(5)), at(15));
    assert_eq!(queue.obstacle(id(2), 0, at(5)), Some(Obstacle::Breaker { until: Some(at(15)) }));
    queue.poll(at(15));
    assert_eq!(started(&mut queue).len(), 1);
}

#[test]
fn connections_become_fewer_as_they_are_done_and_more_at_once() {
    let most = |max_concurrent| Config { max_concurrent, ..one_connection(&[]) };
    let mut queue = configured(&most(5));
    (1..=4).for_each(|number| accept(&mut queue, number, &[&format!("a@d{number}.test")]));
    let mut flying = jobs(&mut queue);
    (5..=10).for_each(|number| accept(&mut queue, number, &[&format!("a@d{number}.test")]));
    let (connection, job) = flying.remove(0);
    replace(&mut queue, &most(2), at(1));
    queue.poll(at(1));
    assert_eq!((started(&mut queue).len(), queue.connections()), (0, 4), "nobody is cut off");
    settle(&mut queue, &job, DELIVERED, at(1));
    assert!(matches!(queue.next(connection, at(1)), Next::Close));
    assert_eq!((started(&mut queue).len(), queue.connections()), (0, 3));
    replace(&mut queue, &most(8), at(2));
    queue.poll(at(2));
    assert_eq!((started(&mut queue).len(), queue.connections()), (3, 6));
}

#[test]
fn idle_connections_close_when_there_may_be_fewer() {
    let most = |max_concurrent| Config { max_concurrent, ..one_connection(&[]) };
    let mut queue = configured(&most(4));
    (1..=3).for_each(|number| accept(&mut queue, number, &[&format!("a@d{number}.test")]));
    for (connection, job) in jobs(&mut queue) {
        settle(&mut queue, &job, DELIVERED, at(1));
        assert!(matches!(queue.next(connection, at(1)), Next::Idle));
    }
    replace(&mut queue, &most(1), at(1));
    let actions = queue.take_actions();
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Close { .. })).count(), 2);
    assert_eq!((queue.connections(), queue.idle_connections()), (1, 1));
}

#[test]
fn connections_that_finish_before_mail_is_routed_again_stay() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 2;
    let mut queue = configured(&config);
    (1..=4).for_each(|number| accept(&mut queue, number, &["a@one.test"]));
    let flying = jobs(&mut queue);
    assert_eq!(flying.len(), 2);
    replace(&mut queue, &config, at(1));
    for (connection, job) in &flying {
        settle(&mut queue, job, DELIVERED, at(1));
        assert!(matches!(queue.next(*connection, at(1)), Next::Idle));
    }
    queue.poll(at(1));
    assert_eq!((jobs(&mut queue).len(), queue.connections()), (2, 2));
}
