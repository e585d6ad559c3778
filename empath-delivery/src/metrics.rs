use std::sync::Arc;

use empath_common::{Clock, Domain, Priority};
use empath_metrics::{Counter, Family, Gauge, Histogram, Kind, Registry};
use jiff::Timestamp;

use crate::queue::{BreakerState, Event, MessageStatus, Queue};

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
    /// Under policies that can do without TLS, and under those that can't.
    tls_failures: [Family<Counter>; 2],
    pub(crate) pool_hits: Counter,
    pub(crate) pool_misses: Counter,
    pool_size: Gauge,
    rate_limited: Family<Counter>,
    breaker: Breaker,
    sizes: [Gauge; MessageStatus::ALL.len()],
    registry: Registry,
}

#[derive(Clone)]
struct Breaker {
    state: Family<Gauge>,
    trips: Family<Counter>,
    recoveries: Family<Counter>,
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
            tls_failures: registry.counters_by_kind(
                "empath_delivery_tls_handshake_failures_total",
                "Connections that could not be encrypted although the host offers it, by the recipient's domain and our policy.",
                "domain",
                ("policy", ["opportunistic", "required"]),
                MAX_LABELS,
            ),
            pool_hits: registry.counter(
                "empath_delivery_pool_hits_total",
                "Attempts that found an open connection to the destination.",
            ),
            pool_misses: registry.counter(
                "empath_delivery_pool_misses_total",
                "Connections that were opened, because there was none or the peer had closed it.",
            ),
            pool_size: registry
                .gauge("empath_delivery_pool_size", "Open outgoing connections that wait for a message."),
            rate_limited: registry.counters(
                "empath_delivery_rate_limited_total",
                "Times that mail began to wait for a rate limit, by domain.",
                "domain",
                MAX_LABELS,
            ),
            breaker: Breaker {
                state: registry.gauges(
                    "empath_delivery_circuit_breaker_state",
                    "The circuit breaker of a destination: 0 closed, 1 open, 2 half open. A destination is not shown before its first trip.",
                    "domain",
                    MAX_LABELS,
                ),
                trips: registry.counters(
                    "empath_delivery_circuit_breaker_trips_total",
                    "Times that the circuit breaker of a destination opened.",
                    "domain",
                    MAX_LABELS,
                ),
                recoveries: registry.counters(
                    "empath_delivery_circuit_breaker_recoveries_total",
                    "Times that the circuit breaker of a destination closed again.",
                    "domain",
                    MAX_LABELS,
                ),
            },
            sizes: MessageStatus::ALL.map(|status| sizes.with(status.as_str())),
            registry: registry.clone(),
        }
    }

    /// A connection for mail to `domain` could not be encrypted.
    pub(crate) fn tls_failed(&self, domain: &Domain, required: bool) {
        let [opportunistic, always] = &self.tls_failures;
        let of_policy = if required { always } else { opportunistic };
        of_policy.with(domain.as_str()).increment();
    }

    /// Shows the queue as it is now.
    pub(crate) fn show(&self, queue: &Queue) {
        for (gauge, status) in self.sizes.iter().zip(MessageStatus::ALL) {
            gauge.set(i64::try_from(queue.count_of(status)).unwrap_or(i64::MAX));
        }
        self.pool_size.set(i64::try_from(queue.idle_connections()).unwrap_or(i64::MAX));
    }

    /// Counts what happened to a destination.
    pub(crate) fn happened(&self, event: &Event) {
        match event {
            Event::RateLimited { domain } => self.rate_limited.with(domain).increment(),
            Event::Breaker { domain, state, .. } => {
                let Breaker { state: gauge, trips, recoveries } = &self.breaker;
                let gauge = gauge.with(domain);
                match state {
                    BreakerState::Closed => {
                        gauge.set(0);
                        recoveries.with(domain).increment();
                    }
                    BreakerState::Open { .. } => {
                        gauge.set(1);
                        trips.with(domain).increment();
                    }
                    BreakerState::HalfOpen => gauge.set(2),
                }
            }
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
