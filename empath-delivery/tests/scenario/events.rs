//! What happens: the lines of the log, and the reports that go out.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use empath_spool::{Batch, Committed, Entry, MemorySpool, Spool as _};
use empath_testkit::spool::Hooks;
use tokio::time::Instant;
use tracing::{
    Event as Traced, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Something that happened to a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) kind: String,
    pub(crate) recipient: String,
    pub(crate) values: BTreeMap<&'static str, String>,
}

/// What is logged and reported, with the time of each.
#[derive(Clone)]
pub(crate) struct Record {
    start: Instant,
    lines: Arc<Mutex<Vec<(Duration, Fields)>>>,
    reports: Arc<Mutex<Vec<Report>>>,
}

/// A message of ours that tells somebody what became of recipients.
#[derive(Debug, Clone)]
struct Report {
    at: Duration,
    id: String,
    to: String,
    /// Address and action (RFC 3464 §2.3).
    told: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }
}

impl Subscriber for Record {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("empath_delivery") && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Traced<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.lines.lock().unwrap().push((self.start.elapsed(), fields));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Hooks for Record {
    /// What the processor itself adds to the spool are reports.
    fn commit(&self, memory: &MemorySpool, batch: Batch) -> Committed {
        for entry in &batch.0 {
            if let Entry::Accepted { id, envelope, content } = entry {
                self.reports.lock().unwrap().push(Report {
                    at: self.start.elapsed(),
                    id: id.to_string(),
                    to: envelope.recipients()[0].as_str().to_owned(),
                    told: told(content.in_memory().unwrap()),
                });
            }
        }
        memory.commit(batch)
    }
}

/// Who is named by a report, and what it says of them.
fn told(report: &[u8]) -> Vec<(String, String)> {
    let mail = mailparse::parse_mail(report).unwrap();
    let mut parts = mail.subparts.iter();
    let Some(status) = parts.find(|part| part.ctype.mimetype.ends_with("delivery-status")) else {
        return Vec::new();
    };
    let mut told = Vec::new();
    let mut recipient = String::new();
    for line in String::from_utf8(status.get_body_raw().unwrap()).unwrap().lines() {
        if let Some(typed) = line.strip_prefix("Final-Recipient: ") {
            recipient = unescaped(typed.split_once("; ").unwrap().1);
        } else if let Some(action) = line.strip_prefix("Action: ") {
            told.push((recipient.clone(), action.to_owned()));
        }
    }
    told
}

/// `b\x{F8}b@example.test` is `bøb@example.test` (RFC 6533 §3).
fn unescaped(address: &str) -> String {
    let mut parts = address.split("\\x{");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').unwrap();
        text.push(u32::from_str_radix(code, 16).unwrap().try_into().unwrap());
        text += rest;
    }
    text
}

impl Record {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, lines: Arc::default(), reports: Arc::default() }
    }

    /// The events in the order of time. With `quiet_home` reports that this host takes at once are none.
    pub(crate) fn events(&self, quiet_home: Option<&str>) -> Vec<Event> {
        let mut reports = self.reports.lock().unwrap().clone();
        let ids: Vec<_> = reports.iter().map(|report| report.id.clone()).collect();
        let mut events = Vec::new();
        for (at, Fields(fields)) in &*self.lines.lock().unwrap() {
            let Some(mut event) = event(*at, fields) else { continue };
            let is_report = ids.contains(&fields["message_id"]);
            let first = event.values.get("attempt").is_some_and(|attempt| attempt == "1");
            let at_home = quiet_home == event.values.get("host").map(String::as_str);
            if is_report && first && at_home && event.kind == "delivered" {
                continue;
            }
            if let Some(to) = take(&mut reports, &event) {
                event.values.insert("to", to);
            }
            events.push(event);
        }
        // What was told and is nothing that happened, as far as the log says.
        for Report { at, to, told, .. } in reports {
            let event =
                |(recipient, kind)| Event { at, kind, recipient, values: [("to", to.clone())].into() };
            events.extend(told.into_iter().map(event));
        }
        events.sort_by_key(|event| event.at);
        events
    }
}

fn event(at: Duration, fields: &BTreeMap<&'static str, String>) -> Option<Event> {
    let kind = match fields["message"].as_str() {
        "expired" => "bounced",
        kind @ ("delivered" | "deferred" | "bounced" | "removed") => kind,
        _ => return None,
    };
    let names = [
        ("status", "dsn"),
        ("smtp_code", "code"),
        ("reply", "reply"),
        ("delivery_attempt", "attempt"),
        ("tls", "tls"),
    ];
    let value = |(field, name)| Some((name, fields.get(field)?.clone()));
    let mut values: BTreeMap<_, _> = names.into_iter().filter_map(value).collect();
    // mx1.example.test[192.0.2.1]:25, 192.0.2.1:25, [2001:db8::1]:25 or unix:/run/lmtp
    if let Some(shown) = fields.get("host").filter(|host| *host != "none") {
        let (name, address) = shown.rsplit_once(':').unwrap().0.split_once('[').unwrap_or(("", shown));
        let ip = address.rsplit_once(']').map_or(address, |(ip, _)| ip);
        let ip = ip.parse::<std::net::SocketAddr>().map_or(ip.to_owned(), |address| address.ip().to_string());
        values.insert("host", if name.is_empty() { ip.clone() } else { name.to_owned() });
        values.insert("ip", ip);
    }
    if fields["message"] == "expired" {
        values.insert("reason", "expired".into());
    }
    Some(Event { at, kind: kind.into(), recipient: fields["recipient"].clone(), values })
}

/// Takes what was told about an event out of the reports; who was told.
fn take(reports: &mut [Report], event: &Event) -> Option<String> {
    let actions: &[&str] = match event.kind.as_str() {
        "bounced" => &["failed"],
        "delivered" => &["relayed", "delivered"],
        _ => &[],
    };
    let about = |(recipient, action): &(String, String)| {
        *recipient == event.recipient && actions.contains(&action.as_str())
    };
    for report in reports.iter_mut().filter(|report| report.at.as_secs() == event.at.as_secs()) {
        if let Some(place) = report.told.iter().position(about) {
            report.told.remove(place);
            return Some(report.to.clone());
        }
    }
    None
}

/// `+1d2h3m4s`
pub(crate) fn shown(time: Duration) -> String {
    let mut left = time.as_secs();
    let mut text = "+".to_owned();
    for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if left >= seconds || (unit == "s" && text == "+") {
            text += &format!("{}{unit}", left / seconds);
        }
        left %= seconds;
    }
    text
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", shown(self.at), self.kind, self.recipient)?;
        for (name, value) in &self.values {
            let quote = if value.contains(' ') { "\"" } else { "" };
            write!(f, " {name}={quote}{value}{quote}")?;
        }
        Ok(())
    }
}
