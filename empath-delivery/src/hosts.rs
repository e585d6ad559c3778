//! The addresses of a next hop, one after the other, looked up when their turn comes (RFC 5321 §5.1).

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use empath_common::Domain;

use crate::{
    config::HostAddr,
    failure::{Failure, Scope},
    resolve::{self, MxHost, Resolver},
    route::NextHop,
};

/// What this host is known as: mail is never sent to ourselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    pub(crate) names: Vec<Domain>,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// One address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) host: HostAddr,
    pub(crate) address: SocketAddr,
}

/// The hosts of a next hop that were not tried yet.
pub(crate) struct Hosts<'a> {
    resolver: &'a Resolver,
    own: &'a Own,
    rest: VecDeque<HostAddr>,
    /// Addresses of the host whose turn it is.
    addresses: VecDeque<Candidate>,
    port: u16,
    configured: bool,
    /// Whether some host was handed out, or could not be.
    begun: bool,
}

impl<'a> Hosts<'a> {
    /// The hosts of `next_hop`, best first.
    pub(crate) async fn of(
        next_hop: &NextHop,
        mx_port: u16,
        resolver: &'a Resolver,
        own: &'a Own,
        rng: &mut fastrand::Rng,
    ) -> Result<Self, Failure> {
        let (hosts, port, configured) = match next_hop {
            NextHop::Mx(domain) => {
                let mut mx = resolver.mx(domain).await.map_err(|error| Failure::from(&error))?;
                cut(&mut mx, &own.names)?;
                resolve::shuffle_equals(&mut mx, rng);
                (mx.into_iter().map(|mx| HostAddr::Name(mx.name)).collect(), mx_port, false)
            }
            NextHop::Host { host, port, configured } => ([host.clone()].into(), *port, *configured),
            NextHop::Maildir(_) => (VecDeque::new(), mx_port, true),
        };
        Ok(Self { resolver, own, rest: hosts, addresses: VecDeque::new(), port, configured, begun: false })
    }

    /// Whether another may come.
    pub(crate) fn has_more(&self) -> bool {
        !self.addresses.is_empty() || !self.rest.is_empty()
    }

    /// The next address, or why a host has none.
    pub(crate) async fn next(&mut self) -> Option<Result<Candidate, Failure>> {
        loop {
            if let Some(candidate) = self.addresses.pop_front() {
                return Some(Ok(candidate));
            }
            let host = self.rest.pop_front()?;
            let first = !std::mem::replace(&mut self.begun, true);
            let addresses = match self.look_up(&host).await {
                Ok(addresses) => addresses,
                Err(failure) => return Some(Err(failure)),
            };
            let address = |ip: IpAddr| SocketAddr::new(ip.to_canonical(), self.port);
            if addresses.iter().any(|ip| self.own.addresses.contains(&address(*ip))) {
                // The hosts from here on are ourselves, or send to us.
                self.rest.clear();
                return first.then(|| Err(Failure::loops_back()));
            }
            self.addresses = addresses
                .into_iter()
                .map(|ip| Candidate { host: host.clone(), address: address(ip) })
                .collect();
        }
    }

    async fn look_up(&self, host: &HostAddr) -> Result<Vec<IpAddr>, Failure> {
        match host {
            HostAddr::Name(name) => self.resolver.addresses(name).await.map_err(|error| {
                if self.configured { Failure::of_configured_host(&error) } else { Failure::of_host(&error) }
            }),
            HostAddr::Ip(ip) if self.resolver.may_contact(*ip) => Ok(vec![*ip]),
            HostAddr::Ip(ip) => {
                let status = if self.configured { (4, 3, 5) } else { (5, 4, 4) };
                Err(Failure::new(Scope::Destination, status, format!("the address {ip} is never contacted")))
            }
        }
    }
}

/// Drops ourselves from the list and every host that is not better than we are (RFC 5321 §5.1).
fn cut(hosts: &mut Vec<MxHost>, own: &[Domain]) -> Result<(), Failure> {
    let ours = hosts.iter().filter(|mx| own.contains(&mx.name)).map(|mx| mx.preference).min();
    if let Some(ours) = ours {
        hosts.retain(|mx| mx.preference < ours);
        if hosts.is_empty() {
            return Err(Failure::loops_back());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Preferences and names of MX records, and the hosts that are tried.
    type Row<'a> = (&'a [(u16, &'a str)], Option<&'a [&'a str]>);

    #[test]
    fn an_mx_list_ends_where_it_comes_to_this_host() {
        let own = ["mx.home.test".parse().unwrap()];
        let table: [Row<'_>; 5] = [
            (&[(10, "a.test"), (20, "b.test")], Some(&["a.test", "b.test"])),
            (&[(10, "a.test"), (20, "mx.home.test"), (20, "b.test"), (30, "c.test")], Some(&["a.test"])),
            (&[(10, "mx.home.test"), (10, "a.test")], None),
            (&[(0, "mx.home.test")], None),
            (&[(10, "a.test"), (20, "MX.home.test")], Some(&["a.test"])),
        ];
        for (list, expected) in table {
            let host = |(preference, name): &(u16, &str)| MxHost {
                preference: *preference,
                name: name.parse().unwrap(),
            };
            let mut hosts: Vec<_> = list.iter().map(host).collect();
            let outcome = cut(&mut hosts, &own);
            let left: Vec<_> = hosts.iter().map(|mx| mx.name.as_str()).collect();
            match expected {
                Some(expected) => assert_eq!((outcome, left.as_slice()), (Ok(()), expected), "{list:?}"),
                None => assert_eq!(outcome, Err(Failure::loops_back()), "{list:?}"),
            }
        }
    }
}
