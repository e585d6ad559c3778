//! A connection that waits for name servers needs no place: whoever waits for one may have it meanwhile.
//!
//! It goes on being one of its lane, with its job in flight, and comes to nothing but a result: to connect to a host, or to
//! take another job, it needs a place again. A job that left its place stands before all that had no turn yet, where it was
//! and where its domain's hosts have a lane.

use empath_common::MessageId;
use jiff::Timestamp;

use super::{
    Action, JobRecipient, Queue,
    lanes::{ConnectionId, Lanes},
    sites::MAX_MOVES,
};

/// Most connections without a place. Others keep theirs while they wait.
pub(super) const MAX_AWAY: usize = 4096;

impl Queue {
    /// Whoever waits for a place may have that of a connection whose job waits for name servers. False if it keeps its place:
    /// too many have none, or the job has lost it too often.
    pub fn give_way(
        &mut self,
        connection: ConnectionId,
        id: MessageId,
        recipients: &[JobRecipient],
        now: Timestamp,
    ) -> bool {
        let Some(entry) = self.messages.get_mut(&id) else { return false };
        if self.lanes.away >= MAX_AWAY || entry.moved(recipients) > MAX_MOVES {
            return false;
        }
        self.lanes.give_way(connection);
        self.set_going(&[], now);
        true
    }

    /// Gives a connection that [gave way](Self::give_way) its place back, for its job needs one. If there is none, the job
    /// waits for one where it was, before those who had no turn yet, no attempt is counted, and the connection is taken out:
    /// false then. `None` if the job is not wanted any more.
    pub fn come_back(
        &mut self,
        connection: ConnectionId,
        id: MessageId,
        recipients: &[JobRecipient],
        now: Timestamp,
    ) -> Option<bool> {
        let next_hop = self.lanes.next_hop(connection)?.clone();
        if self.lanes.come_back(connection, now, &mut self.actions) {
            return Some(true);
        }
        self.messages.get(&id).filter(|entry| !entry.removing)?;
        self.lanes.refund(connection, now);
        self.lanes.resign(connection, now);
        self.again(id, recipients, now);
        self.set_going(std::slice::from_ref(&next_hop), now);
        self.lanes.advance(&next_hop);
        Some(false)
    }
}

impl Lanes {
    /// Whether a connection has given way.
    pub(super) fn is_away(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.away)
    }

    fn give_way(&mut self, id: ConnectionId) {
        self.vacate(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            self.away += usize::from(!std::mem::replace(&mut connection.away, true));
        }
    }

    /// There is a place for a connection, and it has it again.
    fn come_back(&mut self, id: ConnectionId, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let connection = self.connections.get(&id).filter(|connection| connection.away);
        let Some(lane) = connection.and_then(|connection| self.by_next_hop.get(&connection.next_hop)) else {
            return false;
        };
        let standing = lane.standing;
        if self.stopped || !self.has_place() || !self.places.has_room(standing, self.max_connections) {
            return false;
        }
        self.make_room(now, actions);
        self.end_away(id);
        self.occupy(id, standing);
        true
    }

    /// It counts among the connections with a place.
    pub(super) fn end_away(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && std::mem::take(&mut connection.away)
        {
            self.away -= 1;
        }
    }
}
