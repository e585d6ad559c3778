//! Domains with the same hosts share a lane.
//!
//! The hosts of a domain are found out by the first connection of its own lane, which leaves: from then on its mail goes in
//! the lane of its [`Site`]. A connection of that lane takes no job before it has looked up that the domain has these hosts
//! still; if it has not, the mail goes back to the domain's own lane. So what is remembered here decides only who shares
//! limits, never where a message is sent.

use std::sync::Arc;

use empath_common::{Domain, MessageId};
use jiff::Timestamp;

use super::{ConnectionId, JobRecipient, Queue, begin};
use crate::{route::NextHop, site::Site};

/// How often a job goes from lane to lane at most before an attempt: through the lane of hosts that a domain had, its own,
/// and that of the hosts that it has. More only if answers of the DNS hold for no time.
const MAX_MOVES: u8 = 3;

impl Queue {
    /// A connection of a domain's own lane has found the domain's hosts. All that is ready for it, the connection's job
    /// first, goes to the lane of these hosts; no attempt is counted, and the connection is taken out. False if the job is to
    /// be tried where it is.
    pub fn roll_up(
        &mut self,
        connection: ConnectionId,
        id: MessageId,
        recipients: &[JobRecipient],
        site: Site,
        now: Timestamp,
    ) -> bool {
        let Some(NextHop::Mx(domain, terms)) = self.lanes.next_hop(connection).cloned() else { return false };
        let Some(destination) = self.destinations.find(&domain) else { return false };
        let Some(entry) = self.messages.get_mut(&id).filter(|entry| !entry.removing) else { return false };
        if entry.moved(recipients) > MAX_MOVES {
            return false;
        }
        let own = NextHop::Mx(domain.clone(), Arc::clone(&terms));
        let together = self.lanes.known(NextHop::Site(Arc::new(site), terms));
        if let NextHop::Site(site, _) = &together {
            self.destinations.settle(destination, Some(Arc::clone(site)));
        }
        self.lanes.migrate([&own, &together], destination, &domain, now);
        if let Some(limited) = self.lanes.refund(connection, now) {
            self.lanes.hasten(&together, limited, now);
        }
        self.lanes.resign(connection, now);
        self.again(id, recipients, now);
        self.set_going([&together, &own], now);
        true
    }

    /// A connection has found that a domain does not have the hosts of its lane. What is ready for it there, these recipients
    /// of the connection's job first, goes to the domain's own lane; no attempt is counted. False if they are not wanted any
    /// more: they stay in flight.
    pub fn expel(
        &mut self,
        connection: ConnectionId,
        id: MessageId,
        recipients: &[JobRecipient],
        domain: &Domain,
        now: Timestamp,
    ) -> bool {
        let Some(NextHop::Site(site, terms)) = self.lanes.next_hop(connection).cloned() else { return false };
        let Some(destination) = self.destinations.find(domain) else { return false };
        let Some(entry) = self.messages.get_mut(&id).filter(|entry| !entry.removing) else { return false };
        entry.moved(recipients);
        let own = NextHop::Mx(domain.clone(), Arc::clone(&terms));
        let together = NextHop::Site(site, terms);
        // Another connection may have found its present hosts already.
        if self.destinations.lane_of(destination, own.clone()) == together {
            self.destinations.settle(destination, None);
            self.lanes.migrate([&together, &own], destination, domain, now);
        }
        self.again(id, recipients, now);
        self.set_going([&own, &together], now);
        true
    }

    /// Starts what lanes can start, and what waited for a place.
    fn set_going(&mut self, next_hops: [&NextHop; 2], now: Timestamp) {
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        let mut begin = |ready| begin(messages, destinations, counts, &ready);
        for next_hop in next_hops {
            lanes.dispatch(next_hop, now, &mut begin, actions);
        }
        lanes.grant(now, &mut begin, actions);
    }
}
