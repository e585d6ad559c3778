//! Domains with the same hosts share a lane.
//!
//! The hosts of a domain are found out by the first connection of its own lane, which leaves: from then on its mail goes in
//! the lane of its [`Site`]. A connection of that lane takes no job before it has looked up that the domain has these hosts
//! still; if it has not, the mail goes back to the domain's own lane. So what is remembered here decides only who shares
//! limits, never where a message is sent. While the hosts of a lane are down, what comes for one of its domains looks for them
//! first, for the domain may have others by now.

use std::sync::Arc;

use empath_common::{Domain, Host, MessageId};
use jiff::Timestamp;

use super::{
    BreakerState, ConnectionId, JobRecipient, Queue, begin,
    destinations::Destination,
    lanes::{Lanes, Paid},
    pace::Wake,
    ready::Ready,
};
use crate::{route::NextHop, site::Site};

/// How often a job goes from lane to lane or loses its place at most before an attempt: through the lane of hosts that a domain
/// had, its own, and that of the hosts that it has, and once in each. More only if answers of the DNS hold for no time.
pub(super) const MAX_MOVES: u8 = 6;

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
        // The connection may be of a former configuration.
        if !self.routes.domains_share() || entry.moved(recipients) > MAX_MOVES {
            return false;
        }
        let together = self.lanes.known(NextHop::Site(Arc::new(site), Arc::clone(&terms)));
        let NextHop::Site(site, _) = &together else { return false };
        let own = NextHop::Mx(domain.clone(), terms);
        let (several, touched) = self.settle_site(destination, &own, Some(site), now);
        if let Some(limited) = self.lanes.refund(connection, now) {
            self.lanes.hasten(&together, limited, now);
        }
        let away = self.lanes.is_away(connection);
        self.lanes.resign(connection, now);
        self.again(id, recipients, now);
        self.part(several, now);
        self.set_going(&touched, now);
        if away {
            self.lanes.advance(&together);
        }
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
        let (mut several, mut touched) = (Vec::new(), vec![own.clone(), together.clone()]);
        // Another connection may have found its present hosts already.
        if self.destinations.lane_of(destination, own.clone()) == together {
            (several, touched) = self.settle_site(destination, &own, None, now);
        }
        // Recipients in a domain with a limit are a job of their own.
        if self.lanes.has_token_of(connection, domain)
            && let Some(limited) = self.lanes.refund(connection, now)
        {
            self.lanes.hasten(&own, limited, now);
        }
        self.again(id, recipients, now);
        self.part(several, now);
        self.set_going(&touched, now);
        true
    }

    /// From now on a domain has these hosts. What is ready for it, from whatever address and sender, goes along: in a lane by
    /// those that it had nobody would look for it. `own` is its own lane on the terms of who found out. Returns what may be
    /// for other domains too, and the lanes that have something else to do now.
    fn settle_site(
        &mut self,
        destination: Destination,
        own: &NextHop,
        site: Option<&Arc<Site>>,
        now: Timestamp,
    ) -> (Vec<Ready>, Vec<NextHop>) {
        let NextHop::Mx(domain, _) = own else { return Default::default() };
        let (mut several, mut touched) = (Vec::new(), Vec::new());
        // These terms may be those of a former configuration.
        let mut ways = vec![own.clone()];
        if self.destinations.site(destination) != site {
            ways.extend(self.routes.next_hops(Some(&Host::Domain(domain.clone()))));
        }
        let formers: Vec<_> =
            ways.iter().map(|own| self.destinations.lane_of(destination, own.clone())).collect();
        self.destinations.settle(destination, site.cloned());
        for (own, former) in ways.into_iter().zip(formers) {
            let next = self.destinations.lane_of(destination, own.clone());
            for from in [former, own] {
                if from != next {
                    several.extend(self.lanes.migrate([&from, &next], destination, domain, now));
                    touched.extend([next.clone(), from]);
                }
            }
        }
        (several, touched)
    }

    /// Puts each recipient of what was ready in one lane into its own.
    pub(super) fn part(&mut self, several: Vec<Ready>, now: Timestamp) {
        for ready in several {
            self.route_again(ready, now);
        }
    }

    /// Starts what lanes can start, and what waited for a place.
    pub(super) fn set_going(&mut self, next_hops: &[NextHop], now: Timestamp) {
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        let mut begin = |ready| begin(messages, destinations, counts, &ready);
        for next_hop in next_hops {
            lanes.dispatch(next_hop, now, &mut begin, actions);
        }
        lanes.grant(now, &mut begin, actions);
    }
}

impl Lanes {
    /// The lane for what comes in for a domain with this route, if it shares this one.
    pub(super) fn entrance(&self, own: NextHop, together: NextHop) -> NextHop {
        let lane = self.by_next_hop.get(&together);
        if lane.is_some_and(|lane| lane.breaker.state() != BreakerState::Closed) { own } else { together }
    }

    /// Where a connection goes.
    pub(super) fn next_hop(&self, id: ConnectionId) -> Option<&NextHop> {
        self.connections.get(&id).map(|connection| &connection.next_hop)
    }

    /// The same next hop, sharing the memory of the one that has a lane.
    pub(super) fn known(&self, next_hop: NextHop) -> NextHop {
        self.by_next_hop.get_key_value(&next_hop).map_or(next_hop, |(known, _)| known.clone())
    }

    /// A connection goes without having tried its job.
    pub(super) fn resign(&mut self, id: ConnectionId, now: Timestamp) {
        if let Some(connection) = self.connections.get(&id)
            && let Some(lane) = self.by_next_hop.get_mut(&connection.next_hop)
        {
            lane.breaker.end(connection.probe);
        }
        self.take_out(id, now);
    }

    /// Moves what is ready for a domain from one lane to another, behind what is there for it. What may be for other domains
    /// too is returned.
    fn migrate(
        &mut self,
        [from, to]: [&NextHop; 2],
        destination: Destination,
        domain: &Domain,
        now: Timestamp,
    ) -> Vec<Ready> {
        let Some(lane) = self.by_next_hop.get_mut(from) else { return Vec::new() };
        let mut share = lane.take(destination, domain);
        let several = std::mem::take(&mut share.several);
        self.lane(to).give(destination, domain, share);
        self.forget(from, now);
        self.forget(to, now);
        several
    }

    /// Gives the tokens of a connection's job back: it was not sent. Whoever waits for a later one may have it now. Returns
    /// the domain of which one was.
    pub(super) fn refund(&mut self, id: ConnectionId, now: Timestamp) -> Option<Domain> {
        let connection = self.connections.get_mut(&id)?;
        let Paid(domain) = connection.paid.take()?;
        self.limiter.give_back(domain.as_ref());
        if !self.throttled.is_empty() {
            self.timers.insert((now, Wake::Token));
        }
        let (domain, next_hop) = (domain?, connection.next_hop.clone());
        self.hasten(&next_hop, domain.clone(), now);
        Some(domain)
    }

    /// Whether a connection's job has used a token of this domain.
    pub(super) fn has_token_of(&self, id: ConnectionId, domain: &Domain) -> bool {
        let paid = self.connections.get(&id).and_then(|connection| connection.paid.as_ref());
        paid.is_some_and(|Paid(limited)| limited.as_ref() == Some(domain))
    }

    /// There may be a token for mail of a lane that goes to a domain.
    pub(super) fn hasten(&mut self, next_hop: &NextHop, domain: Domain, now: Timestamp) {
        if let Some(lane) = self.by_next_hop.get_mut(next_hop)
            && lane.hasten(&domain, now)
        {
            self.timers.insert((now, Wake::Flow(next_hop.clone(), domain)));
        }
    }
}
