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

use crate::{
    config::{BURST, Config, DomainConfig, DomainPattern, HostAddr, Override, TlsPolicy},
    queue::Rate,
};

/// Most overrides at run time.
const MAX_OVERRIDES: usize = 1000;

/// Where a message goes next. Recipients with the same next hop travel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// The MX hosts of a domain.
    Mx(Domain, Arc<Terms>),
    /// One host: an `mx_override` or an address literal.
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
    /// Maildirs on this machine, by the template of their paths.
    Maildir(Arc<Path>),
}

/// How the hosts of a next hop are spoken to. It is part of the next hop, so that no connection ever takes a message
/// that asks for other terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Terms {
    /// Whether connections are encrypted.
    pub tls: TlsPolicy,
    /// Whether certificates are verified, which is so under `Required` only.
    pub verified: bool,
    /// The name that certificates must have, if not the host's.
    pub name: Option<Domain>,
    /// Whether commands may be pipelined.
    pub pipelining: bool,
    /// Whether content may go in chunks.
    pub chunking: bool,
}

/// As it is shown: `mx:example.test`, `smtp:127.0.0.1:2525`, `maildir`.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(domain, _) => write!(f, "mx:{domain}"),
            Self::Host { host, port, .. } => write!(f, "smtp:{host}:{port}"),
            Self::Maildir(_) => f.write_str("maildir"),
        }
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
            let next_hop = match (&domain.maildir, &domain.mx_override) {
                (Some(template), _) => Some(NextHop::Maildir(template.as_path().into())),
                (None, Some(to)) => Some(routes.configured(to, &terms)),
                (None, None) => None,
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
        Self { tls, verified, name: None, pipelining, chunking }
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
mod tests {
    use super::*;

    fn routes(domains: &[(&str, DomainConfig)]) -> Routes {
        let mut config = Config { mx_port: 2025, ..Config::default() };
        for (pattern, domain) in domains {
            config.domains.insert(pattern.parse().unwrap(), domain.clone());
        }
        Routes::new(&config, "mx.home.test".parse().unwrap())
    }

    fn over(host: &str) -> DomainConfig {
        DomainConfig { mx_override: Some(host.parse().unwrap()), ..DomainConfig::default() }
    }

    fn shown(routes: &Routes, path: &str) -> String {
        routes.route(&path.parse().unwrap()).next_hop.to_string()
    }

    #[test]
    fn the_longest_match_alone_applies() {
        let routes = routes(&[
            ("*", over("any.test")),
            ("*.test", over("192.0.2.1:26")),
            ("*.b.test", over("[::1]:27")),
            ("a.b.test", over("exact.test:28")),
            ("plain.test", DomainConfig { max_connections: Some(9), ..DomainConfig::default() }),
        ]);
        let table = [
            ("<u@a.b.test>", "smtp:exact.test:28"),
            ("<u@A.B.TEST>", "smtp:exact.test:28"),
            ("<u@x.b.test>", "smtp:[::1]:27"),
            ("<u@y.x.b.test>", "smtp:[::1]:27"),
            ("<u@b.test>", "smtp:192.0.2.1:26"),
            ("<u@xb.test>", "smtp:192.0.2.1:26"),
            ("<u@test>", "smtp:any.test:2025"),
            ("<u@example.org>", "smtp:any.test:2025"),
            ("<u@[192.0.2.9]>", "smtp:any.test:2025"),
            // The exact key wins with all that it says, also with what it leaves out.
            ("<u@plain.test>", "mx:plain.test"),
        ];
        for (path, next_hop) in table {
            assert_eq!(shown(&routes, path), next_hop, "{path}");
        }
        assert_eq!(routes.route(&"<u@plain.test>".parse().unwrap()).max_connections, 9);
        assert_eq!(routes.route(&"<u@other.test>".parse().unwrap()).max_connections, 5);
    }

    #[test]
    fn without_configuration_the_address_decides() {
        let routes = routes(&[]);
        assert_eq!(shown(&routes, "<u@example.test>"), "mx:example.test");
        assert_eq!(shown(&routes, "<u@[192.0.2.9]>"), "smtp:192.0.2.9:2025");
        assert_eq!(shown(&routes, "<u@[IPv6:2001:db8::1]>"), "smtp:[2001:db8::1]:2025");
        assert_eq!(shown(&routes, "<Postmaster>"), "mx:mx.home.test");
    }

    #[test]
    fn the_bare_postmaster_is_a_local_recipient() {
        let maildir = || DomainConfig { maildir: Some("/m/{address}".into()), ..DomainConfig::default() };
        let local = ["one.test", "two.test"].map(|name| name.parse().unwrap());
        for (domains, next_hop, domain) in [
            (vec![("mx.home.test", maildir()), ("one.test", over("hub.test"))], "maildir", "mx.home.test"),
            (vec![("two.test", maildir())], "maildir", "two.test"),
            (vec![("one.test", over("hub.test")), ("two.test", maildir())], "smtp:hub.test:2025", "one.test"),
            (vec![("*", over("hub.test"))], "smtp:hub.test:2025", "mx.home.test"),
            (vec![("elsewhere.test", maildir())], "mx:mx.home.test", "mx.home.test"),
        ] {
            let routes = routes(&domains).with_local(&local);
            assert_eq!(shown(&routes, "<Postmaster>"), next_hop);
            assert_eq!(routes.postmaster_domain().as_str(), domain);
        }
    }

    #[test]
    fn an_override_counts_more_than_the_configuration_and_is_for_one_domain_alone() {
        let limited = DomainConfig { max_connections: Some(9), ..over("192.0.2.1:26") };
        let mut routes = routes(&[("a.test", limited)]);
        let domain: Domain = "A.test".parse().unwrap();
        routes.set_override(domain.clone(), "hub.test".parse().unwrap()).unwrap();
        assert_eq!(shown(&routes, "<u@a.test>"), "smtp:hub.test:2025");
        assert_eq!(routes.route(&"<u@a.test>".parse().unwrap()).max_connections, 9);
        assert_eq!(shown(&routes, "<u@b.a.test>"), "mx:b.a.test");
        assert_eq!(routes.remove_override(&domain).unwrap().to_string(), "hub.test");
        assert_eq!(routes.remove_override(&domain), None);
        assert_eq!(shown(&routes, "<u@a.test>"), "smtp:192.0.2.1:26");

        for i in 0..MAX_OVERRIDES {
            let name = format!("d{i}.test").parse().unwrap();
            routes.set_override(name, "hub.test".parse().unwrap()).unwrap();
        }
        let one_more = routes.set_override(domain, "hub.test".parse().unwrap());
        assert_eq!(one_more, Err(TooManyOverrides));
        let again = routes.set_override("d1.test".parse().unwrap(), "other.test".parse().unwrap());
        assert_eq!(again, Ok(()));
    }

    #[test]
    fn the_limit_of_a_domain_takes_the_place_of_the_common_one() {
        let limited = DomainConfig { rate_limit: Some(60), rate_burst: Some(2), ..over("relay.test") };
        let burst = DomainConfig { rate_burst: Some(3), ..over("relay.test") };
        let mut config = Config::default();
        config.domains.insert("a.test".parse().unwrap(), limited);
        config.domains.insert("*.b.test".parse().unwrap(), burst);
        let limit = |config: &Config, path: &str| {
            let routes = Routes::new(config, "mx.home.test".parse().unwrap());
            let limit = routes.route(&path.parse().unwrap()).limit?;
            Some((limit.domain.to_string(), limit.rate.interval.as_millis(), limit.rate.burst))
        };
        let named = |domain: &str, milliseconds, burst| Some((domain.to_owned(), milliseconds, burst));
        assert_eq!(limit(&config, "<u@a.test>"), named("a.test", 1000, 2));
        assert_eq!(limit(&config, "<u@c.test>"), None);
        config.rate_limits.per_domain_per_second = Some(4);
        assert_eq!(limit(&config, "<u@a.test>"), named("a.test", 1000, 2));
        // Each domain under a pattern has a limit of its own.
        assert_eq!(limit(&config, "<u@x.b.test>"), named("x.b.test", 250, 3));
        assert_eq!(limit(&config, "<u@c.test>"), named("c.test", 250, 10));
        assert_eq!(limit(&config, "<Postmaster>"), named("mx.home.test", 250, 10));
        assert_eq!(limit(&config, "<u@[192.0.2.1]>"), None);
    }

    #[test]
    fn mail_for_two_domains_under_one_maildir_template_travels_together() {
        let maildir = DomainConfig { maildir: Some("/m/{address}".into()), ..DomainConfig::default() };
        let routes = routes(&[("*.test", maildir)]);
        let (a, b) =
            (routes.route(&"<u@a.test>".parse().unwrap()), routes.route(&"<u@b.test>".parse().unwrap()));
        assert_eq!(a, b);
        assert_eq!(a.next_hop.to_string(), "maildir");
    }

    #[test]
    fn domains_with_other_terms_never_share_a_connection() {
        let to = || Some("127.0.0.1:25".parse().unwrap());
        let plain = DomainConfig { mx_override: to(), ..DomainConfig::default() };
        let routes = routes(&[
            ("a.test", plain.clone()),
            ("b.test", plain.clone()),
            ("never.test", DomainConfig { tls: Some(TlsPolicy::Disabled), ..plain.clone() }),
            ("always.test", DomainConfig { require_tls: true, ..plain.clone() }),
            ("too.test", DomainConfig { tls: Some(TlsPolicy::Required), ..plain.clone() }),
            (
                "any.test",
                DomainConfig { require_tls: true, accept_invalid_certs: Some(true), ..plain.clone() },
            ),
            ("slow.test", DomainConfig { pipelining: false, ..plain.clone() }),
            ("whole.test", DomainConfig { chunking: false, ..plain }),
            ("named.test", DomainConfig { require_tls: true, ..over("mx.named.test") }),
        ]);
        let next_hop = |domain: &str| routes.route(&format!("<u@{domain}>").parse().unwrap()).next_hop;
        assert_eq!(next_hop("a.test"), next_hop("b.test"));
        let others =
            ["a.test", "never.test", "always.test", "too.test", "any.test", "slow.test", "whole.test"];
        for one in others {
            for other in others.iter().filter(|other| **other != one) {
                assert_ne!(next_hop(one), next_hop(other), "{one} {other}");
            }
        }
        let expects = |domain| {
            let NextHop::Host { terms, .. } = next_hop(domain) else { panic!("no host") };
            (terms.verified, terms.name.as_ref().map(ToString::to_string))
        };
        assert_eq!(expects("a.test"), (false, None));
        assert_eq!(expects("always.test"), (true, Some("always.test".into())));
        assert_eq!(expects("any.test"), (false, None));
        assert_eq!(expects("named.test"), (true, None));
    }
}
