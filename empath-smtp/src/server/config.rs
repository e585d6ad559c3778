mod listener;

use std::{collections::HashSet, path::PathBuf};

use empath_common::{Domain, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use listener::{ListenerConfig, Mode, Timeouts};

use super::{AuthConfig, CertificateConfig, Limits, Network, Tls};

/// The receiving of mail over SMTP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    ///
    /// Default: one listener with its own defaults.
    pub listeners: Vec<ListenerConfig>,
    /// Networks whose clients may send to anybody, in CIDR notation.
    ///
    /// An IPv4 client that arrives over an IPv6 socket counts as IPv4. It has no meaning on listeners for submission,
    /// where only authentication counts. Default: `["127.0.0.0/8", "::1/128"]`.
    #[schemars(with = "Vec<String>")]
    pub relay_networks: Vec<Network>,
    /// Domains for which mail is accepted from anyone, to be relayed on.
    ///
    /// Only the domain itself counts, not names below it. Default: `[]`.
    pub relay_domains: Vec<Domain>,
    /// Domains for which mail is accepted from anyone, to be delivered here.
    ///
    /// Only the domain itself counts, not names below it. Default: `[]`.
    pub local_domains: Vec<Domain>,
    /// Certificates for TLS 1.2 and 1.3.
    ///
    /// With at least one, STARTTLS is offered (RFC 3207), and listeners of mode `Submissions` can work. Which one a
    /// client is shown depends on the name that it asks for. Files that change are read again for the next client;
    /// if they are no good, the old ones stay in use. Default: `[]`.
    pub tls: Vec<CertificateConfig>,
    /// A file with certificates (PEM) of those who sign certificates of clients.
    ///
    /// With it clients are asked for a certificate. Nothing depends on it: a client without one, or with one that is
    /// not valid, is served as any other; the subject of a valid one is in the log and in the context of plugin
    /// modules. Read at the start and at each reload. Relative to the configuration file. Default: none.
    pub client_ca: Option<PathBuf>,
    /// Clients, as addresses or in CIDR notation, that may say with XCLIENT for whom they speak.
    ///
    /// That is for proxies and filters in front of this server: what they tell, including the name of an
    /// authenticated user, is believed (<https://www.postfix.org/XCLIENT_README.html>). They have no limit of
    /// `connections_per_address`. Default: `[]`.
    #[schemars(with = "Vec<String>")]
    pub xclient: Vec<Network>,
    /// Who may send as a user: AUTH (RFC 4954), on listeners of every mode.
    pub auth: AuthConfig,
    /// How much of anything a client may use.
    pub limits: Limits,
    /// What becomes of a message with a CR or LF that is not part of a CRLF.
    ///
    /// Neither value lets such an octet end the content or reach the next hop (RFC 5321 §2.3.8, §4.1.1.4).
    /// Default: `Reject`.
    pub bare_newlines: BareNewlines,
}

/// What becomes of a message with a CR or LF that is not part of a CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum BareNewlines {
    /// The message is refused with 550 5.6.11.
    #[default]
    Reject,
    /// Each becomes a CRLF of the content.
    Normalize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerConfig::default()],
            relay_networks: Network::loopback().to_vec(),
            relay_domains: Vec::new(),
            local_domains: Vec::new(),
            tls: Vec::new(),
            client_ca: None,
            xclient: Vec::new(),
            auth: AuthConfig::default(),
            limits: Limits::default(),
            bare_newlines: BareNewlines::default(),
        }
    }
}

impl Config {
    /// What works and still needs somebody's attention.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut warnings = Vec::new();
        if self.auth.users_file.is_none()
            && let Some(n) = self.listeners.iter().position(|listener| listener.mode.is_submission())
        {
            let message = "users must authenticate here, and there are none: give auth.users_file";
            warnings.push(Problem::new(format!("listeners[{n}].mode"), message));
        }
        if self.auth.users_file.is_some() && self.auth.require_tls && self.tls.is_empty() {
            let message = "AUTH works inside TLS only, and there is no certificate: give one in tls";
            warnings.push(Problem::new("auth.require_tls", message));
        }
        warnings
    }

    /// What serde can't say.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        for (i, listener) in self.listeners.iter().enumerate() {
            let place = format!("listeners[{i}]");
            if listener.socket.port() != 0 && !seen.insert(listener.socket) {
                let message = format!("{} is listened on twice: remove one", listener.socket);
                problems.push(Problem::new("socket", message).within(&place));
            }
            if listener.mode == Mode::Submissions && self.tls.is_empty() {
                let message = "Submissions is TLS from the first octet: give a certificate in smtp.tls";
                problems.push(Problem::new("mode", message).within(&place));
            }
            let timeouts = listener.timeouts.validate().into_iter();
            problems.extend(timeouts.map(|problem| problem.within("timeouts").within(&place)));
        }
        if self.client_ca.is_some() && self.tls.is_empty() {
            let message = "clients show certificates inside TLS only: give one of your own in tls";
            problems.push(Problem::new("client_ca", message));
        }
        let mut named = HashSet::new();
        for (i, certificate) in self.tls.iter().enumerate() {
            for name in certificate.names.iter().filter(|name| !named.insert(*name)) {
                let message = format!("{name} has a certificate already, and the first is used: remove one");
                problems.push(Problem::new(format!("tls[{i}].names"), message));
            }
        }
        problems.extend(Tls::load(self).err().unwrap_or_default());
        problems.extend(self.auth.validate().into_iter().map(|problem| problem.within("auth")));
        problems.extend(self.limits.validate().into_iter().map(|problem| problem.within("limits")));
        problems
    }
}
