use std::sync::Arc;

use empath_common::{Clock, Priority};
use empath_metrics::{Counter, Family, Gauge, Histogram, Kind, Registry};
use jiff::Timestamp;

use crate::queue::{MessageStatus, Queue};

/// Most values of the labels `domain` and `server`; the rest is `other`.
const MAX_LABELS: usize = 1000;

/// What delivery counts.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) delivered: Counter,
    pub(crate) deferred: Counter,
    pub(crate) bounced: Counter,
    pub(crate) expired: Counter,
    pub(crate) removed: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) duration: Family<Histogram>,
    pub(crate) active: Family<Gauge>,
    waits: [Histogram; Priority::ALL.len()],
    pub(crate) retries: Histogram,
    pub(crate) unreadable: Gauge,
    sizes: [Gauge; MessageStatus::ALL.len()],
    registry: Registry,
}

impl Metrics {
    /// Defines the metrics of delivery.
    pub fn new(registry: &Registry) -> Self {
        let attempts = registry.counters(
            "empath_delivery_attempts_total",
            "Delivery attempts by what they came to, one for each recipient.",
            "status",
            8,
        );
        let sizes =
            registry.gauges("empath_delivery_queue_size", "Messages in the queue by status.", "status", 8);
        let waits = registry.histograms(
            "empath_delivery_queue_wait_seconds",
            "Time that jobs were ready before a connection took them, by the priority of the message.",
            "priority",
            8,
            &[0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0],
        );
        Self {
            delivered: attempts.with("delivered"),
            deferred: attempts.with("deferred"),
            bounced: attempts.with("bounced"),
            expired: attempts.with("expired"),
            removed: registry.counter(
                "empath_delivery_removed_total",
                "Recipients that were removed from the queue by an operator.",
            ),
            duplicates: registry.counter(
                "empath_delivery_duplicates_total",
                "Recipients that were not delivered to because they had the same message already.",
            ),
            duration: registry.histograms(
                "empath_delivery_duration_seconds",
                "Time that attempts took from a job's start to its result, by the recipient's domain.",
                "domain",
                MAX_LABELS,
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0],
            ),
            active: registry.gauges(
                "empath_delivery_active_connections",
                "Open outgoing connections, idle ones included, by next hop.",
                "server",
                MAX_LABELS,
            ),
            waits: Priority::ALL.map(|priority| waits.with(priority.as_str())),
            retries: registry.histogram(
                "empath_delivery_retries",
                "Attempts that recipients took until they were delivered, bounced or expired.",
                &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 25.0],
            ),
            unreadable: registry.gauge(
                "empath_delivery_unreadable_messages",
                "Messages that the spool did not give back at the start, and that are tried again.",
            ),
            sizes: MessageStatus::ALL.map(|status| sizes.with(status.as_str())),
            registry: registry.clone(),
        }
    }

    /// Shows the queue as it is now.
    pub(crate) fn show(&self, queue: &Queue) {
        for (gauge, status) in self.sizes.iter().zip(MessageStatus::ALL) {
            gauge.set(i64::try_from(queue.count_of(status)).unwrap_or(i64::MAX));
        }
    }

    /// Counts how long a job was ready.
    pub(crate) fn waited(&self, priority: Priority, ready_at: Timestamp, now: Timestamp) {
        if let Some(waits) = self.waits.get(priority as usize) {
            waits.observe(now.duration_since(ready_at).as_secs_f64().max(0.0));
        }
    }

    /// Defines the age of the oldest message, which is found out when the metrics are read.
    pub(crate) fn watch_oldest(
        &self,
        clock: Arc<dyn Clock>,
        oldest: impl Fn() -> Option<Timestamp> + Send + Sync + 'static,
    ) {
        self.registry.collected(
            "empath_delivery_queue_oldest_seconds",
            "Age of the oldest message in the queue; 0 when there is none.",
            Kind::Gauge,
            move || {
                let age = oldest().map(|received| clock.now().duration_since(received).as_secs_f64());
                Some(age.unwrap_or(0.0).max(0.0))
            },
        );
    }
}
