use std::fmt::Write as _;

use crate::{
    Histogram, Registry,
    registry::{Kind, Values},
};

/// The media type of [`Registry::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Registry {
    /// Every metric in the Prometheus text format 0.0.4, by name. Metrics that never counted are there with zero.
    pub fn encode(&self) -> String {
        let mut page = Page::default();
        for (name, definition) in self.definitions() {
            page.header(name, definition.help, definition.values.kind());
            match definition.values {
                Values::Counter(counter) => page.sample(name, "", None, &[], counter.get()),
                Values::Gauge(gauge) => page.sample(name, "", None, &[], gauge.get()),
                Values::Histogram(histogram) => page.histogram(name, None, &histogram),
                Values::Collected(_, collect) => {
                    if let Some(value) = collect() {
                        page.sample(name, "", None, &[], value);
                    }
                }
                Values::Counters(label, family) => {
                    for (value, counter) in family.members() {
                        page.sample(name, "", Some((label, &value)), &[], counter.get());
                    }
                }
                Values::CountersByKind(label, kind, families) => {
                    for (of_kind, family) in families {
                        for (value, counter) in family.members() {
                            page.sample(name, "", Some((label, &value)), &[(kind, of_kind)], counter.get());
                        }
                    }
                }
                Values::Gauges(label, family) => {
                    for (value, gauge) in family.members() {
                        page.sample(name, "", Some((label, &value)), &[], gauge.get());
                    }
                }
                Values::Histograms(label, family) => {
                    for (value, histogram) in family.members() {
                        page.histogram(name, Some((label, &value)), &histogram);
                    }
                }
            }
        }
        page.0
    }
}

/// A label's name and value.
type Label<'a> = (&'a str, &'a str);

#[derive(Default)]
struct Page(String);

impl Page {
    fn header(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.0.push_str("# HELP ");
        self.0.push_str(name);
        self.0.push(' ');
        self.0.push_str(&help.replace('\\', "\\\\").replace('\n', "\\n"));
        self.line(format_args!("\n# TYPE {name} {kind}"));
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        label: Option<Label<'_>>,
        more: &[Label<'_>],
        value: impl std::fmt::Display,
    ) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        let mut before = '{';
        for (name, value) in label.iter().chain(more) {
            self.0.push(before);
            self.0.push_str(name);
            self.0.push_str("=\"");
            self.label_value(value);
            self.0.push('"');
            before = ',';
        }
        if before == ',' {
            self.0.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// Buckets are cumulative, and the last one equals the count: all of it comes from one reading.
    fn histogram(&mut self, name: &str, label: Option<Label<'_>>, histogram: &Histogram) {
        let mut count = 0;
        for (bound, in_bucket) in histogram.buckets() {
            count += in_bucket;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
            self.sample(name, "_bucket", label, &[("le", &bound)], count);
        }
        self.sample(name, "_sum", label, &[], histogram.sum());
        self.sample(name, "_count", label, &[], count);
    }

    /// Label values may come from peers: what the format can't carry is escaped, control characters are replaced.
    fn label_value(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c if c.is_control() => self.0.push(char::REPLACEMENT_CHARACTER),
                c => self.0.push(c),
            }
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String never fails.
        let _ = writeln!(self.0, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    fn sample_registry() -> Registry {
        let registry = Registry::default();
        registry.counter("empath_connections_total", "Connections, in \\ and\nout.").add(3);
        registry.gauge("empath_sessions", "Sessions now.").set(-2);
        let replies = registry.counters("empath_replies_total", "Replies by code.", "code", 2);
        replies.with("250").add(7);
        replies.with("a\"b\\c\nd\u{1b}e").increment();
        replies.with("third").increment();
        let seconds = registry.histogram("empath_attempt_seconds", "Time of an attempt.", &[0.1, 1.0]);
        for value in [0.05, 0.1, 0.5, 4.0] {
            seconds.observe(value);
        }
        registry.histograms("empath_tls_seconds", "Time of a handshake.", "role", 2, &[0.5]).with("server");
        let [soft, _] = registry.counters_by_kind(
            "empath_failures_total",
            "Failures by host.",
            "host",
            ("kind", ["soft", "hard"]),
            1,
        );
        soft.with("a").add(2);
        soft.with("b").increment();
        registry.collected("empath_queue_messages", "Messages queued.", Kind::Gauge, || Some(12.0));
        registry.collected("empath_unknown_bytes", "Not known here.", Kind::Gauge, || None);
        registry
    }

    #[test]
    fn the_page_has_help_type_and_every_series() {
        let expected = r#"# HELP empath_attempt_seconds Time of an attempt.
# TYPE empath_attempt_seconds histogram
empath_attempt_seconds_bucket{le="0.1"} 2
empath_attempt_seconds_bucket{le="1"} 3
empath_attempt_seconds_bucket{le="+Inf"} 4
empath_attempt_seconds_sum 4.65
empath_attempt_seconds_count 4
# HELP empath_connections_total Connections, in \\ and\nout.
# TYPE empath_connections_total counter
empath_connections_total 3
# HELP empath_failures_total Failures by host.
# TYPE empath_failures_total counter
empath_failures_total{host="a",kind="soft"} 2
empath_failures_total{host="other",kind="soft"} 1
# HELP empath_queue_messages Messages queued.
# TYPE empath_queue_messages gauge
empath_queue_messages 12
# HELP empath_replies_total Replies by code.
# TYPE empath_replies_total counter
empath_replies_total{code="250"} 7
empath_replies_total{code="a\"b\\c\nd�e"} 1
empath_replies_total{code="other"} 1
# HELP empath_sessions Sessions now.
# TYPE empath_sessions gauge
empath_sessions -2
# HELP empath_tls_seconds Time of a handshake.
# TYPE empath_tls_seconds histogram
empath_tls_seconds_bucket{role="server",le="0.5"} 0
empath_tls_seconds_bucket{role="server",le="+Inf"} 0
empath_tls_seconds_sum{role="server"} 0
empath_tls_seconds_count{role="server"} 0
# HELP empath_unknown_bytes Not known here.
# TYPE empath_unknown_bytes gauge
"#;
        assert_eq!(sample_registry().encode(), expected);
    }

    /// Prometheus' own linter, where it is installed.
    #[test]
    fn promtool_accepts_the_page() {
        let registry = sample_registry();
        crate::process::define(&registry);
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            println!("promtool is not installed: not checked");
            return;
        };
        promtool.stdin.take().unwrap().write_all(registry.encode().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
