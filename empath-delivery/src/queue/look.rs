use std::ops::Bound;

use empath_common::{Envelope, MessageId};
use jiff::Timestamp;

use super::{ConnectionId, MessageStatus, Obstacle, Queue, RecipientStatus, Snapshot};
use crate::route::{NextHop, Route, Routes};

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
        self.messages.first_key_value().map(|(_, entry)| entry.envelope.received_at)
    }

    /// Connections, idle ones included.
    pub fn connections(&self) -> usize {
        self.lanes.connections()
    }

    /// Connections that wait for a message.
    pub fn idle_connections(&self) -> usize {
        self.lanes.idle()
    }

    /// Whether a message is in the queue.
    pub fn contains(&self, id: MessageId) -> bool {
        self.messages.contains_key(&id)
    }

    /// One message.
    pub fn snapshot(&self, id: MessageId) -> Option<Snapshot> {
        self.messages.get(&id).map(|entry| entry.snapshot(id))
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
        range.take(limit).map(|(id, entry)| entry.snapshot(*id)).collect()
    }

    /// How next hops are chosen. A change counts for whoever gets into a lane from now on.
    pub fn routes(&mut self) -> &mut Routes {
        &mut self.routes
    }

    /// What keeps a recipient from starting; `None` unless it is ready.
    pub fn obstacle(
        &self,
        id: MessageId,
        envelope: &Envelope,
        recipient: usize,
        now: Timestamp,
    ) -> Option<Obstacle> {
        if !self.messages.get(&id)?.is_ready(recipient) {
            return None;
        }
        let Route { next_hop, limit, .. } = self.routes.route(envelope.recipients().get(recipient)?);
        Some(self.lanes.obstacle(&next_hop, limit.as_ref().map(|limit| &limit.domain), now))
    }

    /// The connection that is busy with a message for a recipient's next hop.
    pub fn connection_of(
        &self,
        id: MessageId,
        envelope: &Envelope,
        recipient: usize,
    ) -> Option<ConnectionId> {
        self.lanes.busy_with(id, &self.route(envelope, recipient)?)
    }

    /// Where a recipient goes by the present configuration.
    pub fn route(&self, envelope: &Envelope, recipient: usize) -> Option<NextHop> {
        envelope.recipients().get(recipient).map(|path| self.routes.route(path).next_hop)
    }
}
