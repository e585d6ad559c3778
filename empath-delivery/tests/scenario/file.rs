//! A file becomes what is to happen and what is to come of it.

use std::time::Duration;

use empath_delivery::{Config, DsnConfig};
use empath_testkit::zone::Zone;
use ron::extensions::Extensions;
use serde::de::DeserializeOwned;

use crate::{
    expect::Expected,
    host::{self, Behaviour, Names},
    message::{self, Message},
};

/// What is wrong with a file, and in which line.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) usize, pub(crate) String);

pub(crate) type Read<T> = Result<T, Wrong>;

/// A line that says something, and its number.
pub(crate) type Line<'a> = (usize, &'a str);

pub(crate) struct Scenario {
    pub(crate) config: Config,
    pub(crate) dsn: DsnConfig,
    /// The hosts, by their place in this list.
    pub(crate) hosts: Names,
    /// In the order of time.
    pub(crate) steps: Vec<(Duration, Step)>,
    pub(crate) expected: Expected,
}

pub(crate) enum Step {
    Zone(Zone),
    Host(usize, Behaviour),
    Message(Message),
}

struct Section<'a> {
    line: usize,
    name: &'a str,
    at: Duration,
    /// Empty lines and comments too.
    lines: Vec<Line<'a>>,
}

impl Section<'_> {
    fn telling(&self) -> impl Iterator<Item = Line<'_>> {
        self.lines.iter().map(|(number, line)| (*number, line.trim())).filter(|(_, line)| tells(line))
    }

    fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    fn ron<T: DeserializeOwned>(&self) -> Read<T> {
        let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
        let wrong = |error: ron::error::SpannedError| {
            Wrong(self.line + error.span.start.line, error.code.to_string())
        };
        options.from_str(&self.text()).map_err(wrong)
    }
}

fn tells(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

impl Scenario {
    pub(crate) fn parse(text: &str) -> Read<Self> {
        if !text.starts_with("# ") {
            return Err(Wrong(1, "the first line says what the scenario shows: # …".into()));
        }
        let sections = sections(text)?;
        let named = |name: &'static str| sections.iter().filter(move |section| section.name == name);
        let mut hosts = Names::of(named("zone").flat_map(Section::telling));
        let is_host =
            |section: &&Section<'_>| !["zone", "config", "dsn", "message", "expect"].contains(&section.name);
        let mut behaviours = Vec::new();
        for section in sections.iter().filter(is_host) {
            let host = hosts.find(section.name).map_err(|what| Wrong(section.line, what))?;
            let behaviour = host::behaviour(&section.telling().collect::<Vec<_>>())?;
            behaviours.push((section.at, Step::Host(host, behaviour)));
        }
        // A zone comes with the addresses of the hosts that have none in it.
        let mut steps = vec![(Duration::ZERO, Step::Zone(zone(&hosts, &Section::none())?))];
        for section in named("zone") {
            steps.push((section.at, Step::Zone(zone(&hosts, section)?)));
        }
        steps.append(&mut behaviours);
        for section in named("message") {
            let messages = message::parse(&section.lines)?;
            steps.extend(messages.into_iter().map(|message| (section.at, Step::Message(message))));
        }
        steps.sort_by_key(|(at, _)| *at);
        let mut config = named("config").next().map_or(Ok(Config::default()), Section::ron::<Config>)?;
        config.retry.jitter = 0.0;
        let roots = &host::authorities().file;
        let domains = config.domains.values_mut().map(|domain| &mut domain.smarthost);
        let smarthosts = domains.chain(config.sender_routes.values_mut().map(|route| &mut route.smarthost));
        for auth in smarthosts.filter_map(|smarthost| smarthost.as_mut()?.auth.as_mut()) {
            for path in auth.password_file.iter_mut().chain(&mut auth.token_file) {
                *path = roots.with_file_name(&path);
            }
        }
        config.tls.ca_file = Some(roots.clone());
        let dsn = named("dsn").next().map_or(Ok(DsnConfig::default()), Section::ron::<DsnConfig>)?;
        let line = named("config").next().map_or(1, |section| section.line);
        if let Some(problem) = config.validate().into_iter().chain(dsn.validate()).next() {
            return Err(Wrong(line, problem.to_string()));
        }
        let Some(last) = sections.last().filter(|last| last.name == "expect") else {
            return Err(Wrong(text.lines().count(), "the last section is not expect".into()));
        };
        let expected = Expected::parse(last.telling(), &hosts)?;
        Ok(Self { config, dsn, hosts, steps, expected })
    }

    /// Whether the mail of `home.test` arrives as usual.
    pub(crate) fn is_home_quiet(&self) -> bool {
        let home = self.hosts.place("home");
        home == Some(0)
            && !self.steps.iter().any(|(_, step)| matches!(step, Step::Host(host, _) if home == Some(*host)))
    }
}

impl Section<'_> {
    fn none() -> Self {
        Self { line: 0, name: "zone", at: Duration::ZERO, lines: Vec::new() }
    }
}

fn sections(text: &str) -> Read<Vec<Section<'_>>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if let Some(heading) = line.strip_prefix("-- ") {
            let wrong = || Wrong(number, format!("not a section: {line}"));
            let heading = heading.strip_suffix(" --").ok_or_else(wrong)?;
            let (name, at) = match heading.split_once(' ') {
                Some((name, at)) => (name, time(number, at).map_err(|_| wrong())?),
                None => (heading, Duration::ZERO),
            };
            sections.push(Section { line: number, name, at, lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push((number, line));
        } else if tells(line) {
            return Err(Wrong(number, "something before the first section".into()));
        }
    }
    Ok(sections)
}

/// `+1h30m`
pub(crate) fn time(line: usize, text: &str) -> Read<Duration> {
    let time = text.strip_prefix('+').and_then(|time| humantime::parse_duration(time).ok());
    time.ok_or_else(|| Wrong(line, format!("not a time: {text}")))
}

fn zone(hosts: &Names, section: &Section<'_>) -> Read<Zone> {
    let mut zone = Zone::default();
    for (number, line) in section.telling() {
        zone.add(line).ok_or_else(|| Wrong(number, format!("not a line of a zone: {line}")))?;
    }
    for line in hosts.implied(&section.text()) {
        zone.add(line).ok_or_else(|| Wrong(section.line, format!("not a line of a zone: {line}")))?;
    }
    Ok(zone)
}
