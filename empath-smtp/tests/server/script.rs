//! Dialogues as text:
//!
//! ```text
//! # A comment.
//! -- config: {"limits": {"recipients": 2}}   what differs from the default of these tests
//! -- peer: 198.51.100.7                      the client's address; without it, an outsider
//! -- intake: commit=full                     where taking content fails: begin, write, commit; how: full, failed, large
//! S: 220 mx.test.example *                   a reply line; `*` at the end stands for anything
//! C: EHLO client.example                     a line to send
//! S... 250 *                                 a reply of one or more lines, and the last of them
//! C*3: RCPT TO:<u{n}@test.example>           three lines, {n} being 1, 2, 3; likewise S* and R*
//! R: MAIL\nRCPT\x00\r\n                      octets to send
//! ! eof                                      the client closes its side; also `timeout`, `shutdown`,
//!                                            `starttls`: the client does its handshake
//! = <a@b.example> -> <u@test.example>        a message was taken
//! ? RET=HDRS ENVID=x                         what its sender asked, also `HOLDFOR=3600 MT-PRIORITY=3` behind that, and in
//!                                            further lines `<u@test.example> NOTIFY=NEVER ORCPT=…`; all of it
//! ~ with ESMTP                               its Received field has this text
//! | Subject: x                               its content, each line, with the escapes of R; none means: not checked
//! ```

use std::net::IpAddr;

use empath_smtp::server::{Config, IntakeError};
use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) config: Config,
    pub(crate) peer: IpAddr,
    pub(crate) failing: Option<(Stage, IntakeError)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Begin,
    Write,
    Commit,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Line(String),
    Lines(String),
    Eof,
    Timeout,
    Shutdown,
    StartTls,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub(crate) envelope: String,
    pub(crate) asked: Vec<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) content: Vec<String>,
}

pub(crate) fn default_config() -> Value {
    json!({
        "relay_networks": ["198.51.100.0/24"],
        "relay_domains": ["relay.example"],
        "local_domains": ["test.example"],
    })
}

impl Script {
    pub(crate) fn parse(text: &str) -> Self {
        let mut config = default_config();
        let mut peer = "203.0.113.9".parse().unwrap();
        let mut failing = None;
        let (mut steps, mut messages) = (Vec::new(), Vec::<Message>::new());
        for line in text.lines() {
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (mark, times) = repeated(mark);
            let each = (1..=times).map(|n| rest.replace("{n}", &n.to_string()));
            match mark.as_str() {
                "" | "#" => {}
                "--" => {
                    let (key, value) = rest.split_once(": ").unwrap();
                    match key {
                        "config" => merge(&mut config, serde_json::from_str(value).unwrap()),
                        "peer" => peer = value.parse().unwrap(),
                        "intake" => failing = Some(failure(value)),
                        _ => panic!("unknown key {key}"),
                    }
                }
                "C:" => steps.extend(each.map(|line| Step::Send(format!("{line}\r\n").into_bytes()))),
                "R:" => steps.push(Step::Send(octets(rest).repeat(times))),
                "S:" => steps.extend(each.map(Step::Line)),
                "S..." => steps.push(Step::Lines(rest.to_owned())),
                "!" => steps.push(match rest {
                    "eof" => Step::Eof,
                    "timeout" => Step::Timeout,
                    "shutdown" => Step::Shutdown,
                    "starttls" => Step::StartTls,
                    _ => panic!("unknown event {rest}"),
                }),
                "=" => messages.push(Message { envelope: rest.to_owned(), ..Message::default() }),
                "?" => messages.last_mut().unwrap().asked.push(rest.to_owned()),
                "~" => messages.last_mut().unwrap().trace.push(rest.to_owned()),
                "|" => messages.last_mut().unwrap().content.push(String::from_utf8(octets(rest)).unwrap()),
                _ => panic!("not a line of a dialogue: {line}"),
            }
        }
        let config = serde_json::from_value(config).unwrap();
        Self { config, peer, failing, steps, messages }
    }

    /// Whether the outside only speaks in it, so that everything can be sent at once.
    pub(crate) fn is_plain(&self) -> bool {
        let outside =
            |step: &Step| matches!(step, Step::Timeout | Step::Shutdown | Step::Eof | Step::StartTls);
        !self.steps.iter().any(outside)
    }
}

fn repeated(mark: &str) -> (String, usize) {
    match mark.trim_end_matches(':').split_once('*') {
        Some((mark, times)) => (format!("{mark}:"), times.parse().unwrap()),
        None => (mark.to_owned(), 1),
    }
}

pub(crate) fn merge(into: &mut Value, other: Value) {
    match (into, other) {
        (Value::Object(into), Value::Object(other)) => {
            for (key, value) in other {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, other) => *into = other,
    }
}

fn failure(text: &str) -> (Stage, IntakeError) {
    let (stage, error) = text.split_once('=').unwrap();
    let stage = match stage {
        "begin" => Stage::Begin,
        "write" => Stage::Write,
        "commit" => Stage::Commit,
        _ => panic!("unknown stage {stage}"),
    };
    let error = match error {
        "full" => IntakeError::Full,
        "failed" => IntakeError::Failed,
        "large" => IntakeError::TooLarge,
        _ => panic!("unknown failure {error}"),
    };
    (stage, error)
}

/// Text with the escapes `\r \n \t \\ \xHH`.
fn octets(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'\\' => b'\\',
                b'x' => {
                    let hex = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&hex).unwrap(), 16).unwrap()
                }
                other => panic!("unknown escape \\{}", char::from(other)),
            },
            octet => octet,
        });
    }
    octets
}

/// Whether a line is what the script expects; `*` at the end stands for anything.
pub(crate) fn matches(pattern: &str, line: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => line.starts_with(start),
        None => line == pattern,
    }
}
