use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde::Serialize;

/// A part of the daemon that must work for it to take mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every SMTP listener is bound and accepts.
    Smtp,
    /// The spool is recovered and can be written.
    Spool,
    /// The delivery processor runs.
    Delivery,
    /// The name servers answer.
    Dns,
}

/// Whether the daemon can take mail. Each part sets and clears its own latch; all begin cleared. Cloning
/// shares it.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    smtp: Latch,
    spool: Latch,
    delivery: Latch,
    dns: Latch,
    queue_size: OnceLock<Asked<u64>>,
    max_queue_size: u64,
}

#[derive(Debug, Default)]
struct Latch {
    set: AtomicBool,
    check: OnceLock<Asked<bool>>,
}

/// Something that is found out when somebody wants to know.
struct Asked<T>(Box<dyn Fn() -> T + Send + Sync>);

impl<T> fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

/// The answer of `/health/ready`.
#[expect(clippy::struct_excessive_bools, reason = "the members of a JSON object")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    smtp: bool,
    spool: bool,
    delivery: bool,
    dns: bool,
    queue_size: u64,
    max_queue_size: u64,
}

impl Latch {
    fn is_ready(&self) -> bool {
        self.set.load(Relaxed) && self.check.get().is_none_or(|check| (check.0)())
    }
}

impl Readiness {
    /// Nothing is ready. It will not be while more than `max_queue_size` messages are queued.
    pub fn new(max_queue_size: u64) -> Self {
        Self(Arc::new(Inner {
            smtp: Latch::default(),
            spool: Latch::default(),
            delivery: Latch::default(),
            dns: Latch::default(),
            queue_size: OnceLock::new(),
            max_queue_size,
        }))
    }

    /// A part became ready, or no longer is.
    pub fn set(&self, part: Part, ready: bool) {
        self.latch(part).set.store(ready, Relaxed);
    }

    /// From now on a part is ready only while its latch is set and `check` says so. `check` must be quick. The
    /// first one given stays.
    pub fn check(&self, part: Part, check: impl Fn() -> bool + Send + Sync + 'static) {
        self.latch(part).check.get_or_init(|| Asked(Box::new(check)));
    }

    /// Where the length of the queue comes from. The first one given stays; before, the queue counts as empty.
    pub fn queue_size(&self, size: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.queue_size.get_or_init(|| Asked(Box::new(size)));
    }

    /// Whether the daemon can take mail now.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    pub(crate) fn report(&self) -> Report {
        let inner = &*self.0;
        let [smtp, spool, delivery, dns] =
            [&inner.smtp, &inner.spool, &inner.delivery, &inner.dns].map(Latch::is_ready);
        let queue_size = inner.queue_size.get().map_or(0, |size| (size.0)());
        let max_queue_size = inner.max_queue_size;
        let ready = smtp && spool && delivery && dns && queue_size <= max_queue_size;
        Report { ready, smtp, spool, delivery, dns, queue_size, max_queue_size }
    }

    fn latch(&self, part: Part) -> &Latch {
        match part {
            Part::Smtp => &self.0.smtp,
            Part::Spool => &self.0.spool,
            Part::Delivery => &self.0.delivery,
            Part::Dns => &self.0.dns,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const PARTS: [Part; 4] = [Part::Smtp, Part::Spool, Part::Delivery, Part::Dns];

    #[test]
    fn every_part_is_needed() {
        let readiness = Readiness::new(10);
        assert!(!readiness.is_ready());
        for part in PARTS {
            readiness.set(part, true);
        }
        assert!(readiness.is_ready());
        for part in PARTS {
            readiness.set(part, false);
            assert!(!readiness.is_ready(), "{part:?}");
            readiness.set(part, true);
        }
    }

    #[test]
    fn a_check_counts_beside_the_latch() {
        let readiness = Readiness::new(10);
        let healthy = Arc::new(AtomicBool::new(false));
        let spool = Arc::clone(&healthy);
        readiness.check(Part::Spool, move || spool.load(Relaxed));
        for part in PARTS {
            readiness.set(part, true);
        }
        assert!(!readiness.is_ready());
        healthy.store(true, Relaxed);
        assert!(readiness.is_ready());
        readiness.set(Part::Spool, false);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_queue_that_is_too_long_makes_unready() {
        let readiness = Readiness::new(10);
        let queued = Arc::new(AtomicU64::new(10));
        let size = Arc::clone(&queued);
        readiness.queue_size(move || size.load(Relaxed));
        for part in PARTS {
            readiness.set(part, true);
        }
        assert!(readiness.is_ready());
        queued.store(11, Relaxed);
        assert!(!readiness.is_ready());
    }
}
