//! What is to come of a scenario, compared with what has come of it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    events::{Event, shown},
    file::{Line, Read, Wrong, time},
    host::Names,
    play::Seen,
};

/// What may happen to a recipient.
const KINDS: [&str; 7] = ["delivered", "deferred", "bounced", "removed", "delayed", "failed", "relayed"];
const VALUES: [&str; 10] = ["dsn", "host", "ip", "code", "reply", "attempt", "tls", "to", "reason", "times"];
/// Values that say nothing only if there is nothing to say.
const STRICT: [&str; 3] = ["to", "reason", "tls"];

pub(crate) struct Expected {
    events: Vec<(usize, String, Event)>,
    facts: Vec<(usize, Fact)>,
    /// When the scenario is over, if not with its last event.
    pub(crate) end: Option<Duration>,
}

/// What clients say to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    Commands,
    Content,
}

enum Fact {
    /// A number or a time of a host.
    Host(usize, String, String),
    /// A command, or a line of content, and whether it comes.
    Line(usize, Said, bool, String),
    /// Type, name, and how often.
    Asked(String, String, String),
}

impl Expected {
    pub(crate) fn parse<'a>(lines: impl Iterator<Item = Line<'a>>, hosts: &Names) -> Read<Self> {
        let mut expected = Self { events: Vec::new(), facts: Vec::new(), end: None };
        for (number, line) in lines {
            let (subject, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim();
            if subject.starts_with('+') {
                let at = time(number, subject)?;
                if rest == "end" {
                    expected.end = Some(at);
                    continue;
                }
                let (event, times) = event(number, at, rest)?;
                let events = std::iter::repeat_n((number, line.to_owned(), event), times);
                expected.events.extend(events);
            } else if subject == "dns" {
                let [kind, name, asked] = *rest.split_whitespace().collect::<Vec<_>>() else {
                    return Err(Wrong(number, "dns TYPE NAME asked=N was expected".into()));
                };
                let wrong = || Wrong(number, format!("no such value: {asked}"));
                let asked = number_or_range(number, asked.strip_prefix("asked=").ok_or_else(wrong)?)?;
                expected.facts.push((number, Fact::Asked(kind.into(), name.into(), asked)));
            } else {
                let host = hosts.place(subject);
                let host = host.ok_or_else(|| Wrong(number, format!("no host is called {subject}")))?;
                expected.facts.extend(facts(number, host, rest)?);
            }
        }
        Ok(expected)
    }

    /// What is otherwise, each beginning with the line if there is one: `12: did not happen: …`.
    pub(crate) fn compare(&self, seen: &Seen) -> Vec<String> {
        let mut differences = Vec::new();
        let mut left = seen.events.clone();
        for (number, line, event) in &self.events {
            match left.iter().position(|other| matches(event, other)) {
                Some(place) => drop(left.remove(place)),
                None => differences.push(format!("{number}: did not happen: {line}")),
            }
        }
        differences.extend(left.iter().map(|event| format!(" not expected: {event}")));
        let mut heard = BTreeMap::new();
        for (number, fact) in &self.facts {
            differences.extend(check(fact, seen, &mut heard).map(|what| format!("{number}: {what}")));
        }
        differences.extend(seen.wrong.iter().map(|what| format!(" {what}")));
        differences
    }
}

fn event(number: usize, at: Duration, text: &str) -> Read<(Event, usize)> {
    let mut words = words(text).into_iter();
    let (kind, recipient) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !KINDS.contains(&kind.as_str()) {
        return Err(Wrong(number, format!("no event: {kind}")));
    }
    let (mut values, mut times) = (BTreeMap::new(), 1);
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((&word, ""));
        let known = VALUES.iter().find(|known| **known == name && !value.is_empty());
        let name = known.ok_or_else(|| Wrong(number, format!("no such value: {name}")))?;
        if *name == "times" {
            times = value.parse().map_err(|_| Wrong(number, format!("no number: {value}")))?;
        } else {
            values.insert(*name, value.to_owned());
        }
    }
    Ok((Event { at, kind, recipient, values }, times))
}

/// Words, in which spaces stand between quotes only.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn facts(number: usize, host: usize, text: &str) -> Read<Vec<(usize, Fact)>> {
    let (comes, rest) = text.strip_prefix("never ").map_or((true, text), |rest| (false, rest));
    for (verb, said) in [("hears ", Said::Commands), ("gets ", Said::Content)] {
        if let Some(line) = rest.strip_prefix(verb) {
            return Ok(vec![(number, Fact::Line(host, said, comes, line.into()))]);
        }
    }
    let fact = |word: &str| match word.split_once('=') {
        Some(("left", at)) => {
            let at = if at == "never" { at.into() } else { shown(time(number, at)?) };
            Ok((number, Fact::Host(host, "left".into(), at)))
        }
        Some(("from", from)) => Ok((number, Fact::Host(host, "from".into(), from.into()))),
        Some((name @ ("connections" | "messages" | "dials"), value)) => {
            Ok((number, Fact::Host(host, name.into(), number_or_range(number, value)?)))
        }
        _ => Err(Wrong(number, format!("no such value: {word}"))),
    };
    text.split_whitespace().map(fact).collect()
}

fn matches(expected: &Event, other: &Event) -> bool {
    let who = |event: &Event| (event.at.as_secs(), event.kind.clone(), event.recipient.clone());
    let said = |name: &str| other.values.get(name);
    who(expected) == who(other)
        && expected.values.iter().all(|(name, value)| said(name).is_some_and(|other| is_like(value, other)))
        && STRICT.iter().all(|name| expected.values.contains_key(name) == said(name).is_some())
}

/// Says what is otherwise. `heard` is how many of the lines that a host is told have been gone through.
fn check(fact: &Fact, seen: &Seen, heard: &mut BTreeMap<(usize, Said), usize>) -> Option<String> {
    match fact {
        Fact::Host(host, name, expected) => {
            let host = &seen.hosts[*host];
            let value = match name.as_str() {
                "connections" => host.connections.to_string(),
                "messages" => host.messages.to_string(),
                "dials" => host.dials.to_string(),
                "from" => host.from.clone(),
                _ => host.left.map_or("never".into(), shown),
            };
            let is = if matches!(name.as_str(), "left" | "from") {
                is_like(expected, &value)
            } else {
                is_number(expected, &value)
            };
            (!is).then(|| format!("{} {name} is {value}", host.name))
        }
        Fact::Line(host, said, comes, expected) => {
            let heard = heard.entry((*host, *said)).or_default();
            let host = &seen.hosts[*host];
            // What never comes doesn't come before or after anything.
            let skipped = if *comes { *heard } else { 0 };
            let lines = host.lines(*said);
            let found = lines.iter().skip(skipped).position(|line| is_like(expected, line));
            match (found, comes) {
                (Some(place), true) => *heard += place + 1,
                (Some(place), false) => return Some(format!("it was said: {}", lines[place])),
                (None, true) => return Some(format!("{} does not hear this (any more)", host.name)),
                (None, false) => {}
            }
            None
        }
        Fact::Asked(kind, name, expected) => {
            let asked = seen.dns.asked(kind, name).to_string();
            (!is_number(expected, &asked)).then(|| format!("dns {kind} {name} asked is {asked}"))
        }
    }
}

fn number_or_range(number: usize, text: &str) -> Read<String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let is_number = least.parse::<usize>().is_ok() && most.parse::<usize>().is_ok();
    if is_number { Ok(text.to_owned()) } else { Err(Wrong(number, format!("not a number: {text}"))) }
}

/// `3`, or one of `2..4`.
fn is_number(expected: &str, number: &str) -> bool {
    let number: usize = number.parse().unwrap();
    match expected.split_once("..") {
        Some((least, most)) => (least.parse().unwrap()..=most.parse().unwrap()).contains(&number),
        None => expected.parse() == Ok(number),
    }
}

/// Whether a text is as expected; `*` stands for anything.
fn is_like(expected: &str, text: &str) -> bool {
    let mut parts = expected.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}
