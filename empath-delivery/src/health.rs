//! Which hosts cannot be reached at present.
//!
//! A host that failed to connect goes to the end of every list in which others stand, until a connection succeeds. It is
//! tried in the background meanwhile, by one connection at a time, with pauses that grow. Nobody waits for it but mail that
//! nobody else takes.

use std::{collections::HashMap, time::Duration};

use empath_smtp::client::Target;
use tokio::time::Instant;

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_mins(10);

/// Most hosts that are remembered.
const MAX_HOSTS: usize = 10_000;

/// Most background connections, one a host.
const MAX_PROBES: usize = 20;

/// Hosts that failed to connect, by where they listen.
#[derive(Debug, Default)]
pub(crate) struct Health {
    sick: HashMap<Target, Sick>,
    probes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Sick {
    failures: u32,
    /// It is left alone until then.
    until: Instant,
    probed: bool,
}

/// What to do with a host whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Try it.
    Try,
    /// Try the others first.
    Later,
    /// Try the others first, and see in the background whether it is well again. Say what came of it.
    Probe,
}

impl Health {
    /// What to do with a host.
    pub(crate) fn advice(&mut self, target: &Target, now: Instant) -> Advice {
        let Some(sick) = self.sick.get_mut(target) else {
            return Advice::Try;
        };
        if sick.probed || now < sick.until || self.probes >= MAX_PROBES {
            return Advice::Later;
        }
        sick.probed = true;
        self.probes += 1;
        Advice::Probe
    }

    /// A connection came about.
    pub(crate) fn well(&mut self, target: &Target) {
        if let Some(sick) = self.sick.remove(target)
            && sick.probed
        {
            self.probes -= 1;
        }
    }

    /// A connection of somebody's mail did not.
    pub(crate) fn failed(&mut self, target: &Target, now: Instant) {
        match self.sick.get_mut(target) {
            // Many fail at once who all began before it was known.
            Some(sick) if sick.probed || now < sick.until => {}
            Some(sick) => sick.fail(now),
            None => {
                if self.sick.len() >= MAX_HOSTS {
                    self.forget_one();
                }
                if self.sick.len() < MAX_HOSTS {
                    self.sick.insert(
                        target.clone(),
                        Sick { failures: 1, until: now + FIRST_PAUSE, probed: false },
                    );
                }
            }
        }
    }

    /// A probe did not come to a connection.
    pub(crate) fn probed(&mut self, target: &Target, now: Instant) {
        if let Some(sick) = self.sick.get_mut(target)
            && std::mem::take(&mut sick.probed)
        {
            self.probes -= 1;
            sick.fail(now);
        }
    }

    /// Drops the host that may be tried again first: least is lost with it.
    fn forget_one(&mut self) {
        let idle = self.sick.iter().filter(|(_, sick)| !sick.probed);
        if let Some((target, _)) = idle.min_by_key(|(_, sick)| sick.until) {
            let target = target.clone();
            self.sick.remove(&target);
        }
    }
}

impl Sick {
    fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(16));
        self.until = now + doubled.min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Advice::{Later, Probe, Try};

    fn host(number: usize) -> Target {
        let [.., a, b] = u32::try_from(number).unwrap().to_be_bytes();
        Target::Tcp(([127, 0, a, b], 25).into())
    }

    fn later(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_host_that_failed_comes_last_and_is_probed_after_pauses_that_grow() {
        let (mut health, start) = (Health::default(), Instant::now());
        assert_eq!(health.advice(&host(1), start), Try);
        health.failed(&host(1), start);
        assert_eq!(health.advice(&host(1), later(start, 14)), Later);
        assert_eq!(health.advice(&host(2), later(start, 14)), Try, "the others are not affected");
        assert_eq!(health.advice(&host(1), later(start, 15)), Probe);
        assert_eq!(health.advice(&host(1), later(start, 40)), Later, "one probe at a time");
        let mut now = 40;
        for pause in [30, 60, 120, 240, 480, 600, 600] {
            health.probed(&host(1), later(start, now));
            assert_eq!(health.advice(&host(1), later(start, now + pause - 1)), Later);
            assert_eq!(health.advice(&host(1), later(start, now + pause)), Probe);
            now += pause;
        }
        health.well(&host(1));
        assert_eq!(health.advice(&host(1), later(start, now)), Try);
        health.probed(&host(1), later(start, now));
        assert_eq!(health.advice(&host(1), later(start, now)), Try, "a probe that ends late changes nothing");
    }

    #[test]
    fn failures_of_connections_that_began_together_count_once() {
        let (mut health, start) = (Health::default(), Instant::now());
        for _ in 0..20 {
            health.failed(&host(1), start);
        }
        assert_eq!(health.advice(&host(1), later(start, 15)), Probe);
    }

    #[test]
    fn there_is_a_bound_on_hosts_and_on_probes() {
        let (mut health, start) = (Health::default(), Instant::now());
        for number in 0..MAX_HOSTS + 10 {
            health.failed(&host(number), start + Duration::from_millis(number as u64));
        }
        assert_eq!(health.sick.len(), MAX_HOSTS);
        assert_eq!(health.advice(&host(0), start), Try, "the oldest was forgotten");
        let now = later(start, 100);
        let probes = (10..MAX_HOSTS).filter(|number| health.advice(&host(*number), now) == Probe).count();
        assert_eq!(probes, MAX_PROBES);
    }

    proptest! {
        #[test]
        fn probes_are_counted_right(steps in prop::collection::vec((0..5_u8, 0..4_usize), 0..300)) {
                let (mut health, mut now) = (Health::default(), Instant::now());
            for (step, number) in steps {
                match step {
                    0 => health.failed(&host(number), now),
                    1 => health.well(&host(number)),
                    2 => health.probed(&host(number), now),
                    3 => now += Duration::from_secs(30),
                    _ => drop(health.advice(&host(number), now)),
                }
                let under_way = health.sick.values().filter(|sick| sick.probed).count();
                prop_assert_eq!(under_way, health.probes);
            }
        }
    }
}
