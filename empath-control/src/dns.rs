use std::net::IpAddr;

use empath_common::Domain;
use serde::{Deserialize, Serialize};

/// An answer in the cache of the resolver: the answers of `dns.cache.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedAnswer {
    /// The name that was asked for.
    pub name: String,
    /// The type of records: `MX`, `A` or `AAAA`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The records, each as it stands in a zone.
    pub records: Vec<String>,
    /// Why there are none: `nxdomain`, `nodata`, `servfail`, `refused` or `timeout`.
    pub error: Option<String>,
    /// How long it is still remembered.
    pub expires_in_seconds: u64,
    /// How often it was asked for since it is remembered.
    pub hits: u64,
}

/// What clearing the cache came to: the answer of `dns.cache.clear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Answers that were forgotten.
    pub cleared: u64,
}

/// A host that takes mail for a domain: the answers of `dns.refresh`, best preference first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedHost {
    /// The domain.
    pub domain: Domain,
    /// Lower is tried first; 0 for a domain that is its own host.
    pub preference: u16,
    /// The name of the host.
    pub host: String,
    /// The addresses that may be contacted, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// Why there is none.
    pub error: Option<String>,
}

/// A next hop that an operator chose: the answers of `dns.override.list`, `dns.override.set` and `dns.override.remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOverride {
    /// The domain whose mail goes there.
    pub domain: Domain,
    /// The host: `mx.example.test`, `mx.example.test:25`, `127.0.0.1:25` or `[::1]:25`.
    pub host: String,
}
