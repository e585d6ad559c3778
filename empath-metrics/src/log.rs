//! Logs: one event, one line, on standard output.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    time::Duration,
};

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt as _, reload,
};

use crate::lines::{Escapes, Lines};

/// What is logged, and how it looks. Logs go to standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a log line looks.
    ///
    /// Default: `Auto`.
    pub format: Format,
    /// How much is logged: `error`, `warn`, `info`, `debug` or `trace`.
    ///
    /// `info` has a line for each event in the life of a message; `debug` adds the decisions behind them. Parts of the
    /// program can have levels of their own: `"info,empath_smtp=debug"`. The environment variable `RUST_LOG`
    /// takes precedence. Default: `"info"`.
    pub level: String,
}

/// The look of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// JSON Lines: a flat object with `timestamp`, `level`, `target`, `message` and the fields of the event.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".to_owned() }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` is no filter.
    #[error("RUST_LOG is not a log filter: {0}")]
    Environment(#[source] ParseError),
    /// `log.level` is no filter.
    #[error("log.level is not a log filter: {0}")]
    Level(#[source] ParseError),
    /// The log has ended.
    #[error("the log has ended: {0}")]
    Ended(#[source] reload::Error),
    /// There is no standard output, or no thread for it.
    #[error("the log cannot be written to standard output: {0}")]
    Output(#[source] io::Error),
    /// Logging was set up before.
    #[error("logging is set up twice")]
    Twice(#[source] SetGlobalDefaultError),
}

/// Keeps the log going. When this is dropped, what still waits is written, for a second at most.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub struct Logging {
    lines: Lines,
    level: Level,
}

/// Changes how much is logged.
#[derive(Debug, Clone)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    fixed: bool,
}

/// A slow reader of the log delays the end of the daemon by this at most.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Drop for Logging {
    fn drop(&mut self) {
        self.lines.flush(LAST_LINES);
        self.lines.close();
    }
}

impl Logging {
    /// What changes how much is logged.
    pub fn level(&self) -> Level {
        self.level.clone()
    }
}

impl Level {
    /// Whether the environment variable `RUST_LOG` says how much is logged, whatever the configuration does.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// From now on this much is logged, unless it [is fixed](Self::is_fixed).
    pub fn set(&self, config: &LogConfig) -> Result<(), LogError> {
        if self.fixed {
            return Ok(());
        }
        let filter = filter(&config.level).map_err(LogError::Level)?;
        self.filter.reload(filter).map_err(LogError::Ended)
    }
}

impl LogConfig {
    /// What is wrong with the configuration.
    pub fn validate(&self) -> Vec<Problem> {
        match filter(&self.level) {
            Ok(_) if self.level.split(',').all(is_known) => Vec::new(),
            Ok(_) => {
                let message =
                    "is none of error, warn, info, debug, trace and off, nor a list of `target=level`";
                vec![Problem::new("level", message)]
            }
            Err(error) => vec![Problem::new("level", format!("is not a log filter: {error}"))],
        }
    }

    fn escapes(&self, terminal: bool) -> Escapes {
        match self.format {
            Format::Text => Escapes::Text,
            Format::Auto if terminal => Escapes::Text,
            Format::Auto | Format::Json => Escapes::Json,
        }
    }
}

/// Sends the events of the whole process to standard output.
///
/// Whoever logs never waits and never fails: when the reader of the output is too slow, lines are dropped and
/// counted; when it is gone, they are dropped.
pub fn start(config: &LogConfig) -> Result<Logging, LogError> {
    let (filter, fixed) = match env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            (filter(&directives).map_err(LogError::Environment)?, true)
        }
        _ => (filter(&config.level).map_err(LogError::Level)?, false),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let stdout = io::stdout();
    let escapes = config.escapes(stdout.is_terminal());
    // A file of our own, since std's buffers standard output by lines and can't be used after a failure.
    let output = stdout.as_fd().try_clone_to_owned().map_err(LogError::Output)?;
    let lines = Lines::start(fs::File::from(output), escapes).map_err(LogError::Output)?;
    let subscriber = Registry::default().with(layer(lines.clone(), escapes).with_filter(filter));
    tracing::subscriber::set_global_default(subscriber).map_err(LogError::Twice)?;
    Ok(Logging { lines, level: Level { filter: handle, fixed } })
}

/// The filter would take a misspelt level for a target, and log nothing else.
fn is_known(directive: &str) -> bool {
    let level = ["error", "warn", "info", "debug", "trace", "off"];
    directive.contains(['=', '[', ']', '{', '}'])
        || level.iter().any(|level| directive.eq_ignore_ascii_case(level))
}

/// The resolver library logs every failed query as a warning; that is our caller's business. What is said about
/// it in `directives` wins.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder()
        .parse(format!("hickory_net=error,hickory_proto=error,hickory_resolver=error,{directives}"))
}

fn layer(lines: Lines, escapes: Escapes) -> Box<dyn Layer<Registry> + Send + Sync> {
    // Colours are off since the escapes that make them are what must never reach a terminal.
    let layer = fmt::layer().with_writer(lines).with_ansi(false).log_internal_errors(false);
    match escapes {
        Escapes::Text => layer.boxed(),
        Escapes::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(escapes: Escapes, directives: &str, events: impl FnOnce()) -> String {
        let output = Output::default();
        let lines = Lines::start(output.clone(), escapes).unwrap();
        let layer = layer(lines.clone(), escapes).with_filter(filter(directives).unwrap());
        tracing::subscriber::with_default(Registry::default().with(layer), events);
        lines.flush(Duration::from_secs(10));
        let octets = output.0.lock().unwrap().clone();
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn a_json_line_is_flat_and_has_every_field() {
        let log = logged(Escapes::Json, "info", || {
            tracing::info!(id = "01J", size = 5, "received");
        });
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "received");
        assert_eq!(line["id"], "01J");
        assert_eq!(line["size"], 5);
        assert!(line["target"].as_str().unwrap().starts_with("empath_metrics"));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn one_event_is_one_line_whatever_a_peer_sent() {
        let evil = "a\r\nb\u{1b}[2J\u{202e}\u{9b}\u{2028}c";
        for escapes in [Escapes::Text, Escapes::Json] {
            let log = logged(escapes, "info", || {
                tracing::info!(display = %evil, debug = ?evil, text = evil, "{evil}");
            });
            assert_eq!(log.lines().count(), 1, "{log:?}");
            assert!(log.trim_end().chars().all(|c| !c.is_control()), "{log:?}");
            assert!(!log.contains(['\u{202e}', '\u{2028}']), "{log:?}");
            if escapes == Escapes::Json {
                let line: serde_json::Value = serde_json::from_str(&log).unwrap();
                assert_eq!(line["text"], evil);
            }
        }
    }

    #[test]
    fn the_resolver_is_quiet_unless_asked_for() {
        let noise = || tracing::warn!(target: "hickory_resolver::name_server", "noise");
        assert_eq!(logged(Escapes::Text, "info", noise), "");
        assert!(logged(Escapes::Text, "info,hickory_resolver=warn", noise).contains("noise"));
    }

    #[test]
    fn the_level_decides_what_is_logged() {
        let events = || {
            tracing::debug!("decision");
            tracing::warn!("coped");
        };
        assert!(!logged(Escapes::Text, "info", events).contains("decision"));
        assert!(logged(Escapes::Text, "debug", events).contains("decision"));
        let problems = |level: &str| LogConfig { level: level.to_owned(), ..LogConfig::default() }.validate();
        for wrong in ["empath=loud", "bogus", "info,bogus", ""] {
            assert_eq!(problems(wrong).first().unwrap().key, "level", "{wrong}");
        }
        for right in ["INFO", "off", "info,empath_smtp=debug", "warn,[session{id=1}]=trace"] {
            assert_eq!(problems(right), [], "{right}");
        }
        assert_eq!(LogConfig::default().validate(), []);
    }

    #[test]
    fn the_level_can_change_while_things_are_logged() {
        let output = Output::default();
        let lines = Lines::start(output.clone(), Escapes::Text).unwrap();
        let (filter, handle) = reload::Layer::new(filter("warn").unwrap());
        let level = Level { filter: handle, fixed: false };
        let subscriber = Registry::default().with(layer(lines.clone(), Escapes::Text).with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            for (n, to) in ["debug", "info", "off"].into_iter().enumerate() {
                tracing::info!("number {n}");
                tracing::debug!("decision {n}");
                level.set(&LogConfig { level: to.to_owned(), ..LogConfig::default() }).unwrap();
            }
            tracing::error!("the last");
        });
        lines.flush(Duration::from_secs(10));
        let log = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let said: Vec<_> = log.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
        assert_eq!(said, ["number 1", "decision 1", "number 2"]);
    }

    #[test]
    fn a_terminal_gets_text_and_everything_else_json() {
        let format = |format, terminal| LogConfig { format, ..LogConfig::default() }.escapes(terminal);
        assert_eq!(format(Format::Auto, true), Escapes::Text);
        assert_eq!(format(Format::Auto, false), Escapes::Json);
        assert_eq!(format(Format::Text, false), Escapes::Text);
        assert_eq!(format(Format::Json, true), Escapes::Json);
    }
}
