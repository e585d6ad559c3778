//! Files to delete: in order or not, and again when it fails.

use std::{collections::VecDeque, time::Duration};

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
    /// Whether each waits until those before are gone.
    ordered: bool,
    waiting: VecDeque<Waiting<T>>,
    /// Failures of the one that is being tried.
    trying: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    what: T,
    failures: u32,
    /// `None` if it was not tried yet.
    due: Option<Instant>,
}

impl<T: Copy> Deletions<T> {
    pub(crate) fn new(ordered: bool) -> Self {
        Self { ordered, waiting: VecDeque::new(), trying: 0 }
    }

    pub(crate) fn add(&mut self, files: impl IntoIterator<Item = T>) {
        self.waiting.extend(files.into_iter().map(|what| Waiting { what, failures: 0, due: None }));
    }

    /// Takes out the next to try. What failed before is left alone when there is no time for another failure.
    pub(crate) fn next(&mut self, now: Instant, only_untried: bool) -> Option<T> {
        let ready = |waiting: &Waiting<T>| waiting.due.is_none_or(|due| due <= now && !only_untried);
        let place = if self.ordered {
            self.waiting.front().is_some_and(ready).then_some(0)
        } else {
            self.waiting.iter().position(ready)
        };
        let next = self.waiting.remove(place?)?;
        self.trying = next.failures;
        Some(next.what)
    }

    /// Notes what became of the one that was tried; returns how often it has failed.
    pub(crate) fn done(&mut self, what: T, failed: Option<(&Schedule, Instant)>) -> u32 {
        let Some((schedule, now)) = failed else {
            return 0;
        };
        let failures = self.trying.saturating_add(1);
        let again = Waiting { what, failures, due: Some(now + schedule.wait(failures)) };
        if self.ordered {
            self.waiting.push_front(again);
        } else {
            self.waiting.push_back(again);
        }
        failures
    }

    /// When the next that failed is to be tried again.
    pub(crate) fn due(&self) -> Option<Instant> {
        let considered = if self.ordered { 1 } else { usize::MAX };
        self.waiting.iter().take(considered).filter_map(|waiting| waiting.due).min()
    }

    /// How many have failed as often as an operator should know.
    pub(crate) fn alarming(&self, schedule: &Schedule) -> usize {
        self.waiting.iter().filter(|waiting| waiting.failures >= schedule.max_attempts).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { interval: Duration::from_mins(1), max_attempts: 3 };

    #[test]
    fn a_deletion_that_fails_is_tried_again_later_and_later() {
        let mut deletions = Deletions::new(false);
        deletions.add([1, 2]);
        let mut now = Instant::now();
        assert_eq!(deletions.next(now, false), Some(1));
        assert_eq!(deletions.done(1, Some((&SCHEDULE, now))), 1);
        assert_eq!(deletions.next(now, false), Some(2), "the others don't wait");
        assert_eq!(deletions.done(2, None), 0);
        let mut waits = Vec::new();
        for failures in 2..9 {
            assert_eq!(deletions.next(now, false), None);
            let due = deletions.due().unwrap();
            waits.push((due - now).as_secs() / 60);
            now = due;
            assert_eq!(deletions.next(now, false), Some(1));
            assert_eq!(deletions.done(1, Some((&SCHEDULE, now))), failures);
            assert_eq!(deletions.alarming(&SCHEDULE), usize::from(failures >= 3));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60]);
    }

    #[test]
    fn in_order_nothing_overtakes_what_failed() {
        let mut deletions = Deletions::new(true);
        deletions.add([1, 2]);
        let now = Instant::now();
        assert_eq!(deletions.next(now, false), Some(1));
        deletions.done(1, Some((&SCHEDULE, now)));
        assert_eq!(deletions.next(now, false), None);
        let due = deletions.due().unwrap();
        assert_eq!(deletions.next(due, true), None, "not at the end");
        assert_eq!(deletions.next(due, false), Some(1));
        deletions.done(1, None);
        assert_eq!(deletions.next(due, false), Some(2));
    }
}
