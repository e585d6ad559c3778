//! From a domain to its MX hosts, and from a host to its addresses.

mod config;

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
};

use empath_common::Domain;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, rdata::MX},
    },
    system_conf::read_system_conf,
};

pub use config::{DnsConfig, PrivateAddresses};

/// Most MX hosts of a domain that are looked at, best first.
const MAX_HOSTS: usize = 32;
/// Most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 16;
/// Queries in flight on one connection to a name server.
const MAX_QUERIES: usize = 1024;

/// A host that takes mail for a domain (RFC 5321 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHost {
    /// Lower is tried first.
    pub preference: u16,
    /// Its name.
    pub name: Domain,
}

/// Why a name doesn't lead to where mail goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The domain says that it takes no mail (RFC 7505).
    #[error("the domain {0} accepts no mail (null MX)")]
    NullMx(Domain),
    /// NXDOMAIN.
    #[error("the domain {0} does not exist")]
    NoSuchDomain(Domain),
    /// The name exists and has no address.
    #[error("the host {0} has no address")]
    NoAddress(Domain),
    /// The name has only addresses that are never contacted, or by configuration not.
    #[error("the host {0} has no address that may be contacted")]
    Unusable(Domain),
    /// None of the domain's MX records names a host.
    #[error("no MX record of {0} names a host")]
    NoHost(Domain),
    /// SERVFAIL, REFUSED, or an answer that makes no sense.
    #[error("the name server failed for {0}")]
    ServerFailure(Domain),
    /// No name server answered in time.
    #[error("no name server answered for {0} in time")]
    Timeout(Domain),
}

impl ResolveError {
    /// Whether the answer is a definite no, rather than none.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NullMx(_) | Self::NoSuchDomain(_) | Self::NoAddress(_) => true,
            // What the name has today is a mistake that its owner can mend.
            Self::Unusable(_) | Self::NoHost(_) | Self::ServerFailure(_) | Self::Timeout(_) => false,
        }
    }
}

/// The name servers can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's resolver configuration can't be read.
    #[error("cannot read the system's name servers; set `delivery.dns.servers`")]
    System(#[source] io::Error),
    /// The resolver refused its configuration.
    #[error("cannot set up the resolver")]
    Setup(#[source] io::Error),
}

/// Looks names up, and remembers the answers for as long as they are valid. Cloning is cheap and shares the cache.
#[derive(Clone)]
pub struct Resolver {
    dns: TokioResolver,
    private_addresses: PrivateAddresses,
}

impl Resolver {
    /// A resolver that asks the configured servers, or the system's.
    pub fn new(config: &DnsConfig) -> Result<Self, ResolverError> {
        let (servers, mut options) = if config.servers.is_empty() {
            let (system, options) =
                read_system_conf().map_err(|error| ResolverError::System(io::Error::other(error)))?;
            (system.name_servers, options)
        } else {
            let server = |address: &SocketAddr| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                NameServerConfig::new(address.ip(), true, connections.into())
            };
            (config.servers.iter().map(server).collect(), ResolverOpts::default())
        };
        options.timeout = config.timeout;
        // The library counts repetitions.
        options.attempts = config.attempts.saturating_sub(1);
        options.cache_size = config.cache_size;
        let max_ttl = config.max_ttl.max(config.min_ttl);
        (options.positive_min_ttl, options.positive_max_ttl) = (Some(config.min_ttl), Some(max_ttl));
        (options.negative_min_ttl, options.negative_max_ttl) = (Some(config.min_ttl), Some(max_ttl));
        // Mail goes where DNS says; `localhost` is known without it (RFC 6761 §6.3).
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MAX_QUERIES;
        // Without search domains: `example.test` is never `example.test.our.domain`.
        let servers = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let dns = builder.build().map_err(|error| ResolverError::Setup(io::Error::other(error)))?;
        Ok(Self { dns, private_addresses: config.private_addresses })
    }

    /// The hosts that take mail for `domain`, best preference first, equal ones in no particular order: see
    /// [`shuffle_equals`].
    ///
    /// Without any MX record the domain itself is its host, preference 0 (RFC 5321 §5.1).
    pub async fn mx(&self, domain: &Domain) -> Result<Vec<MxHost>, ResolveError> {
        let found = match self.dns.mx_lookup(name(domain)?).await {
            Ok(found) => found.answers().to_vec(),
            Err(error) => match failure(domain, &error) {
                ResolveError::NoAddress(_) => Vec::new(),
                error => return Err(error),
            },
        };
        let records = || {
            found.iter().filter_map(|record| if let RData::MX(mx) = &record.data { Some(mx) } else { None })
        };
        if records().next().is_none() {
            return Ok(vec![MxHost { preference: 0, name: domain.clone() }]);
        }
        if records().all(|mx| mx.exchange.is_root()) {
            return Err(ResolveError::NullMx(domain.clone()));
        }
        // RFC 7505 §3: "." beside other hosts means nothing. Other names that are no host names lead nowhere.
        let host = |mx: &MX| {
            let name = Domain::parse(mx.exchange.to_ascii().trim_end_matches('.')).ok()?;
            Some(MxHost { preference: mx.preference, name })
        };
        let mut hosts: Vec<MxHost> = records().filter_map(host).collect();
        hosts.sort_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
        // The same host twice is the same host, at its best preference.
        let mut seen = HashSet::new();
        hosts.retain(|host| seen.insert(host.name.clone()));
        hosts.truncate(MAX_HOSTS);
        if hosts.is_empty() { Err(ResolveError::NoHost(domain.clone())) } else { Ok(hosts) }
    }

    /// The addresses of `host` that may be contacted, IPv6 and IPv4 in turn, IPv6 first.
    ///
    /// One family is enough: the other may fail.
    pub async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, ResolveError> {
        let name = name(host)?;
        let (v6, v4) = tokio::join!(self.dns.ipv6_lookup(name.clone()), self.dns.ipv4_lookup(name));
        let error = match (&v6, &v4) {
            // A failure may hide an address: it is tried again before the host counts as having none.
            (Err(v6), Err(v4)) => {
                [failure(host, v6), failure(host, v4)].into_iter().min_by_key(ResolveError::is_permanent)
            }
            _ => None,
        };
        let v6 = v6.iter().flat_map(records).filter_map(address);
        let v4 = v4.iter().flat_map(records).filter_map(address);
        let all: Vec<IpAddr> = alternate(v6, v4).collect();
        let usable: Vec<_> =
            all.iter().copied().filter(|ip| self.may_contact(*ip)).take(MAX_ADDRESSES).collect();
        match (usable.is_empty(), error) {
            (false, _) => Ok(usable),
            (true, Some(error)) => Err(error),
            (true, None) if all.is_empty() => Err(ResolveError::NoAddress(host.clone())),
            (true, None) => Err(ResolveError::Unusable(host.clone())),
        }
    }

    /// Whether mail may be delivered to this address, as an address literal or the answer of a name server.
    pub fn may_contact(&self, address: IpAddr) -> bool {
        self.private_addresses.allow(address)
    }
}

/// Puts hosts of equal preference in random order, so that all of them are used (RFC 5321 §5.1).
pub fn shuffle_equals(hosts: &mut [MxHost], rng: &mut fastrand::Rng) {
    for equals in hosts.chunk_by_mut(|a, b| a.preference == b.preference) {
        rng.shuffle(equals);
    }
}

/// The fully qualified name: search domains are never appended.
fn name(domain: &Domain) -> Result<Name, ResolveError> {
    let mut name =
        Name::from_ascii(domain.as_str()).map_err(|_| ResolveError::NoSuchDomain(domain.clone()))?;
    name.set_fqdn(true);
    Ok(name)
}

fn failure(domain: &Domain, error: &NetError) -> ResolveError {
    let domain = domain.clone();
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => ResolveError::NoSuchDomain(domain),
            ResponseCode::NoError => ResolveError::NoAddress(domain),
            _ => ResolveError::ServerFailure(domain),
        },
        NetError::Timeout => ResolveError::Timeout(domain),
        _ => ResolveError::ServerFailure(domain),
    }
}

fn records(lookup: &Lookup) -> impl Iterator<Item = &RData> {
    lookup.answers().iter().map(|record| &record.data)
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(v4) => Some(IpAddr::V4(v4.0)),
        // ::ffff:192.0.2.1 is 192.0.2.1, and must not pass as something else.
        RData::AAAA(v6) => Some(IpAddr::V6(v6.0).to_canonical()),
        _ => None,
    }
}

fn alternate<T>(mut a: impl Iterator<Item = T>, mut b: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || match (a.next(), b.next()) {
        (None, None) => None,
        pair => Some(pair),
    })
    .flat_map(|(a, b)| a.into_iter().chain(b))
}

#[cfg(test)]
mod tests;
