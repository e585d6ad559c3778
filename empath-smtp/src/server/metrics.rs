use empath_metrics::{Counter, Family, Gauge, Histogram, Registry};

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

/// Codes 400 to 599.
const MAX_CODES: usize = 200;

const SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

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
        Self {
            connections: registry
                .counter("empath_smtp_connections_total", "SMTP connections accepted from clients"),
            active: registry.gauge("empath_smtp_connections_active", "SMTP sessions at present"),
            errors,
            authentications,
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
}
