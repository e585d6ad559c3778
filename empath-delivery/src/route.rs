//! A forward-path, the class of the sender and the configuration make a next hop.
//!
//! It is computed again on every attempt, so a change of the configuration applies to mail already queued.

mod next_hop;
mod senders;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use empath_common::{Domain, Host, MessageId, ReversePath};

use crate::{
    config::{BURST, Config, DomainConfig, DomainPattern, HostAddr, Override, TlsPolicy},
    queue::Rate,
    source::Pool,
};
pub use next_hop::{NextHop, Terms};
pub use senders::SenderClass;
use senders::Senders;

/// Most overrides at run time.
const MAX_OVERRIDES: usize = 1000;

/// What decides about the way of a message, besides whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail {
    /// Which message.
    pub id: MessageId,
    /// Whose it is.
    pub sender: SenderClass,
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
    senders: Senders,
    /// What an operator said at run time. It counts more than the configuration.
    overrides: BTreeMap<Domain, Override>,
    mx_port: u16,
    mx_rollup: bool,
    hostname: Domain,
    /// What else is delivered here.
    local: Vec<Domain>,
    local_names: HashSet<Domain>,
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
    /// What connections come from.
    pool: Option<Pool>,
    /// Whether the route of a sender counts more.
    yields: bool,
    /// Whether this is about some domains, and not about all.
    named: bool,
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
                pool: config.pool(None).map(Pool::new),
                yields: true,
                named: false,
            },
            senders: Senders::new(config),
            overrides: BTreeMap::new(),
            mx_port: config.mx_port,
            mx_rollup: config.connection_pool.mx_rollup,
            hostname,
            local: Vec::new(),
            local_names: HashSet::new(),
        };
        for (pattern, domain) in &config.domains {
            let terms = Arc::new(Terms::of(config, Some(domain)));
            let next_hop = NextHop::of(domain, config.mx_port, &terms);
            let stays = domain.maildir.is_some() || domain.lmtp.is_some();
            let named = *pattern != DomainPattern::Any;
            let yields = next_hop.is_none() || !(named || stays);
            let max_connections = domain.max_connections.unwrap_or(max_per_server);
            let rate = rate(config, Some(domain));
            let pool = config.pool(domain.source.as_ref()).map(Pool::new);
            let policy = Policy { next_hop, terms, max_connections, rate, pool, yields, named };
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
        self.local_names.extend(domains.iter().cloned());
        self
    }

    /// From now on these are the routes instead of those `before`: the [classes](SenderClass) of senders mean what they
    /// meant.
    pub fn keep_classes_of(&mut self, before: &Self) {
        self.senders.keep_classes_of(&before.senders);
    }

    /// Whether mail has the same classes by these routes, which keep [those](Self::keep_classes_of) of `before`.
    pub(crate) fn has_senders_of(&self, before: &Self) -> bool {
        self.senders.has_patterns_of(&before.senders)
    }

    /// The class of a message with this reverse-path.
    pub fn sender_class(&self, path: &ReversePath) -> SenderClass {
        self.senders.class(path)
    }

    /// Where mail for anybody at `host` goes, from whoever sends it and from every address that it may leave from.
    pub fn next_hops(&self, host: Option<&Host>) -> Vec<NextHop> {
        let of_sender = |sender| {
            let (Route { next_hop, .. }, pool) = self.unsourced(sender, host);
            let from = |origin| next_hop.clone().with_source(origin);
            pool.map_or_else(|| vec![next_hop.clone()], |pool| pool.origins().map(from).collect())
        };
        self.senders.classes().flat_map(of_sender).collect()
    }

    /// The domain of the bare `<Postmaster>`, who is a local recipient (RFC 5321 §4.5.1): the first of the host and the
    /// local domains for which there is a next hop without looking for MX hosts. Those of the host would lead here.
    pub fn postmaster_domain(&self) -> &Domain {
        let known =
            |domain: &&Domain| self.overrides.contains_key(domain) || self.policy(domain).next_hop.is_some();
        std::iter::once(&self.hostname).chain(&self.local).find(known).unwrap_or(&self.hostname)
    }

    /// Where mail for anybody at `host` goes; `None` is the host of the bare `<Postmaster>`.
    pub fn route_to(&self, mail: Mail, host: Option<&Host>) -> Route {
        let (mut route, pool) = self.unsourced(mail.sender, host);
        if let Some(source) = pool.and_then(|pool| pool.choose(mail.id)) {
            route.next_hop = route.next_hop.with_source(source);
        }
        route
    }

    /// Where mail of a sender for anybody at `host` goes, and the pool that it leaves from.
    fn unsourced(&self, sender: SenderClass, host: Option<&Host>) -> (Route, Option<&Pool>) {
        let domain = match host {
            None => Some(self.postmaster_domain()),
            Some(Host::Domain(domain)) => Some(domain),
            Some(Host::Literal(_)) => None,
        };
        let policy = domain.map_or(&self.any, |domain| self.policy(domain));
        let by_address = |terms| match (domain, host) {
            (None, Some(Host::Literal(literal))) => {
                NextHop::Host { host: HostAddr::Ip(literal.0), port: self.mx_port, configured: false, terms }
            }
            (domain, _) => NextHop::Mx(domain.unwrap_or(&self.hostname).clone(), terms),
        };
        let route = match domain.and_then(|domain| self.overrides.get(domain)) {
            Some(to) => {
                let next_hop = Some(NextHop::configured(to, self.mx_port, &policy.terms));
                Policy { next_hop, ..policy.clone() }.route(domain, by_address)
            }
            None => match self.way(sender, host, policy) {
                Some(way) => way,
                None => policy.route(domain, by_address),
            },
        };
        let own = self.senders.way(sender).and_then(|way| way.pool.as_ref());
        (route, own.or(policy.pool.as_ref()))
    }

    /// The sender's own way to `host`, if it counts more than what the configuration says of that: `policy`.
    fn way(&self, sender: SenderClass, host: Option<&Host>, policy: &Policy) -> Option<Route> {
        let way = self.senders.way(sender).filter(|_| policy.yields)?;
        let limit = match host? {
            // Mail for this host stays here, that of the bare `<Postmaster>` too.
            Host::Domain(domain) if self.local_names.contains(domain) => return None,
            Host::Domain(domain) => policy.limit(domain),
            Host::Literal(_) => None,
        };
        way.route(policy.required(), limit)
    }

    /// Whether domains with the same MX hosts go together.
    pub(crate) fn domains_share(&self) -> bool {
        self.mx_rollup
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
        self.exact.get(domain).or_else(|| longest(&self.below, domain)).unwrap_or(&self.any)
    }
}

/// What applies below the longest name that a domain lies below.
fn longest<'a, T>(below: &'a HashMap<Box<str>, T>, domain: &Domain) -> Option<&'a T> {
    if below.is_empty() {
        return None;
    }
    let parents = std::iter::successors(Some(domain.as_str()), |name| Some(name.split_once('.')?.1));
    parents.skip(1).find_map(|parent| below.get(parent))
}

impl Policy {
    fn route(&self, domain: Option<&Domain>, otherwise: impl FnOnce(Arc<Terms>) -> NextHop) -> Route {
        let mut next_hop = self.next_hop.clone().unwrap_or_else(|| otherwise(Arc::clone(&self.terms)));
        // A configured address has no name: its certificate is for the domain that it serves.
        if let NextHop::Host { host: HostAddr::Ip(_), configured: true, terms, .. } = &mut next_hop
            && terms.verified
        {
            Arc::make_mut(terms).name = domain.cloned();
        }
        let limit = domain.and_then(|domain| self.limit(domain));
        Route { next_hop, max_connections: self.max_connections, limit }
    }

    fn limit(&self, domain: &Domain) -> Option<Limit> {
        self.rate.map(|rate| Limit { domain: domain.clone(), rate })
    }

    /// Its terms, if it requires TLS whatever the way.
    fn required(&self) -> Option<&Terms> {
        (self.named && self.terms.tls == TlsPolicy::Required).then_some(&*self.terms)
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
