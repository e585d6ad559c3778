//! Hosts: what they are called, where they are, and what they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use empath_testkit::{
    peer::{Act, At, Script},
    tls::{Authority, Identity, Oddity},
};
use tempfile::TempDir;

use crate::file::{Line, Read, Wrong};

/// The hosts of a scenario; the first is where the mail of `home.test` arrives.
pub(crate) struct Names {
    hosts: Vec<(String, Vec<IpAddr>)>,
    /// By the zone.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    exchanges: Vec<String>,
    /// Lines that belong to zones in which a name stands.
    implied: Vec<(String, String)>,
}

/// How a host behaves from some time on.
pub(crate) struct Behaviour {
    pub(crate) reach: Reach,
    pub(crate) script: Arc<Script>,
}

/// What comes of connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Serves,
    Refuses,
    Drops,
    Unreachable,
}

/// An authority that is trusted, its certificate as a file, one that nobody knows, and a file with a password beside it.
pub(crate) struct Authorities {
    known: Authority,
    stranger: Authority,
    pub(crate) file: PathBuf,
    _directory: TempDir,
}

pub(crate) fn authorities() -> &'static Authorities {
    static AUTHORITIES: OnceLock<Authorities> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let (known, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        let file = directory.path().join("roots.pem");
        fs::write(&file, known.pem()).unwrap();
        fs::write(file.with_file_name("secret"), "sesame\n").unwrap();
        Authorities { known, stranger: Authority::new(), file, _directory: directory }
    })
}

impl Names {
    /// Reads who has addresses, and who is named by MX records, in lines of zones.
    pub(crate) fn of<'a>(lines: impl Iterator<Item = Line<'a>>) -> Self {
        let (mut addresses, mut exchanges) = (BTreeMap::<String, Vec<IpAddr>>::new(), Vec::new());
        let mut mentioned = Vec::new();
        for (_, line) in lines {
            let words: Vec<_> = line.split_whitespace().collect();
            let owner = words[0].trim_end_matches('.').to_lowercase();
            let kind = words.iter().position(|word| ["A", "AAAA", "MX"].contains(word));
            match kind.map(|at| (words[at], words.last().unwrap())) {
                Some(("MX", exchange)) => exchanges.push(exchange.trim_end_matches('.').to_lowercase()),
                Some((_, address)) => {
                    addresses.entry(owner.clone()).or_default().extend(address.parse::<IpAddr>().ok());
                    mentioned.push(owner);
                }
                None => mentioned.push(owner),
            }
        }
        exchanges.retain(|name| !mentioned.contains(name));
        let mut names = Self { hosts: Vec::new(), addresses, exchanges, implied: Vec::new() };
        if !mentioned.contains(&"home.test".to_owned()) {
            names.implied.push((String::new(), "home.test. A 192.0.2.250".into()));
            names.addresses.insert("home.test".into(), vec!["192.0.2.250".parse().unwrap()]);
            names.hosts.push(("home".into(), names.addresses["home.test"].clone()));
        }
        names
    }

    /// The place of the host with this name.
    pub(crate) fn find(&mut self, name: &str) -> Result<usize, String> {
        if let Some(place) = self.place(name) {
            return Ok(place);
        }
        let addresses = match name.parse() {
            _ if name.starts_with("unix:") => Vec::new(),
            Ok(address) => vec![address],
            Err(_) => self.addresses_of(name)?,
        };
        self.hosts.push((name.to_owned(), addresses));
        Ok(self.hosts.len() - 1)
    }

    fn addresses_of(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        let is_called = |host: &&String| *host == name || host.split('.').next() == Some(name);
        let known = self.addresses.keys().chain(&self.exchanges).filter(is_called);
        let host = match *known.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>() {
            [] => return Err(format!("no host of the zone is called {name}")),
            [host] => host.clone(),
            _ => return Err(format!("several hosts of the zone are called {name}")),
        };
        if let Some(addresses) = self.addresses.get(&host) {
            return Ok(addresses.clone());
        }
        let address = format!("192.0.2.{}", 100 + self.hosts.len());
        self.implied.push((host.clone(), format!("{host}. A {address}")));
        Ok(vec![address.parse().unwrap()])
    }

    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|(host, _)| host == name)
    }

    /// Every host with its addresses.
    pub(crate) fn all(&self) -> &[(String, Vec<IpAddr>)] {
        &self.hosts
    }

    /// Lines that belong to a zone besides those that it has.
    pub(crate) fn implied<'a>(&'a self, zone: &'a str) -> impl Iterator<Item = &'a str> {
        self.implied.iter().filter(|(name, _)| zone.contains(name)).map(|(_, line)| line.as_str())
    }
}

/// A step of the dialogue, what is done there, and if it is one time only, which.
struct Rule {
    at: At,
    replies: Vec<String>,
    act: Option<Act>,
    only: Option<usize>,
}

pub(crate) fn behaviour(lines: &[Line<'_>]) -> Read<Behaviour> {
    let (mut reach, mut script) = (Reach::Serves, Script::new());
    let mut rules = vec![Rule { at: At::Greeting, replies: Vec::new(), act: None, only: None }];
    for &(number, line) in lines {
        let wrong = || Wrong(number, format!("not a line of a host: {line}"));
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rule = rules.last_mut().ok_or_else(wrong)?;
        match (word, rest.trim()) {
            ("login", login) => {
                let (user, password) = login.split_once(' ').ok_or_else(wrong)?;
                script = script.login(user, password);
            }
            ("lmtp", "") => script = script.lmtp(),
            ("refuse", "") => reach = Reach::Refuses,
            ("drop", "") => reach = Reach::Drops,
            ("unreachable", "") => reach = Reach::Unreachable,
            ("offer", offered) => script = script.offer(keywords(offered)),
            ("offer-in-tls", offered) => script = script.offer_in_tls(keywords(offered)),
            ("tls", certificate) => script = script.tls(identity(certificate).ok_or_else(wrong)?),
            ("tls-first", certificate) => {
                script = script.tls_first(identity(certificate).ok_or_else(wrong)?);
            }
            ("C:", step) => rules.push(rule_at(number, step)?),
            ("S:", reply) if rule.act.is_none() => rule.replies.push(reply.into()),
            ("close", "") if rule.act.is_none() => rule.act = Some(Act::Close),
            ("stall", "") if rule.act.is_none() && rule.replies.is_empty() => rule.act = Some(Act::Stall),
            ("delay", time) if rule.act.is_none() && rule.replies.is_empty() => {
                rule.act = Some(Act::Delay(humantime::parse_duration(time).map_err(|_| wrong())?));
            }
            _ => return Err(wrong()),
        }
    }
    for Rule { at, replies, act, only } in rules {
        let reply = || replies.join("\n");
        let act = match act {
            None if replies.is_empty() => continue,
            None => Act::reply(reply()),
            Some(Act::Close) if !replies.is_empty() => Act::reply_and_close(reply()),
            Some(act) => act,
        };
        script = match only {
            Some(only) => script.nth(at, only, act),
            None => script.on(at, act),
        };
    }
    Ok(Behaviour { reach, script: Arc::new(script) })
}

fn keywords(offered: &str) -> impl Iterator<Item = &str> {
    offered.split(',').map(str::trim).filter(|keyword| !keyword.is_empty())
}

/// `mx1.example.test`, and maybe what is odd about it.
fn identity(certificate: &str) -> Option<Identity> {
    let Authorities { known, stranger, .. } = authorities();
    match *certificate.split(' ').collect::<Vec<_>>() {
        [name] if !name.is_empty() => Some(known.sign(name)),
        [name, "expired"] => Some(known.sign_odd(name, Oddity::Expired)),
        [name, "stranger"] => Some(stranger.sign(name)),
        _ => None,
    }
}

fn rule_at(number: usize, step: &str) -> Read<Rule> {
    let (step, only) = match step.split_once(" #") {
        Some((step, only)) => {
            (step, Some(only.parse().map_err(|_| Wrong(number, format!("no number: {only}")))?))
        }
        None => (step, None),
    };
    let about = |verb| step.strip_prefix(verb)?.strip_suffix('>').map(str::to_owned);
    let at = match step {
        "EHLO" | "LHLO" => At::Ehlo,
        "HELO" => At::Helo,
        "STARTTLS" => At::StartTls,
        "AUTH" => At::Auth,
        "handshake" => At::Handshake,
        "MAIL" => At::MailFrom,
        "RCPT" => At::RcptTo,
        "DATA" => At::Data,
        "BDAT" => At::Chunk,
        "content" => At::Content,
        "." => At::EndOfData,
        "RSET" => At::Rset,
        "QUIT" => At::Quit,
        "idle" => At::Idle,
        step => match (about("RCPT <"), about(". <")) {
            (Some(address), _) => At::Recipient(address),
            (None, Some(address)) => At::Delivery(address),
            (None, None) => return Err(Wrong(number, format!("no step of the dialogue: {step}"))),
        },
    };
    Ok(Rule { at, replies: Vec::new(), act: None, only })
}
