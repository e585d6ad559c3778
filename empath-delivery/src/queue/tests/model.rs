//! A random run of the queue, watched from outside.

mod checks;
mod flights;
mod operator;
mod spool;
mod steps;
mod untold;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use empath_common::{FutureRelease, Priority};
use proptest::prelude::*;

use super::*;
use crate::config::{DomainConfig, Source};
use steps::{Step, few, step};
use untold::UntoldEnds;

/// A recipient that has not ended, as the spool would know it.
#[derive(Debug, Clone, Copy)]
struct Known {
    due: i64,
    attempts: u32,
    flying: bool,
    /// Due when its sender wants it, and not earlier because somebody else does.
    scheduled: bool,
}

/// Watches a queue from outside.
#[derive(Default)]
struct Model {
    config: Config,
    now: i64,
    flying: Vec<(ConnectionId, Queued)>,
    idle: BTreeSet<ConnectionId>,
    /// Busy without a place.
    away: BTreeSet<ConnectionId>,
    hops: HashMap<ConnectionId, String>,
    envelopes: BTreeMap<MessageId, Arc<Envelope>>,
    /// When an operator sent what its sender had scheduled for later.
    sent_early: BTreeMap<MessageId, i64>,
    known: BTreeMap<(MessageId, u32), Known>,
    held: BTreeSet<MessageId>,
    /// Messages that were deleted while something of them was in flight.
    removing: BTreeSet<MessageId>,
    stopped: bool,
    frozen: BTreeSet<u8>,
    accepted: u8,
    told_of_delay: BTreeSet<(MessageId, u32)>,
    untold: UntoldEnds,
    /// Connections whose jobs began with a former configuration.
    former: BTreeSet<ConnectionId>,
}

const SENDERS: [&str; 3] = ["<a@home.test>", "<news@home.test>", "<a@x.home.test>"];
const ROUTES: [(&str, &str); 3] =
    [("news@home.test", "s.test"), ("home.test", "s.test"), ("*.home.test", "t.test")];

pub(super) const MAX_CONCURRENT: usize = 10;
pub(super) const MAX_PER_SERVER: usize = 6;

impl Model {
    fn run(&mut self, queue: &mut Queue, step: &Step) {
        match step {
            Step::Accept(recipients, priority, sender) if self.accepted < 200 => {
                self.accept(queue, recipients, *priority, (*sender, 0));
            }
            Step::Schedule(recipients, wait) if self.accepted < 200 => {
                self.accept(queue, recipients, Priority::Normal, (0, *wait));
            }
            Step::Reconfigure(which) => self.reconfigure(queue, *which),
            Step::Reclassify => self.reclassify(queue),
            Step::TurnAway(n) if !self.flying.is_empty() => self.turn_away(queue, *n),
            Step::RollUp(n, site) if !self.flying.is_empty() => self.roll_up(queue, *n, *site),
            Step::GiveWay(n) if !self.flying.is_empty() => self.give_way(queue, n % self.flying.len()),
            Step::ComeBack(n) if !self.away.is_empty() => self.come_back(queue, *n),
            Step::Expel(n) if !self.flying.is_empty() => self.expel(queue, n % self.flying.len()),
            Step::Finish(n, due, outcome) if !self.flying.is_empty() => {
                let fate = due.map_or(DELIVERED, |due| Fate::Due(at(self.now + i64::from(due))));
                self.finish(queue, *n, fate, *outcome);
            }
            Step::Bounce(n) if !self.flying.is_empty() => {
                self.finish(queue, *n, Fate::Untold(Ended::Bounced), Outcome::Good);
            }
            Step::Tell(works) => self.untold.fails = !works,
            Step::Pass(seconds) => {
                self.now += i64::from(*seconds);
                queue.poll(at(self.now));
            }
            Step::Leave(n) if !self.idle.is_empty() => self.leave(queue, *n),
            Step::Retry(number) => self.retry(queue, id(*number)),
            Step::SendNow(number) => self.send_now(queue, id(*number)),
            Step::Delete(number) => self.delete(queue, id(*number)),
            Step::Hold(number) => self.hold(queue, id(*number)),
            Step::Release(number) => self.release(queue, id(*number)),
            Step::Freeze(n) => self.freeze(queue, *n),
            Step::Thaw(n) => self.thaw(queue, *n),
            Step::Restart => self.restart(queue),
            Step::Reload(n) => self.reload(queue, *n),
            Step::Stop => self.stop(queue),
            _ => {}
        }
        self.perform(queue);
        self.tell(queue);
        self.tell_of_ends(queue);
        self.check(queue);
    }
}

/// Of few connections, of few messages in a time if it is limited, and from two addresses if it is pooled.
fn config(limited: bool, pooled: bool) -> Config {
    let mut config = Config { max_concurrent: MAX_CONCURRENT, ..Config::default() };
    if pooled {
        let source = |last: u8| Source { ipv4: Some([192, 0, 2, last].into()), ..Source::default() };
        config.sources.insert("two".into(), vec![source(1), source(2)]);
        config.source = Some("two".into());
    }
    config.connection_pool.max_per_server = MAX_PER_SERVER;
    if limited {
        config.rate_limits.global_per_second = Some(1);
        let slow = DomainConfig { rate_limit: Some(2), rate_burst: Some(1), ..DomainConfig::default() };
        config.domains.insert("0.test".parse().unwrap(), slow);
    }
    config
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_runs_twice_and_limits_hold(
        steps in prop::collection::vec(step(), 1..300), limited: bool, pooled: bool
    ) {
        let config = config(limited, pooled);
        let mut queue = configured(&config);
        let mut model = Model { config, ..Model::default() };
        for step in &steps {
            model.run(&mut queue, step);
        }
        // From now on everything succeeds: then everything ends.
        model.run(&mut queue, &Step::Tell(true));
        model.run(&mut queue, &Step::Restart);
        for number in 0..=200 {
            model.run(&mut queue, &Step::Release(number));
        }
        for _ in 0..2000 {
            if queue.is_empty() {
                break;
            }
            model.run(&mut queue, &Step::Pass(500));
            while !model.flying.is_empty() {
                model.run(&mut queue, &Step::Finish(0, None, Outcome::Good));
            }
        }
        prop_assert!(queue.is_empty() && model.known.is_empty() && model.untold.is_empty());
        // Failures are forgotten, and tokens that nobody needs come.
        model.run(&mut queue, &Step::Pass(2 * 3600));
        prop_assert_eq!(queue.poll(at(model.now)), Timestamp::MAX);
        prop_assert_eq!((queue.fresh, queue.destinations.len()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_ready_starts_without_new_mail(
        steps in prop::collection::vec(few(), 1..200), limited: bool, leaves: bool, threshold in 1..4_u32,
        calls in 1..4_u32, uneven: bool, pooled: bool,
    ) {
        let mut config = config(limited, pooled);
        config.circuit_breaker.failure_threshold = threshold;
        config.circuit_breaker.half_open_max_calls = calls;
        for (name, most) in [("1.test", 1), ("2.test", 6)].into_iter().filter(|_| uneven) {
            let mx_override = Some("h.test".parse().unwrap());
            let one = DomainConfig { mx_override, max_connections: Some(most), ..DomainConfig::default() };
            config.domains.insert(name.parse().unwrap(), one);
        }
        let mut queue = configured(&config);
        let mut model = Model { config, ..Model::default() };
        for step in &steps {
            model.run(&mut queue, step);
        }
        // From now on everything succeeds and nothing new comes: then everything ends.
        (0..3).for_each(|number| model.run(&mut queue, &Step::Thaw(number)));
        (0..=200).for_each(|number| model.run(&mut queue, &Step::Release(number)));
        for _ in 0..100 {
            if queue.is_empty() {
                break;
            }
            while !model.flying.is_empty() {
                model.run(&mut queue, &Step::Finish(0, None, Outcome::Good));
            }
            while leaves && !model.idle.is_empty() {
                model.run(&mut queue, &Step::Leave(0));
            }
            model.run(&mut queue, &Step::Pass(500));
        }
        let (len, idle) = (queue.len(), queue.idle_connections());
        prop_assert!(queue.is_empty() && model.known.is_empty(), "{len} are stuck, {idle} connections idle");
    }
}
