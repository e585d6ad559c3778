use empath_metrics::{Counter, Histogram, Registry};

use super::lookup::LookupError;

/// What the resolver counts.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) evictions: Counter,
    pub(super) duration: Histogram,
    servfail: Counter,
    refused: Counter,
    timeout: Counter,
    busy: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let errors = registry.counters(
            "empath_dns_errors_total",
            "Lookups that failed, by how; that a name or record does not exist is no failure.",
            "error",
            4,
        );
        let error = |error: LookupError| errors.with(error.as_str());
        Self {
            hits: registry.counter(
                "empath_dns_cache_hits_total",
                "Questions to the DNS that were answered from memory.",
            ),
            misses: registry.counter(
                "empath_dns_cache_misses_total",
                "Questions to the DNS that were not, among them those that waited for the lookup of another.",
            ),
            evictions: registry.counter(
                "empath_dns_cache_evictions_total",
                "Answers that were forgotten before their time because `delivery.dns.cache_size` was reached.",
            ),
            duration: registry.histogram(
                "empath_dns_lookup_duration_seconds",
                "Time that lookups took, whatever they came to.",
                &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            ),
            servfail: error(LookupError::Failed),
            refused: error(LookupError::Refused),
            timeout: error(LookupError::Timeout),
            busy: error(LookupError::Busy),
        }
    }

    pub(super) fn failed(&self, error: LookupError) {
        match error {
            LookupError::NoSuchName(_) | LookupError::NoRecords(_) => {}
            LookupError::Failed => self.servfail.increment(),
            LookupError::Refused => self.refused.increment(),
            LookupError::Timeout => self.timeout.increment(),
            LookupError::Busy => self.busy.increment(),
        }
    }
}
