use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use empath_common::{Domain, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LmtpServer, Smarthost, TlsPolicy, limits::NOTHING};
use crate::maildir;

/// What is different for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DomainConfig {
    /// Deliver to this host, without looking for MX records.
    ///
    /// `host`, `host:port`, `127.0.0.1:25` or `[::1]:25`; without a port it is `mx_port`. Default: none.
    #[schemars(with = "Option<String>")]
    pub mx_override: Option<Override>,
    /// Whether connections are encrypted: `Opportunistic`, `Required` or `Disabled`, as in `tls.default_policy`.
    ///
    /// The name that a certificate must have under `Required` is the MX host's; under `mx_override` it is that of the
    /// host, or the domain where that is an address. Default: `tls.default_policy`.
    pub tls: Option<TlsPolicy>,
    /// The same as `tls: Required`.
    ///
    /// Default: `false`.
    pub require_tls: bool,
    /// Takes every certificate where encryption is required, or none but valid ones, instead of what
    /// `tls.accept_invalid_certs` says.
    ///
    /// There is a warning at each start and reload. Default: none.
    pub accept_invalid_certs: Option<bool>,
    /// Write commands without waiting for each reply, where PIPELINING is offered (RFC 2920).
    ///
    /// `false` is for servers that offer it and can't do it. Default: `true`.
    pub pipelining: bool,
    /// Send content in chunks of known length, where CHUNKING is offered (RFC 3030).
    ///
    /// The first chunk over a connection has one octet, and the rest waits until that was accepted: a server that doesn't know
    /// BDAT, or is behind a firewall that doesn't let it pass, gets the message by DATA, and never takes content for commands.
    /// `false` is for servers with other troubles. Default: `true`.
    pub chunking: bool,
    /// Most connections to this destination, instead of `connection_pool.max_per_server`.
    ///
    /// Where domains share their connections, because they have the same hosts (`connection_pool.mx_rollup`) or go to one
    /// by the configuration, the least of those that have mail waiting counts. Default: none.
    pub max_connections: Option<usize>,
    /// Most messages a minute to each domain that this applies to, instead of `rate_limits.per_domain_per_second`.
    ///
    /// What is over it waits, without an attempt; other mail goes past it. Default: none.
    pub rate_limit: Option<u32>,
    /// Most messages at once after a pause, under either limit of the domain. Default: `10`.
    pub rate_burst: Option<u32>,
    /// The pool of `delivery.sources` that mail leaves from, instead of that of `delivery.source`. Default: none.
    pub source: Option<String>,
    /// Deliver into Maildirs on this machine instead of over SMTP.
    ///
    /// A path with the placeholders `{address}`, `{local}` and `{domain}`, relative to the configuration file.
    /// Files have the content exactly as received, CRLF included, below a `Return-Path` field (RFC 5321 §4.4).
    /// Default: none.
    pub maildir: Option<PathBuf>,
    /// Deliver to this LMTP server (RFC 2033), for example Dovecot, instead of looking for MX records.
    ///
    /// `127.0.0.1:24`, `[::1]:24`, `host:24` or `unix:/run/dovecot/lmtp`; the path of a socket is relative to the configuration
    /// file. The server answers for each recipient, and what it takes has arrived. Over TCP it is encrypted as `tls` says;
    /// over a Unix socket never. Default: none.
    #[schemars(with = "Option<String>")]
    pub lmtp: Option<LmtpServer>,
    /// Deliver to the hosts of somebody who takes mail for everywhere, instead of looking for MX records.
    ///
    /// `(hosts: ["relay.example:587", "backup.example"], auth: (user: "u", password_file: "secret"))`. Under the key `"*"`
    /// it is for all mail. Default: none.
    pub smarthost: Option<Smarthost>,
}

impl Default for DomainConfig {
    fn default() -> Self {
        Self {
            mx_override: None,
            tls: None,
            require_tls: false,
            accept_invalid_certs: None,
            pipelining: true,
            chunking: true,
            max_connections: None,
            rate_limit: None,
            rate_burst: None,
            source: None,
            maildir: None,
            lmtp: None,
            smarthost: None,
        }
    }
}

impl DomainConfig {
    /// Paths, which may be relative to the configuration file.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let socket = self.lmtp.as_mut().and_then(LmtpServer::path);
        let secrets = self.smarthost.iter_mut().flat_map(Smarthost::paths);
        self.maildir.iter_mut().chain(socket).chain(secrets)
    }

    /// Whether it says where mail goes.
    pub fn has_next_hop(&self) -> bool {
        self.ways().iter().any(|(_, given)| *given)
    }

    fn ways(&self) -> [(&'static str, bool); 4] {
        [
            ("mx_override", self.mx_override.is_some()),
            ("maildir", self.maildir.is_some()),
            ("lmtp", self.lmtp.is_some()),
            ("smarthost", self.smarthost.is_some()),
        ]
    }

    /// Whether its hosts are always spoken to inside TLS.
    pub(crate) fn implies_tls(&self) -> bool {
        self.smarthost.as_ref().is_some_and(Smarthost::implies_tls)
    }

    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.max_connections == Some(0) {
            problems.push(Problem::new("max_connections", "nothing could be delivered; give at least 1"));
        }
        if self.require_tls && self.tls.is_some_and(|policy| policy != TlsPolicy::Required) {
            problems.push(Problem::new("require_tls", "contradicts tls: give one of the two"));
        }
        if self.rate_limit == Some(0) {
            problems.push(Problem::new("rate_limit", NOTHING));
        }
        if self.rate_burst == Some(0) {
            problems.push(Problem::new("rate_burst", "nothing could be delivered; give at least 1"));
        }
        let mut given = self.ways().into_iter().filter(|(_, given)| *given).map(|(key, _)| key);
        if let Some(first) = given.next() {
            problems.extend(
                given.map(|key| Problem::new(key, format!("contradicts {first}: give one of the two"))),
            );
        }
        if self.implies_tls() && self.tls.is_some_and(|policy| policy != TlsPolicy::Required) {
            problems.push(Problem::new(
                "tls",
                "smarthost.auth and tls:// are never without it: leave tls out, or make it Required",
            ));
        }
        if let Some(smarthost) = &self.smarthost {
            problems.extend(smarthost.validate().into_iter().map(|problem| problem.within("smarthost")));
        }
        let socket = matches!(self.lmtp, Some(LmtpServer::Unix(_)));
        let is_required = self.require_tls || self.tls == Some(TlsPolicy::Required);
        if socket && is_required {
            problems
                .push(Problem::new("lmtp", "a Unix socket is never encrypted: leave out that it must be"));
        }
        if let Some(template) = &self.maildir
            && let Err(wrong) = maildir::check_template(template)
        {
            problems.push(Problem::new("maildir", wrong.to_string()));
        }
        if self.source.is_some() && (socket || self.maildir.is_some()) {
            problems.push(Problem::new(
                "source",
                "what stays on this machine leaves from no address: leave it out",
            ));
        }
        problems
    }
}

/// A host by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostAddr {
    /// A name, to be looked up.
    Name(Domain),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for HostAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(IpAddr::V4(v4)) => v4.fmt(f),
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

/// The value of `mx_override`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Override {
    /// Where to connect to.
    pub host: HostAddr,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// The text is not a host with or without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host: \"mx.example.test\", \"mx.example.test:25\", \"127.0.0.1:25\" or \"[::1]:25\" was expected"
)]
pub struct OverrideError;

impl FromStr for Override {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        if let Ok(v6) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: HostAddr::Ip(v6.into()), port: None });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (v6, rest) = rest.split_once(']').ok_or(OverrideError)?;
            let v6 = v6.parse::<Ipv6Addr>().map_err(|_| OverrideError)?;
            let port = match rest.strip_prefix(':') {
                Some(digits) => Some(port(digits)?),
                None if rest.is_empty() => None,
                None => return Err(OverrideError),
            };
            return Ok(Self { host: HostAddr::Ip(v6.into()), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (text, None),
        };
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => HostAddr::Ip(ip),
            // A misspelt address would otherwise be looked up as a name.
            Err(_) if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => return Err(OverrideError),
            Err(_) => HostAddr::Name(Domain::parse(host).map_err(|_| OverrideError)?),
        };
        Ok(Self { host, port })
    }
}

fn port(digits: &str) -> Result<u16, OverrideError> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(OverrideError);
    }
    digits.parse().ok().filter(|port| *port != 0).ok_or(OverrideError)
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for Override {
    type Error = OverrideError;
    fn try_from(text: String) -> Result<Self, OverrideError> {
        text.parse()
    }
}

impl From<Override> for String {
    fn from(host: Override) -> Self {
        host.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SmarthostAuth;

    #[test]
    fn an_override_is_a_host_with_or_without_a_port() {
        let table = [
            ("mx.test", "mx.test", None),
            ("MX.test:2525", "mx.test", Some(2525)),
            ("127.0.0.1", "127.0.0.1", None),
            ("127.0.0.1:25", "127.0.0.1", Some(25)),
            ("[::1]:25", "[::1]", Some(25)),
            ("[::1]", "[::1]", None),
            ("::1", "[::1]", None),
        ];
        for (text, host, port) in table {
            let parsed: Override = text.parse().unwrap();
            assert_eq!((parsed.host.to_string().as_str(), parsed.port), (host, port), "{text}");
            assert_eq!(parsed.to_string().parse::<Override>().unwrap(), parsed);
        }
        let wrong = [
            "",
            ":25",
            "mx.test:",
            "mx.test:0",
            "mx.test:+25",
            "mx.test:65536",
            "1.2.3:25",
            "[::1",
            "[::1]25",
            "a b",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Override>(), Err(OverrideError), "{text:?}");
        }
    }

    #[test]
    fn a_domain_has_one_way_and_it_must_make_sense() {
        let default = DomainConfig::default;
        let smarthost = |auth| Smarthost { hosts: vec!["relay.test".parse().unwrap()], auth };
        let auth = |token| SmarthostAuth {
            user: "u".into(),
            password_file: Some("/nowhere/secret".into()),
            token_file: token,
        };
        let inside = Smarthost { hosts: vec!["tls://relay.test".parse().unwrap()], auth: None };
        let source = || Some("bulk".to_owned());
        let table: [(DomainConfig, &[&str]); 12] = [
            (DomainConfig { smarthost: Some(inside.clone()), ..default() }, &[]),
            (DomainConfig { smarthost: Some(inside), tls: Some(TlsPolicy::Disabled), ..default() }, &["tls"]),
            (DomainConfig { smarthost: Some(smarthost(None)), ..default() }, &[]),
            (DomainConfig { smarthost: Some(Smarthost::default()), ..default() }, &["smarthost.hosts"]),
            (
                DomainConfig {
                    mx_override: Some("mx.test".parse().unwrap()),
                    lmtp: Some("unix:/run/lmtp".parse().unwrap()),
                    smarthost: Some(smarthost(None)),
                    ..default()
                },
                &["lmtp", "smarthost"],
            ),
            (
                DomainConfig {
                    smarthost: Some(smarthost(Some(auth(None)))),
                    tls: Some(TlsPolicy::Opportunistic),
                    ..default()
                },
                &["tls", "smarthost.auth.password_file"],
            ),
            (
                DomainConfig { smarthost: Some(smarthost(Some(SmarthostAuth::default()))), ..default() },
                &["smarthost.auth.user", "smarthost.auth.password_file"],
            ),
            (
                DomainConfig {
                    smarthost: Some(smarthost(Some(auth(Some("/nowhere/token".into()))))),
                    ..default()
                },
                &["smarthost.auth.token_file"],
            ),
            (
                DomainConfig {
                    lmtp: Some("unix:/run/lmtp".parse().unwrap()),
                    require_tls: true,
                    ..default()
                },
                &["lmtp"],
            ),
            (
                DomainConfig { lmtp: Some("unix:/run/lmtp".parse().unwrap()), source: source(), ..default() },
                &["source"],
            ),
            (
                DomainConfig { maildir: Some("./{user}".into()), source: source(), ..default() },
                &["maildir", "source"],
            ),
            (
                DomainConfig { lmtp: Some("127.0.0.1:24".parse().unwrap()), source: source(), ..default() },
                &[],
            ),
        ];
        for (config, expected) in table {
            let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
            assert_eq!(keys, expected, "{config:?}");
        }
    }
}
