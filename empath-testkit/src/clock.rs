//! Wall-clock time for tests whose time is paused.

use empath_common::Clock;
use jiff::Timestamp;
use tokio::time::Instant;

/// Wall-clock time that runs with tokio's, from the beginning of 2026.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    start: Instant,
}

impl VirtualClock {
    /// It is the beginning of 2026 now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        // 2026-01-01T00:00:00Z
        Timestamp::constant(1_767_225_600, 0) + self.start.elapsed()
    }
}
