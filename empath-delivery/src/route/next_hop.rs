//! Where a message goes next, and how the hosts there are spoken to.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use empath_common::Domain;
use empath_smtp::client::{self, Hello, Protocol, Target};

use crate::{
    config::{
        Config, DomainConfig, HostAddr, LmtpServer, Override, Server, Smarthost, SmarthostAuth, TlsPolicy,
    },
    site::Site,
    source::Origin,
};

/// Where a message goes next. Recipients with the same next hop travel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// The MX hosts of a domain.
    Mx(Domain, Arc<Terms>),
    /// The MX hosts that a domain was found to have. No route says so: it takes the place of [`Mx`](Self::Mx) when they
    /// are known, so that all domains with these hosts are one destination.
    Site(Arc<Site>, Arc<Terms>),
    /// One host: an `mx_override`, an address literal, or an LMTP server.
    Host {
        /// Which.
        host: HostAddr,
        /// Its port.
        port: u16,
        /// Whether the configuration named it. Then a name that doesn't exist is our mistake and bounces nothing.
        configured: bool,
        /// How it is spoken to.
        terms: Arc<Terms>,
    },
    /// Hosts that take mail for everywhere, best first.
    Smarthost(Arc<[Server]>, Arc<Terms>),
    /// An LMTP server at a Unix socket.
    Unix(Arc<Path>, Arc<Terms>),
    /// Maildirs on this machine, by the template of their paths.
    Maildir(Arc<Path>),
}

/// How the hosts of a next hop are spoken to. It is part of the next hop, so that no connection ever takes a message
/// that asks for other terms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether connections are encrypted.
    pub tls: TlsPolicy,
    /// Whether certificates are verified, which is so under `Required` only.
    pub verified: bool,
    /// The name that certificates must have, if not the host's.
    pub name: Option<Domain>,
    /// Who we are there, unless it is not asked.
    pub credentials: Option<Arc<SmarthostAuth>>,
    /// Whether commands may be pipelined.
    pub pipelining: bool,
    /// Whether content may go in chunks.
    pub chunking: bool,
    /// Where connections come from, unless the system chooses.
    pub source: Option<Arc<Origin>>,
}

impl NextHop {
    /// What the configuration names for a domain, or for the mail of a sender, if it names one.
    pub(super) fn of(domain: &DomainConfig, mx_port: u16, terms: &Arc<Terms>) -> Option<Self> {
        if let Some(template) = &domain.maildir {
            Some(Self::Maildir(template.as_path().into()))
        } else if let Some(server) = &domain.lmtp {
            Some(lmtp(server, terms))
        } else if let Some(to) = &domain.smarthost {
            Some(smarthost(to, terms))
        } else {
            domain.mx_override.as_ref().map(|to| Self::configured(to, mx_port, terms))
        }
    }

    /// The host that an override names.
    pub(super) fn configured(to: &Override, mx_port: u16, terms: &Arc<Terms>) -> Self {
        Self::Host {
            host: to.host.clone(),
            port: to.port.unwrap_or(mx_port),
            configured: true,
            terms: Arc::clone(terms),
        }
    }

    /// How its hosts are spoken to, if it has any.
    pub fn terms(&self) -> Option<&Arc<Terms>> {
        match self {
            Self::Mx(_, terms)
            | Self::Site(_, terms)
            | Self::Host { terms, .. }
            | Self::Smarthost(_, terms)
            | Self::Unix(_, terms) => Some(terms),
            Self::Maildir(_) => None,
        }
    }

    /// The same, to be changed, if it is reached over a network.
    pub(super) fn network_terms(&mut self) -> Option<&mut Terms> {
        match self {
            Self::Mx(_, terms)
            | Self::Site(_, terms)
            | Self::Host { terms, .. }
            | Self::Smarthost(_, terms) => Some(Arc::make_mut(terms)),
            Self::Unix(..) | Self::Maildir(_) => None,
        }
    }

    pub(super) fn with_source(mut self, source: &Arc<Origin>) -> Self {
        if let Some(terms) = self.network_terms() {
            terms.source = Some(Arc::clone(source));
        }
        self
    }

    /// As it is to mail for a domain: that others have the same hosts is nothing to it.
    #[must_use]
    pub fn to_domain(&self, domain: Option<&Domain>) -> Self {
        match (self, domain) {
            (Self::Site(_, terms), Some(domain)) => Self::Mx(domain.clone(), Arc::clone(terms)),
            _ => self.clone(),
        }
    }
}

/// Of what one destination may have many only: it is looked up for every message.
impl Hash for Terms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.credentials.hash(state);
        self.source.hash(state);
    }
}

/// As it is shown: `mx:example.test`, `smtp:127.0.0.1:2525`, `lmtp:127.0.0.1:24`, `lmtp:unix:/run/lmtp`,
/// `smarthost:relay.test:587,tls://backup.test:465`, `maildir`; a site by its hosts, `mx:mx1.example.test+1`.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(domain, _) => write!(f, "mx:{domain}"),
            Self::Site(site, _) => write!(f, "mx:{site}"),
            Self::Host { host, port, terms, .. } => write!(f, "{}:{host}:{port}", scheme(terms)),
            Self::Smarthost(servers, _) => {
                f.write_str("smarthost")?;
                let mut separators = std::iter::once(":").chain(std::iter::repeat(","));
                servers
                    .iter()
                    .try_for_each(|server| write!(f, "{}{server}", separators.next().unwrap_or_default()))
            }
            Self::Unix(path, terms) => write!(f, "{}:unix:{}", scheme(terms), path.display()),
            Self::Maildir(_) => f.write_str("maildir"),
        }
    }
}

fn scheme(terms: &Terms) -> &'static str {
    match terms.protocol {
        Protocol::Smtp => "smtp",
        Protocol::Lmtp => "lmtp",
    }
}

fn lmtp(server: &LmtpServer, terms: &Terms) -> NextHop {
    let terms = Terms { protocol: Protocol::Lmtp, ..terms.clone() };
    match server {
        LmtpServer::Host { host, port } => {
            NextHop::Host { host: host.clone(), port: *port, configured: true, terms: Arc::new(terms) }
        }
        LmtpServer::Unix(path) => {
            // Nobody stands between its ends.
            let terms = Terms { tls: TlsPolicy::Disabled, verified: false, ..terms };
            NextHop::Unix(path.as_path().into(), Arc::new(terms))
        }
    }
}

fn smarthost(to: &Smarthost, terms: &Terms) -> NextHop {
    let credentials = to.auth.clone().map(Arc::new);
    NextHop::Smarthost(to.servers(), Arc::new(Terms { credentials, ..terms.clone() }))
}

impl Terms {
    /// How a server is greeted; `ours` is our name where nothing else is said.
    pub(crate) fn hello<'a>(&'a self, ours: &'a Domain) -> Hello<'a> {
        let name = self.source.as_ref().and_then(|source| source.hostname.as_ref());
        Hello { protocol: self.protocol, name: name.unwrap_or(ours).as_str() }
    }

    /// The address that a server is reached from, if the system doesn't choose.
    pub(crate) fn from(&self, target: &Target) -> Option<IpAddr> {
        self.source.as_ref()?.towards(target)
    }

    /// The way to a server.
    pub(crate) fn way<'a>(&self, target: &'a Target) -> client::Way<'a> {
        client::Way { target, from: self.from(target) }
    }

    /// Whether a server can be reached from our source.
    pub(crate) fn reach(&self, target: &Target) -> bool {
        self.source.is_none() || matches!(target, Target::Unix(_)) || self.from(target).is_some()
    }

    pub(crate) fn of(config: &Config, domain: Option<&DomainConfig>) -> Self {
        let (tls, verified) = config.security(domain);
        let [pipelining, chunking] =
            domain.map_or([true, true], |domain| [domain.pipelining, domain.chunking]);
        Self {
            protocol: Protocol::Smtp,
            tls,
            verified,
            name: None,
            credentials: None,
            pipelining,
            chunking,
            source: None,
        }
    }
}
