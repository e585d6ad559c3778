//! The addresses of a next hop, one after the other, looked up when their turn comes (RFC 5321 §5.1).

use std::{
    collections::{HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use empath_common::Domain;
use empath_smtp::client::Target;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{HostAddr, Server},
    failure::{Failure, Scope},
    resolve::{self, Addresses, MxHost, PrivateAddresses, Resolver},
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
    /// A Unix socket has none.
    pub(crate) host: Option<HostAddr>,
    pub(crate) target: Target,
    /// Whether it speaks TLS from the first octet.
    pub(crate) tls: bool,
    /// Whether the configuration names it.
    pub(crate) configured: bool,
}

/// Most addresses that are tried in one attempt, whatever the number of hosts. The rest is as if it were not there.
const MAX_TRIED: usize = 64;
/// How long hosts of equal preference that answer wait for the others to be looked up.
const EQUALS_PATIENCE: Duration = Duration::from_secs(1);

/// The hosts of a next hop that were not tried yet.
pub(crate) struct Hosts<'a> {
    resolver: &'a Resolver,
    own: &'a Own,
    /// With their preferences.
    rest: VecDeque<(u16, Server)>,
    /// Addresses of the host whose turn it is.
    addresses: VecDeque<Candidate>,
    /// A host of which one family of addresses was not known yet when its turn came.
    late: Option<(Domain, Server)>,
    /// What was handed out: an address that two hosts share is tried once.
    tried: HashSet<Target>,
    /// The preference whose hosts were looked up last.
    preference: Option<u16>,
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
        let mut addresses = VecDeque::new();
        let (hosts, configured) = match next_hop {
            NextHop::Mx(domain, _) => {
                let mx = resolver.mx(domain).await.map_err(|error| Failure::from(&error))?;
                (in_turn(mx, mx_port, own, rng)?, false)
            }
            NextHop::Site(site, _) => (in_turn(site.hosts(), mx_port, own, rng)?, false),
            NextHop::Host { host, port, configured, .. } => {
                ([(0, Server { host: host.clone(), port: *port, tls: false })].into(), *configured)
            }
            // As if each were the only MX host of its preference.
            NextHop::Smarthost(servers, _) => ((0..).zip(servers.iter().cloned()).collect(), true),
            NextHop::Unix(path, _) => {
                let target = Target::Unix(path.clone());
                addresses.push_back(Candidate { host: None, target, tls: false, configured: true });
                (VecDeque::new(), true)
            }
            NextHop::Maildir(_) => (VecDeque::new(), true),
        };
        Ok(Self {
            resolver,
            own,
            rest: hosts,
            addresses,
            late: None,
            tried: HashSet::new(),
            preference: None,
            configured,
            begun: false,
        })
    }

    /// Whether another may come.
    pub(crate) fn has_more(&self) -> bool {
        !self.addresses.is_empty() || !self.rest.is_empty()
    }

    /// The next address, or why a host has none.
    pub(crate) async fn next(&mut self) -> Option<Result<Candidate, Failure>> {
        loop {
            while let Some(candidate) = self.addresses.pop_front() {
                if self.tried.insert(candidate.target.clone()) {
                    return Some(Ok(candidate));
                }
            }
            if self.tried.len() >= MAX_TRIED {
                return None;
            }
            if let Some((name, server)) = self.late.take() {
                // The other family has no addresses, or not in time: what there was has been tried.
                let Ok(addresses) = self.resolver.addresses(&name).await else { continue };
                if self.are_ours(&addresses, server.port) {
                    self.rest.clear();
                } else {
                    self.hand_out(&server, addresses);
                }
                continue;
            }
            let preference = self.rest.front()?.0;
            let first = !std::mem::replace(&mut self.begun, true);
            let new = self.preference.replace(preference) != Some(preference);
            if new && self.equals_are_ours(preference).await {
                return self.end(first);
            }
            let (_, server) = self.rest.pop_front()?;
            let addresses = match self.look_up(&server).await {
                Ok(addresses) => addresses,
                Err(failure) => return Some(Err(failure)),
            };
            if self.are_ours(&addresses, server.port) {
                return self.end(first);
            }
            self.hand_out(&server, addresses);
        }
    }

    /// The hosts from here on are ourselves, or send to us.
    fn end(&mut self, first: bool) -> Option<Result<Candidate, Failure>> {
        self.rest.clear();
        self.late = None;
        let failure = if self.configured { Failure::configured_loop() } else { Failure::loops_back() };
        first.then_some(Err(failure))
    }

    fn hand_out(&mut self, Server { host, port, tls }: &Server, addresses: Vec<IpAddr>) {
        let room = MAX_TRIED.saturating_sub(self.tried.len());
        let (tls, configured) = (*tls, self.configured);
        let candidate =
            |ip| Candidate { host: Some(host.clone()), target: address(ip, *port).into(), tls, configured };
        self.addresses = addresses.into_iter().map(candidate).take(room).collect();
    }

    fn are_ours(&self, addresses: &[IpAddr], port: u16) -> bool {
        addresses.iter().any(|ip| self.own.addresses.contains(&address(*ip, port)))
    }

    /// Whether one of several hosts of this preference is ourselves by its address: then none of them is tried. One whose
    /// look-up is slow does not hold up the others, and is tried after them.
    async fn equals_are_ours(&mut self, preference: u16) -> bool {
        let count = self.rest.iter().take_while(|(other, _)| *other == preference).count();
        if count < 2 || self.own.addresses.is_empty() {
            return false;
        }
        let equals: Vec<_> = self.rest.drain(..count).map(|(_, server)| server).collect();
        for server in &equals {
            // All are under way before the first is waited for.
            if let HostAddr::Name(name) = &server.host {
                self.resolver.prepare(name);
            }
        }
        let patience = Instant::now() + EQUALS_PATIENCE;
        let (mut quick, mut slow) = (Vec::new(), Vec::new());
        for server in equals {
            let HostAddr::Name(name) = &server.host else { continue };
            match timeout_at(patience, self.resolver.addresses(name)).await {
                Ok(Ok(addresses)) if self.are_ours(&addresses, server.port) => return true,
                Ok(_) => quick.push((preference, server)),
                Err(_) => slow.push((preference, server)),
            }
        }
        for server in quick.into_iter().chain(slow).rev() {
            self.rest.push_front(server);
        }
        false
    }

    async fn look_up(&mut self, server: &Server) -> Result<Vec<IpAddr>, Failure> {
        match &server.host {
            HostAddr::Name(name) => match self.resolver.first_addresses(name).await {
                Ok(Addresses { usable, complete }) => {
                    self.late = Some((name.clone(), server.clone())).filter(|_| !complete);
                    Ok(usable)
                }
                Err(error) if self.configured => Err(Failure::of_configured_host(&error)),
                Err(error) => Err(Failure::of_host(&error)),
            },
            // What the configuration names is the operator's own choice.
            HostAddr::Ip(ip) if self.configured && PrivateAddresses::Allow.allow(*ip) => Ok(vec![*ip]),
            HostAddr::Ip(ip) if self.resolver.may_contact(*ip) => Ok(vec![*ip]),
            HostAddr::Ip(ip) => {
                let status = if self.configured { (4, 3, 5) } else { (5, 4, 4) };
                Err(Failure::new(Scope::Destination, status, format!("the address {ip} is never contacted")))
            }
        }
    }
}

fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// MX hosts in the order in which they are tried.
fn in_turn(
    mut mx: Vec<MxHost>,
    port: u16,
    own: &Own,
    rng: &mut fastrand::Rng,
) -> Result<VecDeque<(u16, Server)>, Failure> {
    cut(&mut mx, &own.names)?;
    resolve::shuffle_equals(&mut mx, rng);
    let host = |mx: MxHost| (mx.preference, Server { host: HostAddr::Name(mx.name), port, tls: false });
    Ok(mx.into_iter().map(host).collect())
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
mod tests;
