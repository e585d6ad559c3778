use jiff::Timestamp;

/// Where wall-clock time comes from. It is a parameter everywhere, so that a test can run five days of retries
/// in milliseconds.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where wall-clock time enters")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
