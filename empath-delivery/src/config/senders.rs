use std::{fmt, path::PathBuf, str::FromStr};

use empath_common::{Domain, Mailbox, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DomainConfig, LmtpServer, Override, Smarthost, TlsPolicy};

/// Whose mail a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SenderPattern {
    /// `<>`: mail that nobody is told about, as reports are (RFC 5321 §4.5.5).
    Null,
    /// `news@example.test`: this address. The case of its local part counts (RFC 5321 §2.4), and needless quotes don't (§4.1.2).
    Mailbox(Mailbox),
    /// `example.test`: every address of this domain.
    Exact(Domain),
    /// `*.example.test`: every address of a domain below it, not of the domain itself.
    Below(Domain),
}

/// The text is not a pattern of senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sender: \"news@example.test\", \"example.test\", \"*.example.test\" or \"<>\" was expected")]
pub struct SenderPatternError;

impl FromStr for SenderPattern {
    type Err = SenderPatternError;

    fn from_str(text: &str) -> Result<Self, SenderPatternError> {
        let parsed = if text == "<>" {
            return Ok(Self::Null);
        } else if let Some(name) = text.strip_prefix("*.") {
            name.parse().ok().map(Self::Below)
        } else if text.contains('@') {
            // Whoever writes `*@example.test` means `example.test`, and not one odd address.
            let mailbox = text.parse::<Mailbox>().ok().map(|mailbox| mailbox.canonical().into_owned());
            mailbox.filter(|mailbox| mailbox.local_part() != "*").map(Self::Mailbox)
        } else {
            text.parse().ok().map(Self::Exact)
        };
        parsed.ok_or(SenderPatternError)
    }
}

impl fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
            Self::Exact(domain) => domain.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl TryFrom<String> for SenderPattern {
    type Error = SenderPatternError;
    fn try_from(text: String) -> Result<Self, SenderPatternError> {
        text.parse()
    }
}

impl From<SenderPattern> for String {
    fn from(pattern: SenderPattern) -> Self {
        pattern.to_string()
    }
}

impl JsonSchema for SenderPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SenderPattern".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// Where the mail of some senders goes: one of `smarthost`, `mx_override` and `lmtp`, or as other mail from another `source`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SenderRoute {
    /// To the hosts of somebody who takes mail for everywhere.
    ///
    /// `(hosts: ["relay.example:587", "backup.example"], auth: (user: "u", password_file: "secret"))`. Default: none.
    pub smarthost: Option<Smarthost>,
    /// To this host.
    ///
    /// `host`, `host:port`, `127.0.0.1:25` or `[::1]:25`; without a port it is `mx_port`. Default: none.
    #[schemars(with = "Option<String>")]
    pub mx_override: Option<Override>,
    /// To this LMTP server (RFC 2033), which then answers for each recipient.
    ///
    /// `127.0.0.1:24`, `[::1]:24`, `host:24` or `unix:/run/archive/lmtp`; the path of a socket is relative to the configuration
    /// file. Default: none.
    #[schemars(with = "Option<String>")]
    pub lmtp: Option<LmtpServer>,
    /// Whether connections are encrypted: `Opportunistic`, `Required` or `Disabled`, as in `tls.default_policy`.
    ///
    /// The name that a certificate must have under `Required` is that of the host. Where the entry of a recipient's domain
    /// in `domains` requires TLS, it is required here as well, but for a Unix socket. Default: `tls.default_policy`.
    pub tls: Option<TlsPolicy>,
    /// The same as `tls: Required`.
    ///
    /// Default: `false`.
    pub require_tls: bool,
    /// Takes every certificate where encryption is required, or none but valid ones, instead of what
    /// `tls.accept_invalid_certs` says.
    ///
    /// There is a warning at each start. Default: none.
    pub accept_invalid_certs: Option<bool>,
    /// Most connections there, instead of `connection_pool.max_per_server`. Default: none.
    pub max_connections: Option<usize>,
    /// The pool of `delivery.sources` that the mail leaves from, whatever `domains` says of its recipients.
    ///
    /// It may stand alone: then the mail goes where other mail goes. Default: none.
    pub source: Option<String>,
}

impl SenderRoute {
    /// What it would be for a domain: the two agree in all that a route can say.
    pub(crate) fn as_domain(&self) -> DomainConfig {
        let Self {
            smarthost,
            mx_override,
            lmtp,
            tls,
            require_tls,
            accept_invalid_certs,
            max_connections,
            source,
        } = self.clone();
        DomainConfig {
            mx_override,
            tls,
            require_tls,
            accept_invalid_certs,
            max_connections,
            source,
            lmtp,
            smarthost,
            ..DomainConfig::default()
        }
    }

    /// Paths, which may be relative to the configuration file.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let socket = self.lmtp.as_mut().and_then(LmtpServer::path);
        socket.into_iter().chain(self.smarthost.iter_mut().flat_map(Smarthost::paths))
    }

    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.as_domain().validate();
        let has_next_hop = self.as_domain().has_next_hop();
        if !has_next_hop && self.source.is_none() {
            let message =
                "does not say where the mail goes: give a smarthost, an mx_override or lmtp, or a source";
            problems.push(Problem::new("smarthost", message));
        }
        let idle = [
            ("tls", self.tls.is_some()),
            ("require_tls", self.require_tls),
            ("accept_invalid_certs", self.accept_invalid_certs.is_some()),
            ("max_connections", self.max_connections.is_some()),
        ];
        if !has_next_hop && self.source.is_some() {
            let message = "is about a next hop of these senders, and there is none: see delivery.domains";
            let given = idle.into_iter().filter(|(_, given)| *given);
            problems.extend(given.map(|(key, _)| Problem::new(key, message)));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_an_address_a_domain_or_nobody() {
        for text in ["<>", "news@example.test", "News@example.test", "\"a b\"@example.test", "u@[192.0.2.1]"]
        {
            assert_eq!(text.parse::<SenderPattern>().unwrap().to_string(), text);
        }
        for text in ["example.test", "*.example.test"] {
            assert_eq!(
                text.to_uppercase().replace("EXAMPLE", "Example").parse(),
                text.parse::<SenderPattern>()
            );
        }
        for text in ["\"news\"@example.test", "\"ne\\ws\"@Example.test"] {
            assert_eq!(text.parse(), "news@example.test".parse::<SenderPattern>(), "{text}");
        }
        for text in [
            "",
            "*",
            "\"*\"@example.test",
            "*.",
            "@example.test",
            "*@example.test",
            "<news@example.test>",
            "a b",
            "*.",
        ] {
            assert_eq!(text.parse::<SenderPattern>(), Err(SenderPatternError), "{text:?}");
        }
    }

    #[test]
    fn a_route_has_one_way_and_it_must_make_sense() {
        let smarthost = || Some(Smarthost { hosts: vec!["relay.test".parse().unwrap()], auth: None });
        let lmtp = || Some("unix:/run/lmtp".parse().unwrap());
        let source = || Some("bulk".to_owned());
        let table: [(SenderRoute, &[&str]); 7] = [
            (SenderRoute { source: source(), ..SenderRoute::default() }, &[]),
            (SenderRoute { source: source(), require_tls: true, ..SenderRoute::default() }, &["require_tls"]),
            (SenderRoute { smarthost: smarthost(), ..SenderRoute::default() }, &[]),
            (SenderRoute::default(), &["smarthost"]),
            (SenderRoute { smarthost: smarthost(), lmtp: lmtp(), ..SenderRoute::default() }, &["smarthost"]),
            (SenderRoute { lmtp: lmtp(), require_tls: true, ..SenderRoute::default() }, &["lmtp"]),
            (SenderRoute { lmtp: lmtp(), source: source(), ..SenderRoute::default() }, &["source"]),
        ];
        for (route, expected) in table {
            let keys: Vec<_> = route.validate().into_iter().map(|problem| problem.key).collect();
            assert_eq!(keys, expected, "{route:?}");
        }
    }
}
