//! Rate limits, breakers and windows as the queue applies them.

use std::collections::BTreeSet;

use empath_common::Host;

use super::*;
use crate::config::DomainConfig;

pub(super) const FAILED: Fate = Fate::Due(Timestamp::MAX);

/// A queue that runs against a destination in virtual time.
pub(super) struct Run {
    pub(super) queue: Queue,
    pub(super) now: i64,
    pub(super) flying: Vec<(ConnectionId, Queued)>,
    /// When which message started.
    pub(super) started: Vec<(i64, u8)>,
    pub(super) next: u8,
}

impl Run {
    pub(super) fn new(config: &Config) -> Self {
        let (queue, flying, started) = (configured(config), Vec::new(), Vec::new());
        Self { queue, now: 0, flying, started, next: 0 }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now).unwrap()
    }

    pub(super) fn accept(&mut self, count: u8, domain: &str) {
        for _ in 0..count {
            self.next += 1;
            let envelope = envelope(self.now(), &[&format!("u@{domain}")]);
            self.queue.accept(id(self.next), envelope, &Bytes::from_static(b"x\r\n").into(), self.now());
        }
        self.take();
    }

    pub(super) fn take(&mut self) {
        for (connection, job) in jobs(&mut self.queue) {
            self.took(connection, job);
        }
    }

    pub(super) fn took(&mut self, connection: ConnectionId, job: Queued) {
        self.started.push((self.now, job.id.to_bytes()[0]));
        self.flying.push((connection, job));
    }

    /// The oldest job in flight comes to this.
    pub(super) fn finish(&mut self, outcome: Outcome, fate: Fate) {
        let (connection, job) = self.flying.remove(0);
        let now = self.now();
        let hosts = self.queue.snapshot(job.id).map(|message| message.hosts).unwrap_or_default();
        let domain = hosts.into_iter().find_map(|host| match host {
            Some(Host::Domain(domain)) => Some(domain),
            _ => None,
        });
        settle(&mut self.queue, &job, fate, now);
        self.queue.report(connection, outcome, domain.as_ref(), now);
        match self.queue.next(connection, now) {
            Next::Job(job) => self.took(connection, job),
            Next::Idle if outcome != Outcome::Good => drop(self.queue.leave(connection, now)),
            Next::Idle | Next::Close => {}
        }
        self.take();
    }

    pub(super) fn deliver_all(&mut self) {
        while !self.flying.is_empty() {
            self.finish(Outcome::Good, DELIVERED);
        }
    }

    /// Lets time pass until something is due; what starts is delivered at once. The moment, in milliseconds.
    pub(super) fn tick(&mut self) -> i64 {
        let due = self.queue.poll(self.now());
        self.take();
        self.deliver_all();
        let due = due.min(self.queue.poll(self.now()));
        self.now = self.now.max(due.as_millisecond());
        self.queue.poll(self.now());
        self.take();
        self.now
    }

    fn events(&mut self) -> Vec<String> {
        let shown = |event| match event {
            Event::RateLimited { domain } => format!("limited {domain}"),
            Event::Breaker { domain, state, .. } => format!("{domain} {state:?}"),
        };
        self.queue.take_events().into_iter().map(shown).collect()
    }

    pub(super) fn obstacle(&self, number: u8) -> Obstacle {
        self.queue.obstacle(id(number), 0, self.now()).unwrap()
    }
}

pub(super) fn domain(config: &mut Config, name: &str, domain: DomainConfig) {
    config.domains.insert(name.parse().unwrap(), domain);
}

pub(super) fn limited(per_minute: u32, burst: u32) -> DomainConfig {
    DomainConfig { rate_limit: Some(per_minute), rate_burst: Some(burst), ..DomainConfig::default() }
}

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
fn an_operator_who_wants_mail_to_go_now_has_the_destination_tried_now() {
    let mut run = broken();
    run.events();
    run.queue.retry(id(20), at(1));
    run.take();
    assert_eq!((run.events(), run.flying.len()), (vec!["one.test HalfOpen".to_owned()], 2));
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

#[test]
fn what_was_never_tried_and_is_frozen_expires_after_a_restart_too() {
    let mut queue = queue(1, 1);
    queue.freeze(&"one.test".parse().unwrap());
    restore(&mut queue, 1, &envelope(at(0), &["a@one.test"]), &[RecipientState::default()], at(6 * 86_400));
    let due = queue.poll(at(6 * 86_400));
    assert!(queue.take_expired().is_some() || due < Timestamp::MAX, "it stays for ever");
}
