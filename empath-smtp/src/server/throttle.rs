use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lets one log line through every so often, and counts the others: a flood must not fill the log.
#[derive(Debug)]
pub(super) struct Throttle {
    every: Duration,
    last: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    pub(super) const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new((None, 0)) }
    }

    /// Whether a line may be written, and how many were not since the one before.
    pub(super) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, held) = &mut *last;
        if time.is_some_and(|time| now < time + self.every) {
            *held += 1;
            return None;
        }
        *time = Some(now);
        Some(std::mem::take(held))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_at_a_time_and_says_how_many_did_not() {
        let throttle = Throttle::new(Duration::from_secs(1));
        assert_eq!([throttle.pass(), throttle.pass(), throttle.pass()], [Some(0), None, None]);
        advance(Duration::from_secs(1)).await;
        assert_eq!([throttle.pass(), throttle.pass()], [Some(2), None]);
    }
}
