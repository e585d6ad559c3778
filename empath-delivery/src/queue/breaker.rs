//! The circuit breaker of a destination.

use std::time::Duration;

use jiff::Timestamp;

use crate::{config::CircuitBreaker, schedule};

/// Whether a destination may be tried.
///
/// It opens after so many failures in a row, lets some calls through after a while, and closes at the first success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Breaker {
    state: State,
    /// Failures since the last success.
    failures: u32,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Timestamp,
    },
    HalfOpen {
        /// Probes under way.
        calls: u32,
    },
}

/// A state as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything goes through.
    Closed,
    /// A few probes go through.
    HalfOpen,
    /// Nothing goes through until then.
    Open {
        /// The end of the pause.
        until: Timestamp,
    },
}

impl Breaker {
    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { until } => BreakerState::Open { until },
        }
    }

    /// Whether it knows of nothing bad.
    pub(super) fn is_calm(&self) -> bool {
        *self == Self::default()
    }

    /// Whether another call may start now.
    pub(super) fn admits(&self, config: &CircuitBreaker) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { .. } => false,
            State::HalfOpen { calls } => calls < config.half_open_max_calls,
        }
    }

    /// The pause may be over. True if it is half open from now on.
    pub(super) fn pass(&mut self, now: Timestamp) -> bool {
        let over = matches!(self.state, State::Open { until } if until <= now);
        if over {
            self.state = State::HalfOpen { calls: 0 };
        }
        over
    }

    /// From now on pauses are no longer than this. When its own is over, if it is shorter than before.
    pub(super) fn shorten(&mut self, config: &CircuitBreaker, now: Timestamp) -> Option<Timestamp> {
        let most = schedule::after(now, config.timeout.max(MIN_PAUSE));
        match &mut self.state {
            State::Open { until } if *until > most => {
                *until = most;
                Some(most)
            }
            _ => None,
        }
    }

    /// A call starts. True if it is a probe: then it is to be reported as one.
    pub(super) fn start(&mut self) -> bool {
        match &mut self.state {
            State::HalfOpen { calls } => {
                *calls += 1;
                true
            }
            State::Closed | State::Open { .. } => false,
        }
    }

    /// A call has ended, whatever it came to. Say what, if it says something about the destination, afterwards.
    pub(super) fn end(&mut self, probe: bool) {
        if let State::HalfOpen { calls } = &mut self.state
            && probe
        {
            *calls = calls.saturating_sub(1);
        }
    }

    /// The destination is well. True if it was not closed before.
    pub(super) fn succeed(&mut self) -> bool {
        let before = std::mem::take(self);
        before.state != State::Closed
    }

    /// The destination is not. True if it is open from now on.
    pub(super) fn fail(&mut self, probe: bool, config: &CircuitBreaker, now: Timestamp) -> bool {
        self.fail_from(config.failure_threshold, probe, config, now)
    }

    /// The destination is not, and the next calls would show nothing else. True if it is open from now on.
    pub(super) fn open(&mut self, probe: bool, config: &CircuitBreaker, now: Timestamp) -> bool {
        self.fail_from(0, probe, config, now)
    }

    fn fail_from(&mut self, threshold: u32, probe: bool, config: &CircuitBreaker, now: Timestamp) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= threshold,
            // What started before the pause says nothing new.
            State::HalfOpen { .. } => probe,
            State::Open { .. } => false,
        };
        if opens {
            self.state = State::Open { until: schedule::after(now, config.timeout.max(MIN_PAUSE)) };
        }
        opens
    }
}

/// An open breaker is open for some time, lest the queue be busy with it.
const MIN_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn config() -> CircuitBreaker {
        CircuitBreaker::default()
    }

    fn open(now: i64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.fail(false, &config(), at(now));
        }
        breaker
    }

    #[test]
    fn it_opens_at_the_fifth_failure_in_a_row() {
        let mut breaker = Breaker::default();
        let opened: Vec<_> = (0..6).map(|_| breaker.fail(false, &config(), at(0))).collect();
        assert_eq!(opened, [false, false, false, false, true, false]);
        assert_eq!(breaker.state(), BreakerState::Open { until: at(60) });
        assert!(!breaker.admits(&config()));
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            for _ in 0..4 {
                assert!(!breaker.fail(false, &config(), at(0)));
            }
            assert!(!breaker.succeed(), "it was closed");
        }
        assert!(breaker.is_calm());
    }

    #[test]
    fn after_its_pause_it_lets_three_probes_through() {
        let mut breaker = open(0);
        assert!(!breaker.pass(at(59)));
        assert!(breaker.pass(at(60)) && !breaker.pass(at(61)));
        for _ in 0..3 {
            assert!(breaker.admits(&config()) && breaker.start());
        }
        assert!(!breaker.admits(&config()));
        breaker.end(true);
        assert!(breaker.admits(&config()), "a probe that says nothing makes place for another");
        // What began before the pause is no probe.
        breaker.start();
        breaker.end(false);
        assert!(!breaker.admits(&config()));
    }

    #[test]
    fn one_success_closes_it_and_one_failed_probe_opens_it_again() {
        let mut breaker = open(0);
        breaker.pass(at(60));
        breaker.start();
        assert!(!breaker.fail(false, &config(), at(61)), "a late failure of before");
        breaker.end(true);
        assert!(breaker.fail(true, &config(), at(62)));
        assert_eq!(breaker.state(), BreakerState::Open { until: at(122) });
        breaker.pass(at(122));
        breaker.start();
        breaker.end(true);
        assert!(breaker.succeed());
        assert!(breaker.is_calm() && breaker.admits(&config()));
    }

    #[test]
    fn a_late_success_closes_it_too() {
        let mut breaker = open(0);
        assert!(breaker.succeed());
        assert!(breaker.admits(&config()));
    }

    proptest! {
        #[test]
        fn it_never_lets_more_probes_through_than_configured(steps in prop::collection::vec(0..5_u8, 1..400)) {
            let (mut breaker, mut now, mut probes) = (Breaker::default(), 0, Vec::new());
            for step in steps {
                match step {
                    0 | 1 => if breaker.admits(&config()) { probes.push(breaker.start()); },
                    2 => { now += 30; breaker.pass(at(now)); },
                    _ => if let Some(probe) = probes.pop() {
                        breaker.end(probe);
                        if step == 3 { breaker.fail(probe, &config(), at(now)); }
                    },
                }
                if let State::HalfOpen { calls } = breaker.state {
                    prop_assert!(calls <= config().half_open_max_calls);
                }
                // Whatever happens, it is over after a pause.
                let mut later = breaker;
                later.pass(at(now + 60));
                let open = matches!(later.state, State::Open { .. });
                prop_assert!(!open);
            }
        }
    }
}
