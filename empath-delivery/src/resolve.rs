//! From a domain to its MX hosts, and from a host to its addresses.
//!
//! What is asked and answered is in [`lookup`]; answers are remembered for as long as they are true, and a question that
//! many ask at once is asked once.

mod cache;
mod config;
mod flights;
mod inspect;
pub mod lookup;
mod metrics;
mod reading;
mod servers;

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use empath_common::Domain;
use empath_metrics::{Kind, Registry};
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use cache::Cache;
use flights::{Asked, Flights};
use lookup::{Answer, Exchange, Found, Lookup, LookupError, Question, RecordType, Records};
use metrics::Metrics;
use servers::NameServers;

pub use config::{AddressFamily, DnsConfig, PrivateAddresses};
pub use inspect::{HostAddresses, Remembered};
pub use servers::ResolverError;

/// Most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 16;
/// How long addresses of one family wait for those of the other (RFC 8305 §3).
const FAMILY_PATIENCE: Duration = Duration::from_millis(50);

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
    /// SERVFAIL, or an answer that makes no sense.
    #[error("the name server failed for {0}")]
    ServerFailure(Domain),
    /// REFUSED.
    #[error("the name server refuses to answer for {0}")]
    Refused(Domain),
    /// No name server answered in time.
    #[error("no name server answered for {0} in time")]
    Timeout(Domain),
    /// Too many other lookups were waiting.
    #[error("too many lookups were waiting to ask for {0}")]
    Busy(Domain),
}

impl ResolveError {
    /// Whether the answer is a definite no, rather than none.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NullMx(_) | Self::NoSuchDomain(_) | Self::NoAddress(_) => true,
            Self::ServerFailure(_) | Self::Refused(_) | Self::Timeout(_) | Self::Busy(_)
            // What the name has today is a mistake that its owner can mend.
            | Self::Unusable(_) | Self::NoHost(_) => false,
        }
    }

    fn of(error: LookupError, name: &Domain) -> Self {
        let name = name.clone();
        match error {
            LookupError::NoSuchName(_) => Self::NoSuchDomain(name),
            LookupError::NoRecords(_) => Self::NoAddress(name),
            LookupError::Failed => Self::ServerFailure(name),
            LookupError::Refused => Self::Refused(name),
            LookupError::Timeout => Self::Timeout(name),
            LookupError::Busy => Self::Busy(name),
        }
    }
}

/// Looks names up, and remembers the answers for as long as they are valid. Cloning is cheap and shares the cache. Must be
/// used within a tokio runtime.
#[derive(Clone)]
pub struct Resolver {
    flights: Arc<Flights>,
    private_addresses: PrivateAddresses,
    /// The preferred one first.
    families: Arc<[AddressFamily]>,
    /// Lookups under way end with the last resolver.
    _stop: Arc<DropGuard>,
}

/// Addresses of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Both families in turn, the preferred one first.
    pub usable: Vec<IpAddr>,
    /// Whether those of both families are there; otherwise [`Resolver::addresses`] waits for the others.
    pub complete: bool,
}

impl Resolver {
    /// A resolver that asks the configured servers, or the system's.
    pub fn new(config: &DnsConfig) -> Result<Self, ResolverError> {
        Self::counted(config, &Registry::default())
    }

    /// The same, with metrics.
    pub fn counted(config: &DnsConfig, registry: &Registry) -> Result<Self, ResolverError> {
        Ok(Self::over(Arc::new(NameServers::new(config)?), config, registry))
    }

    /// A resolver with another source of answers: `servers` and how often they are asked mean nothing then.
    pub fn over(lookup: Arc<dyn Lookup>, config: &DnsConfig, registry: &Registry) -> Self {
        Self::counting(lookup, config, registry, Metrics::new(registry))
    }

    /// A resolver of another configuration that remembers nothing yet. It counts on where this one stops; `registry` is that
    /// of this one.
    pub fn renewed(&self, config: &DnsConfig, registry: &Registry) -> Result<Self, ResolverError> {
        let lookup = Arc::new(NameServers::new(config)?);
        Ok(Self::counting(lookup, config, registry, self.flights.metrics()))
    }

    fn counting(lookup: Arc<dyn Lookup>, config: &DnsConfig, registry: &Registry, metrics: Metrics) -> Self {
        let flights = Arc::new(Flights::new(config, lookup, metrics));
        let weak = Arc::downgrade(&flights);
        registry.collected("empath_dns_cache_entries", "Answers in the DNS cache.", Kind::Gauge, move || {
            let entries = weak.upgrade()?.with_cache(Cache::len);
            u32::try_from(entries).ok().map(f64::from)
        });
        let stop = flights.stop.clone().drop_guard();
        Self {
            flights,
            private_addresses: config.private_addresses,
            families: config.address_families.as_slice().into(),
            _stop: Arc::new(stop),
        }
    }

    /// The hosts that take mail for `domain`, best preference first, equal ones in no particular order: see
    /// [`shuffle_equals`]. A great number is cut off at the worse end.
    ///
    /// Without any MX record the domain itself is its host, preference 0 (RFC 5321 §5.1).
    pub async fn mx(&self, domain: &Domain) -> Result<Vec<MxHost>, ResolveError> {
        let found = match self.ask(domain, RecordType::Mx).answer().await {
            Ok(Found { records: Records::Mx(found), .. }) => found,
            Ok(_) => return Err(ResolveError::ServerFailure(domain.clone())),
            Err(LookupError::NoRecords(_)) => {
                return Ok(vec![MxHost { preference: 0, name: domain.clone() }]);
            }
            Err(error) => return Err(ResolveError::of(error, domain)),
        };
        if found.iter().all(|mx| mx.exchange == Exchange::Root) {
            return Err(ResolveError::NullMx(domain.clone()));
        }
        // RFC 7505 §3: "." beside other hosts means nothing. Other names that are no host names lead nowhere.
        let hosts: Vec<_> = found
            .iter()
            .filter_map(|mx| match &mx.exchange {
                Exchange::Host(name) => Some(MxHost { preference: mx.preference, name: name.clone() }),
                Exchange::Root | Exchange::Invalid => None,
            })
            .collect();
        if hosts.is_empty() { Err(ResolveError::NoHost(domain.clone())) } else { Ok(hosts) }
    }

    /// The addresses of `host` that may be contacted, both families in turn, the preferred one first.
    ///
    /// One family is enough: the other may fail.
    pub async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, ResolveError> {
        let (v6, v4) = self.both(host);
        let (v6, v4) = tokio::join!(v6.answer(), v4.answer());
        self.gather(host, &v6, &v4)
    }

    /// The addresses of `host` as soon as there are some: a family whose lookup is slow doesn't hold up the other.
    pub async fn first_addresses(&self, host: &Domain) -> Result<Addresses, ResolveError> {
        self.addresses_within(FAMILY_PATIENCE, host).await
    }

    /// The other family has so much time when one has answered.
    async fn addresses_within(&self, patience: Duration, host: &Domain) -> Result<Addresses, ResolveError> {
        let (v6, v4) = self.both(host);
        let (v6, v4) = (v6.answer(), v4.answer());
        tokio::pin!(v6, v4);
        let (v6, v4) = tokio::select! {
            answer = &mut v6 => {
                let other = self.other(patience, host, &answer, v4).await;
                (Some(answer), other)
            }
            answer = &mut v4 => {
                let other = self.other(patience, host, &answer, v6).await;
                (other, Some(answer))
            }
        };
        let complete = v6.is_some() && v4.is_some();
        let none = Err(LookupError::NoRecords(None));
        let usable = self.gather(host, &v6.unwrap_or(none.clone()), &v4.unwrap_or(none))?;
        Ok(Addresses { usable, complete })
    }

    /// Completes when the addresses of one of these hosts are there, or of none.
    pub(crate) async fn any_addresses(&self, hosts: &[MxHost]) {
        let mut lookups: Vec<_> =
            hosts.iter().map(|host| Box::pin(self.addresses_within(Duration::ZERO, &host.name))).collect();
        let any = |cx: &mut Context<'_>| {
            let mut found = false;
            lookups.retain_mut(|lookup| match lookup.as_mut().poll(cx) {
                Poll::Ready(addresses) => {
                    found |= addresses.is_ok();
                    false
                }
                Poll::Pending => true,
            });
            if found || lookups.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(any).await;
    }

    /// The answer about the other family; `None` if it is not worth waiting for.
    async fn other(
        &self,
        patience: Duration,
        host: &Domain,
        first: &Answer,
        other: impl Future<Output = Answer>,
    ) -> Option<Answer> {
        if self.gather(host, first, first).is_err() {
            return Some(other.await);
        }
        timeout(patience, other).await.ok()
    }

    /// Begins to look up the addresses of a host whose turn is to come.
    pub(crate) fn prepare(&self, host: &Domain) {
        self.both(host);
    }

    fn both(&self, host: &Domain) -> (Asked, Asked) {
        (self.ask(host, RecordType::Aaaa), self.ask(host, RecordType::A))
    }

    fn gather(&self, host: &Domain, v6: &Answer, v4: &Answer) -> Result<Vec<IpAddr>, ResolveError> {
        let error = match (v6, v4) {
            // A failure may hide an address: it is tried again before the host counts as having none.
            (Err(v6), Err(v4)) => Some(if v6.is_definite() { *v4 } else { *v6 }),
            _ => None,
        };
        let (one, other) =
            if self.families.first() == Some(&AddressFamily::Ipv4) { (v4, v6) } else { (v6, v4) };
        let all: Vec<IpAddr> = alternate(addresses(one), addresses(other)).collect();
        let usable: Vec<_> =
            all.iter().copied().filter(|ip| self.may_contact(*ip)).take(MAX_ADDRESSES).collect();
        match (usable.is_empty(), error) {
            (false, _) => Ok(usable),
            (true, Some(error)) => Err(ResolveError::of(error, host)),
            (true, None) if all.is_empty() => Err(ResolveError::NoAddress(host.clone())),
            (true, None) => Err(ResolveError::Unusable(host.clone())),
        }
    }

    /// Whether mail may be delivered to this address, as an address literal or the answer of a name server.
    pub fn may_contact(&self, address: IpAddr) -> bool {
        self.private_addresses.allow(address) && self.families.contains(&AddressFamily::of(address))
    }

    /// False while the name servers answer nothing at all.
    pub fn is_healthy(&self) -> bool {
        self.flights.are_answered()
    }

    fn ask(&self, name: &Domain, kind: RecordType) -> Asked {
        self.flights.ask(Question { name: name.clone(), kind })
    }
}

/// Puts hosts of equal preference in random order, so that all of them are used (RFC 5321 §5.1).
pub fn shuffle_equals(hosts: &mut [MxHost], rng: &mut fastrand::Rng) {
    for equals in hosts.chunk_by_mut(|a, b| a.preference == b.preference) {
        rng.shuffle(equals);
    }
}

fn addresses(answer: &Answer) -> impl Iterator<Item = IpAddr> {
    let found = match answer {
        Ok(Found { records: Records::Addresses(addresses), .. }) => &**addresses,
        _ => &[],
    };
    found.iter().copied()
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
