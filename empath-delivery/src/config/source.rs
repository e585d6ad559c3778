use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use empath_common::{Domain, Problem};
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;

/// An address, or one of each family, that mail leaves from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// An IPv4 address of this machine, from which IPv4 hosts are reached. Without one they are not. Default: none.
    #[schemars(with = "Option<String>")]
    pub ipv4: Option<Ipv4Addr>,
    /// An IPv6 address of this machine, from which IPv6 hosts are reached. Without one they are not. Default: none.
    #[schemars(with = "Option<String>")]
    pub ipv6: Option<Ipv6Addr>,
    /// What EHLO says. Receivers want it to have the address, and the address to have it as its PTR record.
    /// Default: `hostname`.
    #[schemars(with = "Option<String>")]
    pub hostname: Option<Domain>,
    /// The part of the mail that leaves from here, compared with the weights of the others in the pool.
    ///
    /// `0`: none, from now on. Default: `1`.
    pub weight: u32,
    /// The address is new, and receivers don't trust it yet. Default: none.
    pub warm_up: Option<WarmUp>,
}

/// How an address that nobody knows takes up its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// The first day, in UTC: `"2026-11-01"`. Nothing leaves before it.
    #[schemars(with = "String")]
    pub since: Date,
    /// How many days it takes.
    ///
    /// On the first day the weight counts a thousandth, and every day it grows by the same factor (for 30 days by 1.26), because
    /// sudden growth is what receivers mistrust. The rest goes to the other sources of the pool.
    pub days: u16,
}

impl Default for Source {
    fn default() -> Self {
        Self { ipv4: None, ipv6: None, hostname: None, weight: 1, warm_up: None }
    }
}

impl Source {
    fn addresses(&self) -> impl Iterator<Item = (&'static str, IpAddr)> {
        let v4 = self.ipv4.map(|address| ("ipv4", address.into()));
        v4.into_iter().chain(self.ipv6.map(|address| ("ipv6", address.into())))
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.addresses().next().is_none() {
            problems
                .push(Problem::new("ipv4", "is missing: a source has an ipv4 or an ipv6 address, or both"));
        }
        for (key, address) in self.addresses() {
            let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
            if address.is_unspecified() || address.is_multicast() || is_broadcast {
                problems.push(Problem::new(key, "is no address that a connection can come from"));
            }
        }
        let unusable = self.ipv6.and_then(|address| {
            if address.to_ipv4_mapped().is_some() {
                Some("is an IPv4 address: write it as ipv4")
            } else if address.is_unicast_link_local() {
                Some("is an address of one link, which says nothing without the interface: give one of wider scope")
            } else {
                None
            }
        });
        problems.extend(unusable.map(|message| Problem::new("ipv6", message)));
        if self.warm_up.is_some_and(|warm_up| warm_up.days == 0) {
            problems.push(Problem::new("warm_up.days", "is no time; leave warm_up out, or give at least 1"));
        }
        problems
    }
}

impl Config {
    /// There is no pool of this name.
    pub(super) fn unknown_pool(&self, name: Option<&String>) -> Option<Problem> {
        let name = name.filter(|name| !self.sources.contains_key(*name))?;
        Some(Problem::new("source", format!("there is no pool {name:?} in delivery.sources")))
    }

    /// The pool of this name, or the one for mail of which nothing else is said.
    pub(crate) fn pool(&self, name: Option<&String>) -> Option<&[Source]> {
        self.sources.get(name.or(self.source.as_ref())?).map(Vec::as_slice)
    }
}

/// What is wrong with a pool.
pub(super) fn validate(name: &str, pool: &[Source]) -> Vec<Problem> {
    let of_one = |(number, source): (usize, &Source)| {
        let within = move |problem: Problem| problem.within(&format!("[{number}]"));
        source.validate().into_iter().map(within)
    };
    let mut problems: Vec<_> = pool.iter().enumerate().flat_map(of_one).collect();
    if name.is_empty() {
        problems.push(Problem::new("", "a pool needs a name: write it before the colon"));
    }
    if pool.iter().all(|source| source.weight == 0) {
        problems.push(Problem::new("", "no mail could leave: give at least one source with a weight"));
    }
    problems
}

/// The addresses of a pool that this machine does not have now, each with its place.
pub(super) fn foreign(pool: &[Source]) -> impl Iterator<Item = (String, IpAddr)> {
    let of_one = |(number, source): (usize, &Source)| {
        let addresses: Vec<_> = source.addresses().collect();
        addresses.into_iter().map(move |(key, address)| (format!("[{number}].{key}"), address))
    };
    pool.iter().enumerate().flat_map(of_one).filter(|(_, address)| UdpSocket::bind((*address, 0)).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_that_nothing_can_come_from_is_refused() {
        for (address, expected) in [
            ("::ffff:127.0.0.1", Some("write it as ipv4")),
            ("fe80::1", Some("interface")),
            ("febf::1", Some("interface")),
            ("ff02::1", Some("no address")),
            ("fd00::1", None),
            ("fec0::1", None),
            ("2001:db8::1", None),
        ] {
            let source = Source { ipv6: Some(address.parse().unwrap()), ..Source::default() };
            let problems = source.validate();
            assert_eq!(problems.len(), usize::from(expected.is_some()), "{address}: {problems:?}");
            for (problem, expected) in problems.iter().zip(expected) {
                assert!(
                    problem.key == "ipv6" && problem.message.contains(expected),
                    "{address}: {problem:?}"
                );
            }
        }
    }

    #[test]
    fn a_pool_has_a_name() {
        let pool = [Source { ipv4: Some(Ipv4Addr::LOCALHOST), ..Source::default() }];
        assert_eq!(validate("bulk", &pool), []);
        assert!(validate("", &pool)[0].message.contains("name"));
    }
}
