use std::{collections::BTreeSet, ops::Bound};

use empath_common::{Domain, Host, MessageId};
use jiff::Timestamp;

use super::{
    ConnectionId, MessageStatus, Obstacle, Queue, RecipientStatus, Snapshot, destinations::Destination,
    entry::Entry,
};
use crate::route::{Mail, NextHop, Route, Routes};

/// What can be seen from outside.
impl Queue {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages have this status.
    pub fn count_of(&self, status: MessageStatus) -> usize {
        self.counts.get(status as usize).copied().unwrap_or_default()
    }

    /// When the oldest message was received.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.messages.first_key_value().map(|(_, entry)| entry.received_at.into())
    }

    /// Connections, idle ones included, without those that wait for name servers and have no place.
    pub fn connections(&self) -> usize {
        self.lanes.connections()
    }

    /// Connections that wait for a message.
    pub fn idle_connections(&self) -> usize {
        self.lanes.idle()
    }

    /// Whether destinations wait for a place that did not fail last.
    pub fn is_pressed(&self) -> bool {
        self.lanes.places.are_wanted()
    }

    /// Whether a message is in the queue.
    pub fn contains(&self, id: MessageId) -> bool {
        self.messages.contains_key(&id)
    }

    /// One message.
    pub fn snapshot(&self, id: MessageId) -> Option<Snapshot> {
        self.messages.get(&id).map(|entry| self.seen(id, entry))
    }

    /// The recipients of a message that are in flight, each with its attempts before that.
    pub fn in_flight(&self, id: MessageId) -> Vec<(u32, u32)> {
        let recipients = self.snapshot(id).map(|message| message.recipients).unwrap_or_default();
        let flying =
            |(_, (status, ..)): &(u32, (RecipientStatus, _, _))| *status == RecipientStatus::InProgress;
        (0..).zip(recipients).filter(flying).map(|(index, (_, attempts, _))| (index, attempts)).collect()
    }

    /// At most `limit` messages behind `after`, in the order of their ids.
    pub fn page(&self, after: Option<MessageId>, limit: usize) -> Vec<Snapshot> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.messages.range((start, Bound::Unbounded));
        range.take(limit).map(|(id, entry)| self.seen(*id, entry)).collect()
    }

    /// How next hops are chosen.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What keeps a recipient from starting; `None` unless it is ready.
    pub fn obstacle(&self, id: MessageId, recipient: usize, now: Timestamp) -> Option<Obstacle> {
        let entry = self.messages.get(&id)?;
        let destination = entry.ready_for(recipient)?;
        if self.destinations.is_frozen(destination) {
            return Some(Obstacle::Frozen);
        }
        let mail = Mail { id, sender: entry.sender };
        let Route { next_hop, limit, .. } = self.routes.route_to(mail, self.destinations.host(destination));
        let next_hop = self.destinations.lane_of(destination, next_hop);
        Some(self.lanes.obstacle(&next_hop, limit.as_ref().map(|limit| &limit.domain), now))
    }

    /// The connection that is busy with a message for a recipient's next hop.
    pub fn connection_of(&self, id: MessageId, recipient: usize) -> Option<ConnectionId> {
        self.lanes.busy_with(id, &self.lane(id, recipient)?)
    }

    /// In whose lane a recipient's mail goes at present.
    pub fn lane(&self, id: MessageId, recipient: usize) -> Option<NextHop> {
        let entry = self.messages.get(&id)?;
        let destination = entry.destinations().nth(recipient)?;
        Some(self.lane_of(Mail { id, sender: entry.sender }, destination))
    }

    pub(super) fn lane_of(&self, mail: Mail, destination: Destination) -> NextHop {
        let next_hop = self.routes.route_to(mail, self.destinations.host(destination)).next_hop;
        self.destinations.lane_of(destination, next_hop)
    }

    fn seen(&self, id: MessageId, entry: &Entry) -> Snapshot {
        Snapshot {
            id,
            received_at: entry.received_at.into(),
            priority: entry.priority,
            size: entry.size,
            sender: entry.sender,
            recipients: entry.recipients().collect(),
            hosts: entry.destinations().map(|to| self.destinations.host(to).cloned()).collect(),
            status: entry.status(),
        }
    }

    /// The lanes in which there may be mail for a domain, by the present configuration and what is known of its hosts.
    pub(super) fn lanes_to(&self, domain: &Domain) -> BTreeSet<NextHop> {
        let mut lanes: BTreeSet<_> =
            self.routes.next_hops(Some(&Host::Domain(domain.clone()))).into_iter().collect();
        if let Some(destination) = self.destinations.find(domain) {
            let shared = lanes.iter().map(|own| self.destinations.lane_of(destination, own.clone()));
            lanes.extend(shared.collect::<Vec<_>>());
        }
        lanes
    }
}
