//! A forward-path and the configuration make a next hop.
//!
//! It is computed again on every attempt, so a change of the configuration applies to mail already queued.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use empath_common::{Domain, ForwardPath, Host};
use empath_smtp::client::Protocol;

use crate::{
    config::{
        BURST, Config, DomainConfig, DomainPattern, HostAddr, LmtpServer, Override, Server, Smarthost,
        SmarthostAuth, TlsPolicy,
    },
    queue::Rate,
};

/// Most overrides at run time.
const MAX_OVERRIDES: usize = 1000;

/// Where a message goes next. Recipients with the same next hop travel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// The MX hosts of a domain.
    Mx(Domain, Arc<Terms>),
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

/// As it is shown: `mx:example.test`, `smtp:127.0.0.1:2525`, `lmtp:127.0.0.1:24`, `lmtp:unix:/run/lmtp`,
/// `smarthost:relay.test:587,backup.test:587`, `maildir`.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(domain, _) => write!(f, "mx:{domain}"),
            Self::Host { host, port, terms, .. } => write!(f, "{}:{host}:{port}", scheme(terms)),
            Self::Smarthost(servers, _) => {
                f.write_str("smarthost")?;
                let mut separators = std::iter::once(":").chain(std::iter::repeat(","));
                servers.iter().try_for_each(|Server { host, port }| {
                    write!(f, "{}{host}:{port}", separators.next().unwrap_or_default())
                })
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

/// A next hop and what applies to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub next_hop: NextHop,
    /// Most connections there.
    pub max_connections: usize,
    /// How many messages may go to the recipient's domain.
    pub limit: Option<Limit>,
}

/// A rate limit and the domain that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Whose mail is counted.
    pub domain: Domain,
    /// How much of it there may be.
    pub rate: Rate,
}

/// The part of the configuration that decides about next hops, made ready for look-up.
#[derive(Debug)]
pub struct Routes {
    exact: HashMap<Domain, Policy>,
    /// By the name below which it applies.
    below: HashMap<Box<str>, Policy>,
    any: Policy,
    /// What an operator said at run time. It counts more than the configuration.
    overrides: BTreeMap<Domain, Override>,
    mx_port: u16,
    hostname: Domain,
    /// What else is delivered here.
    local: Vec<Domain>,
}

/// There are too many overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {MAX_OVERRIDES} overrides already; remove some, or use `delivery.domains`")]
pub struct TooManyOverrides;

#[derive(Debug, Clone)]
struct Policy {
    /// `None`: as the address says.
    next_hop: Option<NextHop>,
    terms: Arc<Terms>,
    max_connections: usize,
    rate: Option<Rate>,
}

impl Routes {
    /// Routes as configured, for the host of this name.
    pub fn new(config: &Config, hostname: Domain) -> Self {
        let max_per_server = config.connection_pool.max_per_server;
        let mut routes = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Policy {
                next_hop: None,
                terms: Arc::new(Terms::of(config, None)),
                max_connections: max_per_server,
                rate: rate(config, None),
            },
            overrides: BTreeMap::new(),
            mx_port: config.mx_port,
            hostname,
            local: Vec::new(),
        };
        for (pattern, domain) in &config.domains {
            let terms = Arc::new(Terms::of(config, Some(domain)));
            let next_hop = if let Some(template) = &domain.maildir {
                Some(NextHop::Maildir(template.as_path().into()))
            } else if let Some(server) = &domain.lmtp {
                Some(lmtp(server, &terms))
            } else if let Some(to) = &domain.smarthost {
                Some(smarthost(to, &terms))
            } else {
                domain.mx_override.as_ref().map(|to| routes.configured(to, &terms))
            };
            let max_connections = domain.max_connections.unwrap_or(max_per_server);
            let rate = rate(config, Some(domain));
            let policy = Policy { next_hop, terms, max_connections, rate };
            match pattern {
                DomainPattern::Exact(name) => {
                    routes.exact.insert(name.clone(), policy);
                }
                DomainPattern::Below(name) => {
                    routes.below.insert(name.as_str().into(), policy);
                }
                DomainPattern::Any => routes.any = policy,
            }
        }
        routes
    }

    /// Domains that are delivered here, besides the host itself.
    #[must_use]
    pub fn with_local(mut self, domains: &[Domain]) -> Self {
        self.local.extend_from_slice(domains);
        self
    }

    /// The domain of the bare `<Postmaster>`, who is a local recipient (RFC 5321 §4.5.1): the first of the host and the
    /// local domains for which there is a next hop without looking for MX hosts. Those of the host would lead here.
    pub fn postmaster_domain(&self) -> &Domain {
        let known =
            |domain: &&Domain| self.overrides.contains_key(domain) || self.policy(domain).next_hop.is_some();
        std::iter::once(&self.hostname).chain(&self.local).find(known).unwrap_or(&self.hostname)
    }

    /// Where mail for `path` goes.
    pub fn route(&self, path: &ForwardPath) -> Route {
        self.route_to(path.host())
    }

    /// Where mail for anybody at `host` goes; `None` is the host of the bare `<Postmaster>`.
    pub fn route_to(&self, host: Option<&Host>) -> Route {
        let domain = match host {
            None => self.postmaster_domain(),
            Some(Host::Domain(domain)) => domain,
            Some(Host::Literal(literal)) => {
                return self.any.route(None, |terms| NextHop::Host {
                    host: HostAddr::Ip(literal.0),
                    port: self.mx_port,
                    configured: false,
                    terms,
                });
            }
        };
        let policy = self.policy(domain);
        match self.overrides.get(domain) {
            Some(to) => {
                let next_hop = Some(self.configured(to, &policy.terms));
                let policy = Policy { next_hop, ..policy.clone() };
                policy.route(Some(domain), |terms| NextHop::Mx(domain.clone(), terms))
            }
            None => policy.route(Some(domain), |terms| NextHop::Mx(domain.clone(), terms)),
        }
    }

    fn configured(&self, to: &Override, terms: &Arc<Terms>) -> NextHop {
        NextHop::Host {
            host: to.host.clone(),
            port: to.port.unwrap_or(self.mx_port),
            configured: true,
            terms: Arc::clone(terms),
        }
    }

    /// What an operator said at run time, by domain.
    pub fn overrides(&self) -> &BTreeMap<Domain, Override> {
        &self.overrides
    }

    /// From now on mail for exactly this domain goes to this host.
    pub fn set_override(&mut self, domain: Domain, to: Override) -> Result<(), TooManyOverrides> {
        if self.overrides.len() >= MAX_OVERRIDES && !self.overrides.contains_key(&domain) {
            return Err(TooManyOverrides);
        }
        self.overrides.insert(domain, to);
        Ok(())
    }

    /// From now on mail for this domain goes where the configuration says. Returns where it went.
    pub fn remove_override(&mut self, domain: &Domain) -> Option<Override> {
        self.overrides.remove(domain)
    }

    /// Takes over what an operator has said.
    pub(crate) fn keep_overrides_of(&mut self, before: &mut Self) {
        self.overrides = std::mem::take(&mut before.overrides);
    }

    fn policy(&self, domain: &Domain) -> &Policy {
        if let Some(policy) = self.exact.get(domain) {
            return policy;
        }
        if !self.below.is_empty() {
            let mut name = domain.as_str();
            while let Some((_, parent)) = name.split_once('.') {
                if let Some(policy) = self.below.get(parent) {
                    return policy;
                }
                name = parent;
            }
        }
        &self.any
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

impl Policy {
    fn route(&self, domain: Option<&Domain>, otherwise: impl FnOnce(Arc<Terms>) -> NextHop) -> Route {
        let mut next_hop = self.next_hop.clone().unwrap_or_else(|| otherwise(Arc::clone(&self.terms)));
        // A configured address has no name: its certificate is for the domain that it serves.
        if let NextHop::Host { host: HostAddr::Ip(_), configured: true, terms, .. } = &mut next_hop
            && terms.verified
        {
            *terms = Arc::new(Terms { name: domain.cloned(), ..Terms::clone(terms) });
        }
        let limit = domain.zip(self.rate).map(|(domain, rate)| Limit { domain: domain.clone(), rate });
        Route { next_hop, max_connections: self.max_connections, limit }
    }
}

impl Terms {
    pub(crate) fn of(config: &Config, domain: Option<&DomainConfig>) -> Self {
        let (tls, verified) = config.security(domain);
        let [pipelining, chunking] =
            domain.map_or([true, true], |domain| [domain.pipelining, domain.chunking]);
        Self { protocol: Protocol::Smtp, tls, verified, name: None, credentials: None, pipelining, chunking }
    }
}

/// How many messages may go to a domain of which the configuration says this.
fn rate(config: &Config, domain: Option<&DomainConfig>) -> Option<Rate> {
    let burst = domain.and_then(|domain| domain.rate_burst);
    if let Some(messages) = domain.and_then(|domain| domain.rate_limit) {
        return Rate::new(messages, Duration::from_mins(1), burst.unwrap_or(BURST));
    }
    let messages = config.rate_limits.per_domain_per_second?;
    Rate::new(messages, Duration::from_secs(1), burst.unwrap_or(BURST.max(messages / 10)))
}

#[cfg(test)]
mod tests;
