use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HostAddr, Override, SmarthostAuth};

/// The port of message submission (RFC 6409 §3.1).
const SUBMISSION: u16 = 587;

/// The port of message submission inside TLS (RFC 8314 §7.3).
const SUBMISSIONS: u16 = 465;

/// What stands before a host that speaks TLS from the first octet.
const TLS: &str = "tls://";

/// The hosts of somebody who takes mail for everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Smarthost {
    /// Where to connect to, tried in this order.
    ///
    /// Each is written as `mx_override` is, and its port is 587 if it names none (RFC 6409). `"tls://relay.example"` is a host
    /// that speaks TLS from the first octet, at port 465 if it names none (RFC 8314 §3.3); where there is one,
    /// `tls: Required` is implied for all. The next one is tried when one cannot be reached, or does not take the
    /// mail for now. Default: none.
    #[schemars(with = "Vec<String>")]
    pub hosts: Vec<SmarthostHost>,
    /// Who we are to these hosts (RFC 4954).
    ///
    /// It implies `tls: Required`: nobody but the host of that name is shown who we are. Default: none.
    pub auth: Option<SmarthostAuth>,
}

/// A host of a smarthost, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SmarthostHost {
    /// Where to connect to.
    pub to: Override,
    /// Whether it speaks TLS from the first octet.
    pub tls: bool,
}

/// The text is not a host of a smarthost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host: \"relay.example\", \"relay.example:587\", \"[::1]:587\" or \"tls://relay.example:465\" was expected"
)]
pub struct SmarthostHostError;

impl FromStr for SmarthostHost {
    type Err = SmarthostHostError;

    fn from_str(text: &str) -> Result<Self, SmarthostHostError> {
        let inside = text.strip_prefix(TLS);
        let to = inside.unwrap_or(text).parse().map_err(|_| SmarthostHostError)?;
        Ok(Self { to, tls: inside.is_some() })
    }
}

impl fmt::Display for SmarthostHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.to)
    }
}

impl TryFrom<String> for SmarthostHost {
    type Error = SmarthostHostError;
    fn try_from(text: String) -> Result<Self, SmarthostHostError> {
        text.parse()
    }
}

impl From<SmarthostHost> for String {
    fn from(host: SmarthostHost) -> Self {
        host.to_string()
    }
}

/// A host of a smarthost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    /// Which.
    pub host: HostAddr,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS from the first octet.
    pub tls: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls } = self;
        write!(f, "{}{host}:{port}", if *tls { TLS } else { "" })
    }
}

impl Smarthost {
    /// The hosts with their ports.
    pub(crate) fn servers(&self) -> Arc<[Server]> {
        let server = |SmarthostHost { to, tls }: &SmarthostHost| {
            let usual = if *tls { SUBMISSIONS } else { SUBMISSION };
            Server { host: to.host.clone(), port: to.port.unwrap_or(usual), tls: *tls }
        };
        self.hosts.iter().map(server).collect()
    }

    /// Whether it is always spoken to inside TLS: a host begins with it, or is shown who we are.
    pub(crate) fn implies_tls(&self) -> bool {
        self.auth.is_some() || self.hosts.iter().any(|host| host.tls)
    }

    /// The paths of its secrets, which may be relative to the configuration file.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.auth.iter_mut().flat_map(SmarthostAuth::paths)
    }

    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.hosts.is_empty() {
            problems.push(Problem::new("hosts", "nothing could be delivered; give at least one"));
        }
        if let Some(auth) = &self.auth {
            problems.extend(auth.validate().into_iter().map(|problem| problem.within("auth")));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_with_starttls_or_one_with_tls_from_the_first_octet() {
        for (text, port, tls) in [
            ("relay.test", 587, false),
            ("relay.test:25", 25, false),
            ("tls://relay.test", 465, true),
            ("tls://[::1]:4650", 4650, true),
        ] {
            let host: SmarthostHost = text.parse().unwrap();
            assert_eq!(host.to_string(), text);
            let smarthost = Smarthost { hosts: vec![host], auth: None };
            let servers = smarthost.servers();
            assert_eq!(
                (servers[0].port, servers[0].tls, smarthost.implies_tls()),
                (port, tls, tls),
                "{text}"
            );
        }
        for text in
            ["", "tls://", "tls:relay.test", "smtp://relay.test", "tls://tls://relay.test", "TLS relay"]
        {
            assert_eq!(text.parse::<SmarthostHost>(), Err(SmarthostHostError), "{text:?}");
        }
    }
}
