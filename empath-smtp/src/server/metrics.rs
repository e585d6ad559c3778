use std::{io, sync::Arc, time::Duration};

use empath_metrics::{Counter, Family, Gauge, Histogram, Registry};

use super::verb::{VERBS, Verb};

/// What the server counts. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connections that were accepted, those over a limit included.
    pub(super) connections: Counter,
    /// Sessions at present.
    pub(super) active: Gauge,
    /// Replies 4yz and 5yz by code.
    pub(super) errors: Family<Counter>,
    /// Authentications by their result.
    pub(super) authentications: Family<Counter>,
    /// Handshakes that succeeded, by version.
    tls_sessions: Family<Counter>,
    /// Handshakes that did not, by the reason.
    tls_failures: Family<Counter>,
    /// How long we took to answer, in the order of [`VERBS`].
    commands: Arc<[Histogram]>,
    /// How long sessions took.
    pub(super) session_duration: Histogram,
    /// Messages answered 250.
    pub(super) messages: Counter,
    /// Their size.
    pub(super) message_size: Histogram,
}

/// The refusals that the server itself gives; they are there from the start, at zero. Hooks may add any code.
const CODES: [&str; 18] = [
    "421", "451", "452", "454", "500", "501", "502", "503", "504", "530", "535", "538", "550", "552", "553",
    "554", "555", "other",
];

/// What becomes of authentications.
const RESULTS: [&str; 3] = ["accepted", "refused", "blocked"];

/// The versions of TLS that there are for clients.
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// Why handshakes fail: the client went away, took too long, or something in the handshake was wrong.
const HANDSHAKE_FAILURES: [&str; 3] = ["closed", "timeout", "protocol"];

/// Codes 400 to 599.
const MAX_CODES: usize = 200;

const SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// Answering takes microseconds, or as long as disks, hooks and hashes do.
const ANSWERS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

const OCTETS: &[f64] = &[1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

impl Metrics {
    /// The server's metrics, defined in `registry`.
    pub fn new(registry: &Registry) -> Self {
        let errors = registry.counters(
            "empath_smtp_errors_total",
            "Replies 4yz and 5yz to SMTP clients, by code",
            "code",
            MAX_CODES,
        );
        for code in CODES {
            errors.with(code);
        }
        let authentications = registry.counters(
            "empath_smtp_authentications_total",
            "Authentications of SMTP clients, by result",
            "result",
            RESULTS.len(),
        );
        for result in RESULTS {
            authentications.with(result);
        }
        let tls_sessions = registry.counters(
            "empath_smtp_tls_sessions_total",
            "TLS handshakes of SMTP clients that succeeded, by version",
            "version",
            VERSIONS.len(),
        );
        for version in VERSIONS {
            tls_sessions.with(version);
        }
        let tls_failures = registry.counters(
            "empath_smtp_tls_handshake_failures_total",
            "TLS handshakes of SMTP clients that failed, by reason",
            "reason",
            HANDSHAKE_FAILURES.len(),
        );
        for reason in HANDSHAKE_FAILURES {
            tls_failures.with(reason);
        }
        let commands = registry.histograms(
            "empath_smtp_command_duration_seconds",
            "From an SMTP command to our reply, or from the end of the content",
            "command",
            VERBS.len(),
            ANSWERS,
        );
        Self {
            connections: registry
                .counter("empath_smtp_connections_total", "SMTP connections accepted from clients"),
            active: registry.gauge("empath_smtp_connections_active", "SMTP sessions at present"),
            errors,
            authentications,
            tls_sessions,
            tls_failures,
            commands: VERBS.iter().map(|verb| commands.with(verb)).collect(),
            session_duration: registry.histogram(
                "empath_smtp_session_duration_seconds",
                "How long SMTP sessions took",
                SECONDS,
            ),
            messages: registry
                .counter("empath_smtp_messages_received_total", "Messages accepted from SMTP clients"),
            message_size: registry.histogram(
                "empath_smtp_message_size_bytes",
                "Content of the messages accepted from SMTP clients",
                OCTETS,
            ),
        }
    }

    /// We took so long to answer this command.
    pub(super) fn answered(&self, verb: Verb, took: Duration) {
        if let Some(histogram) = self.commands.get(verb.place()) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// A client's connection is encrypted.
    pub(super) fn encrypted(&self, version: &str) {
        self.tls_sessions.with(version).increment();
    }

    /// A client's handshake came to nothing; `None` if it took too long.
    pub(super) fn handshake_failed(&self, failure: Option<&io::Error>) {
        let reason = match failure.map(io::Error::kind) {
            None => "timeout",
            Some(io::ErrorKind::InvalidData) => "protocol",
            Some(_) => "closed",
        };
        self.tls_failures.with(reason).increment();
    }
}
