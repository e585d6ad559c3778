//! What an operator sees of the cache, and does to it.

use std::{net::IpAddr, time::Duration};

use empath_common::Domain;

use super::{
    MxHost, ResolveError, Resolver,
    cache::Cache,
    lookup::{Question, RecordType},
};

/// An answer in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The name that was asked for.
    pub name: Domain,
    /// The type of records.
    pub kind: RecordType,
    /// The records, each as it stands in a zone.
    pub records: Vec<String>,
    /// Why there are none: `nxdomain`, `nodata`, `servfail`, `refused` or `timeout`.
    pub error: Option<&'static str>,
    /// How long it is still remembered.
    pub expires_in: Duration,
    /// How often it was asked for since.
    pub hits: u64,
}

/// An MX host with its addresses, or why it has none.
pub type HostAddresses = (MxHost, Result<Vec<IpAddr>, ResolveError>);

impl Resolver {
    /// How many answers are in the cache.
    pub fn cache_len(&self) -> usize {
        self.flights.with_cache(Cache::len)
    }

    /// The answers in the cache, by name: all, or those about a domain and the names below it.
    pub fn cached(&self, domain: Option<&Domain>) -> Vec<Remembered> {
        let (all, now) = self.flights.with_cache(|cache, now| (cache.list(now), now));
        all.into_iter()
            .filter(|(question, _)| is_about(question, domain))
            .map(|(Question { name, kind }, entry)| Remembered {
                name,
                kind,
                records: entry.answer.as_ref().map(|found| found.records.shown()).unwrap_or_default(),
                error: entry.answer.as_ref().err().map(|error| error.as_str()),
                expires_in: entry.ends.saturating_duration_since(now),
                hits: entry.hits,
            })
            .collect()
    }

    /// Forgets the answers that [`cached`](Self::cached) lists. Returns how many there were.
    pub fn forget(&self, domain: Option<&Domain>) -> usize {
        self.flights.with_cache(|cache, now| {
            let all = cache.list(now).into_iter().map(|(question, _)| question);
            all.filter(|question| is_about(question, domain) && cache.remove(question)).count()
        })
    }

    /// Forgets what is known about the MX hosts of `domain` and their addresses, and asks again.
    pub async fn refresh(&self, domain: &Domain) -> Result<Vec<HostAddresses>, ResolveError> {
        self.forget_name(domain);
        let hosts = self.mx(domain).await?;
        for host in &hosts {
            self.forget_name(&host.name);
            // All are under way before the first is waited for.
            self.prepare(&host.name);
        }
        let mut found = Vec::with_capacity(hosts.len());
        for host in hosts {
            let addresses = self.addresses(&host.name).await;
            found.push((host, addresses));
        }
        Ok(found)
    }

    fn forget_name(&self, name: &Domain) {
        self.flights.with_cache(|cache, _| {
            for kind in [RecordType::Mx, RecordType::A, RecordType::Aaaa] {
                cache.remove(&Question { name: name.clone(), kind });
            }
        });
    }
}

fn is_about(question: &Question, domain: Option<&Domain>) -> bool {
    domain.is_none_or(|domain| question.name == *domain || question.name.is_below(domain))
}
