//! What is asked of the DNS and what it says: the seam between the resolver and where its answers come from.

use std::{collections::HashSet, fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use empath_common::Domain;

/// Most hosts that are kept of an MX answer, best first.
pub(super) const MAX_HOSTS: usize = 32;
/// Most addresses that are kept of an answer.
const MAX_RECORDS: usize = 64;

/// The records of one type at one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The name, in lower-case A-labels.
    pub name: Domain,
    /// The type.
    pub kind: RecordType,
}

/// The types of records that delivery asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// Hosts that take mail.
    Mx,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// As it stands in a zone: `MX`.
impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mx => "MX",
            Self::A => "A",
            Self::Aaaa => "AAAA",
        })
    }
}

/// What the DNS says to a [`Question`]. Cloning is cheap.
pub type Answer = Result<Found, LookupError>;

/// Records, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The records.
    pub records: Records,
    /// How long they may be remembered: the shortest time to live of the records and of the CNAMEs that led to them.
    pub ttl: Duration,
}

/// Records of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// MX records, best preference first, the same host once. A great number is cut off at the worse end.
    Mx(Arc<[Mx]>),
    /// Addresses in the order of the answer, each once.
    Addresses(Arc<[IpAddr]>),
}

/// An MX record (RFC 1035 §3.3.9).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mx {
    /// Lower is tried first.
    pub preference: u16,
    /// The host.
    pub exchange: Exchange,
}

/// What an MX record names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exchange {
    /// A host.
    Host(Domain),
    /// `.`: no host (RFC 7505).
    Root,
    /// A name that no host can have.
    Invalid,
}

/// Why there are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// NXDOMAIN, and how long that may be remembered if the answer said so (RFC 2308 §5).
    NoSuchName(Option<Duration>),
    /// The name exists without records of the type; likewise.
    NoRecords(Option<Duration>),
    /// SERVFAIL, or an answer that makes no sense.
    Failed,
    /// REFUSED: the name servers don't answer to us.
    Refused,
    /// No answer in time.
    Timeout,
    /// Too many lookups wait already.
    Busy,
}

impl LookupError {
    /// As it is shown and counted.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchName(_) => "nxdomain",
            Self::NoRecords(_) => "nodata",
            Self::Failed => "servfail",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
        }
    }

    /// Whether it is what the DNS has to say, rather than a failure to say it.
    pub(super) const fn is_definite(self) -> bool {
        matches!(self, Self::NoSuchName(_) | Self::NoRecords(_))
    }
}

impl Records {
    /// Puts MX records in order.
    pub fn mx(mut records: Vec<Mx>) -> Self {
        records.sort();
        let mut hosts = HashSet::new();
        // The same host twice is the same host, at its best preference.
        records.retain(|mx| hosts.insert(mx.exchange.clone()));
        records.truncate(MAX_HOSTS);
        Self::Mx(records.into())
    }

    /// Takes addresses in the order of the answer.
    pub fn addresses(found: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found {
            // ::ffff:192.0.2.1 is 192.0.2.1, and must not pass as something else.
            let address = address.to_canonical();
            if addresses.len() < MAX_RECORDS && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self::Addresses(addresses.into())
    }

    /// Each record as it stands in a zone.
    pub(super) fn shown(&self) -> Vec<String> {
        match self {
            Self::Mx(records) => records.iter().map(ToString::to_string).collect(),
            Self::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

/// As it stands in a zone: `10 mx.example.test`.
impl fmt::Display for Mx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exchange {
            Exchange::Host(host) => write!(f, "{} {host}", self.preference),
            Exchange::Root => write!(f, "{} .", self.preference),
            Exchange::Invalid => write!(f, "{} (no host name)", self.preference),
        }
    }
}

/// Where answers come from: name servers, or a zone in memory.
pub trait Lookup: Send + Sync + 'static {
    /// Asks, following CNAMEs. It remembers nothing, and may take forever: the resolver sees to both.
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

#[cfg(test)]
impl Mx {
    pub(crate) fn host(preference: u16, name: &str) -> Self {
        Self { preference, exchange: Exchange::Host(name.parse().unwrap()) }
    }
}
