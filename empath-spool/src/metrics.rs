use empath_metrics::{Counter, Gauge, Histogram, Registry};

/// What the spool counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) commits: Counter,
    pub(crate) refused: Counter,
    pub(crate) batches: Counter,
    pub(crate) written: Counter,
    pub(crate) sync: Histogram,
    pub(crate) damaged: Counter,
    pub(crate) messages: Gauge,
}

const SYNC_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

impl Metrics {
    /// Defines the metrics in the daemon's registry.
    pub fn new(registry: &Registry) -> Self {
        Self {
            commits: registry.counter("empath_spool_commits_total", "Batches made durable."),
            refused: registry
                .counter("empath_spool_refused_total", "Batches that could not be made durable."),
            batches: registry.counter(
                "empath_spool_batches_total",
                "Writes to the journal, each with one sync, of one or more batches.",
            ),
            written: registry.counter("empath_spool_written_bytes_total", "Octets written to the journal."),
            sync: registry.histogram(
                "empath_spool_sync_duration_seconds",
                "Time that one write to the journal and its sync took.",
                SYNC_SECONDS,
            ),
            damaged: registry.counter(
                "empath_spool_damaged_total",
                "Damaged ranges found in the journal and quarantined.",
            ),
            messages: registry.gauge("empath_spool_messages", "Messages in the spool."),
        }
    }
}
