use empath_metrics::{Counter, Gauge, Histogram, Registry};

use crate::index::Index;

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
    pub(crate) segments: Gauge,
    pub(crate) live: Gauge,
    pub(crate) large: Gauge,
    pub(crate) oldest: Gauge,
    pub(crate) compacted: Counter,
    pub(crate) condensed: Counter,
    pub(crate) deletion_failures: Counter,
    pub(crate) undeleted: Gauge,
    pub(crate) kept: Gauge,
    pub(crate) damaged_octets: Gauge,
}

/// Octets that a spool takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The journal's segments.
    pub journal: u64,
    /// Of those, the records of messages that have not ended.
    pub live: u64,
    /// Large messages, which have files of their own.
    pub large: u64,
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
            segments: registry.gauge("empath_spool_journal_bytes", "Octets of the journal's segments."),
            live: registry.gauge(
                "empath_spool_live_bytes",
                "Octets of the journal's records of messages that have not ended.",
            ),
            large: registry.gauge("empath_spool_large_bytes", "Octets of large messages' own files."),
            oldest: registry.gauge(
                "empath_spool_oldest_timestamp_seconds",
                "When the oldest message in the spool was begun, in seconds since 1970; 0 if there is none.",
            ),
            compacted: registry.counter(
                "empath_spool_compacted_total",
                "Messages written again so that the segment where they stood can be given up.",
            ),
            condensed: registry.counter(
                "empath_spool_condensed_total",
                "Messages whose history was written again in one record because it was in too many.",
            ),
            deletion_failures: registry.counter(
                "empath_spool_deletion_failures_total",
                "Failures to delete a file of the spool; each is tried again.",
            ),
            undeleted: registry.gauge(
                "empath_spool_undeleted_files",
                "Files that could not be deleted in max_cleanup_attempts attempts.",
            ),
            kept: registry.gauge(
                "empath_spool_kept_segments",
                "Segments that stay, with all younger ones, because they cannot be read or their damage not be copied.",
            ),
            damaged_octets: registry
                .gauge("empath_spool_damaged_bytes", "Octets of what is kept of damage; max_damaged bounds it."),
        }
    }

    /// How much there is.
    pub fn usage(&self) -> Usage {
        let octets = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        Usage { journal: octets(&self.segments), live: octets(&self.live), large: octets(&self.large) }
    }

    /// Says how much there is.
    pub(crate) fn holds(&self, index: &Index) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (segments, live, large) = index.octets();
        self.messages.set(signed(index.len() as u64));
        self.segments.set(signed(segments));
        self.live.set(signed(live));
        self.large.set(signed(large));
        self.kept.set(signed(index.kept().count() as u64));
        self.oldest.set(index.oldest().map_or(0, |id| signed(id.milliseconds() / 1000)));
    }
}
