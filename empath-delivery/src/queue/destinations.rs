use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use empath_common::{Domain, Host};

use super::remembered::Remembered;
use crate::{route::NextHop, site::Site};

/// What stands behind the `@` of recipients, each name once however many recipients it has: all that routing needs to
/// know about a recipient, in four octets. `None` is the bare `<Postmaster>`.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    by_host: HashMap<Option<Host>, Destination>,
    slots: Vec<Slot>,
    free: Vec<Destination>,
    /// Domains to which nothing starts.
    frozen: BTreeSet<Domain>,
    /// Of domains without mail.
    sites: Remembered<Domain, Arc<Site>>,
}

/// A place in [`Destinations`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Destination(u32);

#[derive(Debug)]
struct Slot {
    host: Option<Host>,
    /// Recipients that go there.
    users: usize,
    frozen: bool,
    /// Which hosts its domain was found to have, as far as is known.
    site: Option<Arc<Site>>,
}

impl Destinations {
    /// Counts a recipient that goes to `host`.
    pub(super) fn enter(&mut self, host: Option<&Host>) -> Destination {
        let host = host.cloned();
        if let Some(known) = self.by_host.get(&host).copied() {
            if let Some(slot) = self.slots.get_mut(known.0 as usize) {
                slot.users += 1;
            }
            return known;
        }
        let frozen = self.is_frozen_host(host.as_ref());
        let site = match &host {
            Some(Host::Domain(domain)) => self.sites.take(domain),
            _ => None,
        };
        let slot = Slot { host: host.clone(), users: 1, frozen, site };
        let reused = self.free.pop();
        let destination = if let Some(reused) = reused
            && let Some(free) = self.slots.get_mut(reused.0 as usize)
        {
            *free = slot;
            reused
        } else {
            // Four thousand million names would not fit into memory.
            let new = Destination(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
            self.slots.push(slot);
            new
        };
        self.by_host.insert(host, destination);
        destination
    }

    /// A recipient that was counted is gone.
    pub(super) fn leave(&mut self, destination: Destination) {
        let Some(slot) = self.slots.get_mut(destination.0 as usize) else {
            return;
        };
        slot.users = slot.users.saturating_sub(1);
        if slot.users > 0 {
            return;
        }
        let host = slot.host.take();
        if let (Some(Host::Domain(domain)), Some(site)) = (&host, slot.site.take()) {
            self.sites.put(domain.clone(), site);
        }
        if self.by_host.remove(&host).is_some() {
            self.free.push(destination);
        }
    }

    /// From now on nothing starts to a domain, or does again. False if that was so before.
    pub(super) fn freeze(&mut self, domain: &Domain, frozen: bool) -> bool {
        let changed = if frozen { self.frozen.insert(domain.clone()) } else { self.frozen.remove(domain) };
        let known = self.by_host.get(&Some(Host::Domain(domain.clone())));
        if let Some(slot) = known.and_then(|known| self.slots.get_mut(known.0 as usize)) {
            slot.frozen = frozen;
        }
        changed
    }

    pub(super) fn frozen(&self) -> impl Iterator<Item = &Domain> {
        self.frozen.iter()
    }

    pub(super) fn is_frozen(&self, destination: Destination) -> bool {
        self.slots.get(destination.0 as usize).is_some_and(|slot| slot.frozen)
    }

    pub(super) fn is_frozen_host(&self, host: Option<&Host>) -> bool {
        matches!(host, Some(Host::Domain(domain)) if self.frozen.contains(domain))
    }

    pub(super) fn host(&self, destination: Destination) -> Option<&Host> {
        self.slots.get(destination.0 as usize).and_then(|slot| slot.host.as_ref())
    }

    /// A domain for which there is mail.
    pub(super) fn find(&self, domain: &Domain) -> Option<Destination> {
        self.by_host.get(&Some(Host::Domain(domain.clone()))).copied()
    }

    /// Which hosts a domain was found to have, as far as is known.
    pub(super) fn site(&self, destination: Destination) -> Option<&Arc<Site>> {
        self.slots.get(destination.0 as usize).and_then(|slot| slot.site.as_ref())
    }

    /// Notes which hosts a domain was found to have.
    pub(super) fn settle(&mut self, destination: Destination, site: Option<Arc<Site>>) {
        if let Some(slot) = self.slots.get_mut(destination.0 as usize) {
            slot.site = site;
        }
    }

    /// From now on each domain goes by itself.
    pub(super) fn forget_sites(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.site = None);
        self.sites = Remembered::default();
    }

    /// In whose lane mail goes that is routed to `next_hop`.
    pub(super) fn lane_of(&self, destination: Destination, next_hop: NextHop) -> NextHop {
        match (next_hop, self.site(destination)) {
            (NextHop::Mx(_, terms), Some(site)) => NextHop::Site(Arc::clone(site), terms),
            (next_hop, _) => next_hop,
        }
    }

    /// How many names there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_host.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::Config, route::Terms};

    #[test]
    fn the_hosts_of_a_domain_are_known_until_they_are_forgotten() {
        let mut destinations = Destinations::default();
        let domain: Domain = "one.test".parse().unwrap();
        let host = Host::Domain(domain.clone());
        let site = Arc::new(Site::of(Vec::new()));
        let terms = Arc::new(Terms::of(&Config::default(), None));
        let routed = NextHop::Mx(domain.clone(), Arc::clone(&terms));
        let together = NextHop::Site(Arc::clone(&site), terms);
        let first = destinations.enter(Some(&host));
        assert_eq!(destinations.lane_of(first, routed.clone()), routed);
        destinations.settle(first, Some(site));
        assert_eq!(destinations.lane_of(first, routed.clone()), together);
        let elsewhere = NextHop::Maildir(Path::new("x").into());
        assert_eq!(destinations.lane_of(first, elsewhere.clone()), elsewhere);
        destinations.leave(first);
        let again = destinations.enter(Some(&host));
        assert_eq!(destinations.lane_of(again, routed.clone()), together, "also without mail in between");
        destinations.settle(again, None);
        destinations.leave(again);
        let again = destinations.enter(Some(&host));
        assert_eq!(destinations.lane_of(again, routed.clone()), routed);
    }

    #[test]
    fn a_name_is_kept_once_and_as_long_as_it_is_used() {
        let mut destinations = Destinations::default();
        let host = |name: &str| Host::Domain(name.parse().unwrap());
        let (one, two) = (host("one.test"), host("two.test"));
        let first = destinations.enter(Some(&one));
        assert_eq!(destinations.enter(Some(&one)), first);
        let nobody = destinations.enter(None);
        assert_eq!((destinations.host(first), destinations.host(nobody)), (Some(&one), None));
        destinations.leave(first);
        assert_eq!(destinations.host(first), Some(&one));
        destinations.leave(first);
        // The next name has its place.
        assert_eq!(destinations.enter(Some(&two)), first);
        assert_eq!((destinations.host(first), destinations.len()), (Some(&two), 2));
        destinations.leave(nobody);
        destinations.leave(first);
        assert_eq!(destinations.len(), 0);
    }
}
