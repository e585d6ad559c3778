//! Files to delete: in order or not, and again when it fails.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// When a deletion that failed is tried again, and when that is an operator's business.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) interval: Duration,
    pub(crate) max_attempts: u32,
}

/// The longest wait.
const MAX_INTERVAL: Duration = Duration::from_hours(1);

impl Schedule {
    fn wait(&self, failures: u32) -> Duration {
        let doubled = self.interval.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(MAX_INTERVAL.max(self.interval))
    }
}

/// Files to delete.
#[derive(Debug)]
pub(crate) struct Deletions<T> {
    schedule: Schedule,
    /// Whether each waits until those before are gone.
    ordered: bool,
    untried: VecDeque<T>,
    /// When each is tried again, and how often it has failed.
    failed: BTreeMap<(Instant, T), u32>,
    /// Failures of the one that is being tried.
    trying: u32,
    alarming: usize,
}

impl<T: Copy + Ord> Deletions<T> {
    pub(crate) fn new(schedule: Schedule, ordered: bool) -> Self {
        Self { schedule, ordered, untried: VecDeque::new(), failed: BTreeMap::new(), trying: 0, alarming: 0 }
    }

    pub(crate) fn add(&mut self, files: impl IntoIterator<Item = T>) {
        self.untried.extend(files);
    }

    /// Takes out the next to try. What failed before is left alone when there is no time for another failure.
    pub(crate) fn next(&mut self, now: Instant, only_untried: bool) -> Option<T> {
        if let Some(entry) = self.failed.first_entry() {
            let (due, what) = *entry.key();
            if due <= now && !only_untried {
                self.trying = entry.remove();
                return Some(what);
            }
            if self.ordered {
                return None;
            }
        }
        self.trying = 0;
        self.untried.pop_front()
    }

    /// Notes what became of the one that was tried, at the time of a failure; returns how often it has failed.
    pub(crate) fn done(&mut self, what: T, failed: Option<Instant>) -> u32 {
        let Some(now) = failed else {
            self.alarming -= usize::from(self.trying >= self.schedule.max_attempts);
            return 0;
        };
        let failures = self.trying.saturating_add(1);
        self.alarming += usize::from(failures == self.schedule.max_attempts);
        self.failed.insert((now + self.schedule.wait(failures), what), failures);
        failures
    }

    /// When the next that failed is to be tried again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.failed.keys().next().map(|(due, _)| *due)
    }

    /// How many have failed as often as an operator should know.
    pub(crate) fn alarming(&self) -> usize {
        self.alarming
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { interval: Duration::from_mins(1), max_attempts: 3 };

    #[test]
    fn a_deletion_that_fails_is_tried_again_later_and_later() {
        let mut deletions = Deletions::new(SCHEDULE, false);
        deletions.add([1, 2]);
        let mut now = Instant::now();
        assert_eq!(deletions.next(now, false), Some(1));
        assert_eq!(deletions.done(1, Some(now)), 1);
        assert_eq!(deletions.next(now, false), Some(2), "the others don't wait");
        assert_eq!(deletions.done(2, None), 0);
        let mut waits = Vec::new();
        for failures in 2..9 {
            assert_eq!(deletions.next(now, false), None);
            let due = deletions.due().unwrap();
            waits.push((due - now).as_secs() / 60);
            now = due;
            assert_eq!(deletions.next(now, false), Some(1));
            assert_eq!(deletions.done(1, Some(now)), failures);
            assert_eq!(deletions.alarming(), usize::from(failures >= 3));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60]);
        now = deletions.due().unwrap();
        assert_eq!(deletions.next(now, false), Some(1));
        assert_eq!(deletions.done(1, None), 0);
        assert_eq!((deletions.alarming(), deletions.due()), (0, None));
    }

    #[test]
    fn in_order_nothing_overtakes_what_failed() {
        let mut deletions = Deletions::new(SCHEDULE, true);
        deletions.add([1, 2]);
        let now = Instant::now();
        assert_eq!(deletions.next(now, false), Some(1));
        deletions.done(1, Some(now));
        assert_eq!(deletions.next(now, false), None);
        let due = deletions.due().unwrap();
        assert_eq!(deletions.next(due, true), None, "not at the end");
        assert_eq!(deletions.next(due, false), Some(1));
        deletions.done(1, None);
        assert_eq!(deletions.next(due, false), Some(2));
    }
}
