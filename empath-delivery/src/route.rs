//! A forward-path and the configuration make a next hop.
//!
//! It is computed again on every attempt, so a change of the configuration applies to mail already queued.

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

use empath_common::{Domain, ForwardPath, Host};

use crate::config::{Config, DomainPattern, HostAddr};

/// Where a message goes next. Recipients with the same next hop travel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// The MX hosts of a domain.
    Mx(Domain),
    /// One host: an `mx_override` or an address literal.
    Host {
        /// Which.
        host: HostAddr,
        /// Its port.
        port: u16,
        /// Whether the configuration named it. Then a name that doesn't exist is our mistake and bounces nothing.
        configured: bool,
    },
    /// Maildirs on this machine, by the template of their paths.
    Maildir(Arc<Path>),
}

/// As it is shown: `mx:example.test`, `smtp:127.0.0.1:2525`, `maildir`.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(domain) => write!(f, "mx:{domain}"),
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
}

/// The part of the configuration that decides about next hops, made ready for look-up.
#[derive(Debug)]
pub struct Routes {
    exact: HashMap<Domain, Policy>,
    /// By the name below which it applies.
    below: HashMap<Box<str>, Policy>,
    any: Policy,
    mx_port: u16,
    hostname: Domain,
}

#[derive(Debug, Clone)]
struct Policy {
    /// `None`: as the address says.
    next_hop: Option<NextHop>,
    max_connections: usize,
}

impl Routes {
    /// Routes as configured. `hostname` is the host of the bare `<Postmaster>`.
    pub fn new(config: &Config, hostname: Domain) -> Self {
        let max_per_server = config.connection_pool.max_per_server;
        let mut routes = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Policy { next_hop: None, max_connections: max_per_server },
            mx_port: config.mx_port,
            hostname,
        };
        for (pattern, domain) in &config.domains {
            let next_hop = match (&domain.maildir, &domain.mx_override) {
                (Some(template), _) => Some(NextHop::Maildir(template.as_path().into())),
                (None, Some(to)) => Some(NextHop::Host {
                    host: to.host.clone(),
                    port: to.port.unwrap_or(config.mx_port),
                    configured: true,
                }),
                (None, None) => None,
            };
            let max_connections = domain.max_connections.unwrap_or(max_per_server);
            let policy = Policy { next_hop, max_connections };
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

    /// Where mail for `path` goes.
    pub fn route(&self, path: &ForwardPath) -> Route {
        self.route_to(path.host())
    }

    /// Where mail for anybody at `host` goes; `None` is the host of the bare `<Postmaster>`.
    pub fn route_to(&self, host: Option<&Host>) -> Route {
        // RFC 5321 §4.5.1: <Postmaster> without a domain is the postmaster of this host.
        let domain = match host {
            None => &self.hostname,
            Some(Host::Domain(domain)) => domain,
            Some(Host::Literal(literal)) => {
                return self.any.route(|| NextHop::Host {
                    host: HostAddr::Ip(literal.0),
                    port: self.mx_port,
                    configured: false,
                });
            }
        };
        self.policy(domain).route(|| NextHop::Mx(domain.clone()))
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
    fn route(&self, otherwise: impl FnOnce() -> NextHop) -> Route {
        Route {
            next_hop: self.next_hop.clone().unwrap_or_else(otherwise),
            max_connections: self.max_connections,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DomainConfig;

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
    fn mail_for_two_domains_under_one_maildir_template_travels_together() {
        let maildir = DomainConfig { maildir: Some("/m/{address}".into()), ..DomainConfig::default() };
        let routes = routes(&[("*.test", maildir)]);
        let (a, b) =
            (routes.route(&"<u@a.test>".parse().unwrap()), routes.route(&"<u@b.test>".parse().unwrap()));
        assert_eq!(a, b);
        assert_eq!(a.next_hop.to_string(), "maildir");
    }
}
