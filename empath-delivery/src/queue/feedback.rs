//! Connections tell what they learn about their destinations, and are told what to do next.

use std::{collections::BTreeSet, time::Duration};

use empath_common::{Domain, MessageId};
use jiff::Timestamp;

use super::{
    Action, Event, JobRecipient, Next, Queue, Queued, begin,
    breaker::BreakerState,
    count,
    entry::Entry,
    lane::Lane,
    lanes::{ConnectionId, Lanes},
    pace::Wake,
    places::Standing,
    ready::Ready,
    window::Window,
};
use crate::{
    route::{Mail, NextHop},
    schedule,
};

/// How long the failures of a destination are remembered that nothing is queued for.
const KEEP: Duration = Duration::from_hours(1);

/// Most destinations of which failures are remembered without mail.
const MAX_KEPT: usize = 10_000;

/// What a job says about the destination, whatever it came to for its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A host listened to us.
    Good,
    /// One took MAIL, and the connection broke after that or nothing more came. It is there: this says something of the
    /// message.
    Interrupted,
    /// No host did.
    Failed,
    /// No host did, and one said that it has no time at present (421).
    TurnedAway,
    /// No host did, and one does not know us by our credentials. It won't the next time.
    Denied,
    /// Nothing.
    Unknown,
}

/// What connections ask of the queue, and tell it about their destinations.
impl Queue {
    /// What happened to destinations since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.lanes.events)
    }

    /// Learns what a connection's job says about its destination. `domain` is whom it was for.
    pub fn report(
        &mut self,
        connection: ConnectionId,
        outcome: Outcome,
        domain: Option<&Domain>,
        now: Timestamp,
    ) {
        self.lanes.report(connection, outcome, domain, now);
    }

    /// The next job for a connection that has settled its last one.
    pub fn next(&mut self, connection: ConnectionId, now: Timestamp) -> Next {
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        lanes.next(connection, now, &mut |ready| begin(messages, destinations, counts, &ready), actions)
    }

    /// Takes an idle connection out of the queue. False if it was given a job in the meantime.
    pub fn leave(&mut self, connection: ConnectionId, now: Timestamp) -> bool {
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        lanes.leave(connection, now, &mut |ready| begin(messages, destinations, counts, &ready), actions)
    }

    /// Puts a job back that did not get to its transaction, because the destination wants no more connections than the
    /// others that there are. No attempt is counted, and the connection is taken out. False if there is no other, or the
    /// message is not wanted any more.
    pub fn put_back(
        &mut self,
        connection: ConnectionId,
        id: MessageId,
        recipients: &[JobRecipient],
        now: Timestamp,
    ) -> bool {
        let expire_after = self.limits.expire_after;
        let wanted = |entry: &Entry| !entry.removing && entry.expires_at(expire_after) > now.into();
        if !self.messages.get(&id).is_some_and(wanted) {
            return false;
        }
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        if !lanes.turn_away(
            connection,
            now,
            &mut |ready| begin(messages, destinations, counts, &ready),
            actions,
        ) {
            return false;
        }
        self.again(id, recipients, now);
        true
    }

    /// Recipients in flight are ready again, as before this attempt and before others of their domains.
    pub(super) fn again(&mut self, id: MessageId, recipients: &[JobRecipient], now: Timestamp) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let before = entry.status();
        entry.put_back(recipients, now);
        let recipients = entry.make_ready(now.into(), |due| due <= now.into());
        count(&mut self.counts, before, Some(entry.status()));
        self.line_up(id, &recipients, true, now);
        self.rearm(id, now);
    }

    /// A connection's job was not sent: it has used no token.
    pub fn refund(&mut self, connection: ConnectionId, now: Timestamp) {
        self.lanes.refund(connection, now);
    }

    /// How many recipients of a message are ready and behind a breaker that is not closed.
    pub(super) fn behind_breakers(&self, id: MessageId) -> usize {
        let Some(entry) = self.messages.get(&id) else { return 0 };
        let mail = Mail { id, sender: entry.sender };
        let ready = entry.destinations().enumerate().filter_map(|(number, _)| entry.ready_for(number));
        let lanes = ready.filter(|to| !self.destinations.is_frozen(*to)).map(|to| self.lane_of(mail, to));
        let is_shut = |next_hop: &NextHop| {
            let lane = self.lanes.by_next_hop.get(next_hop);
            lane.is_some_and(|lane| lane.breaker.state() != BreakerState::Closed)
        };
        lanes.filter(is_shut).count()
    }

    /// An operator wants a message to go now: the destinations of which the breakers are open are tried.
    pub(super) fn hurry(&mut self, id: MessageId, now: Timestamp) {
        let Some(entry) = self.messages.get(&id) else { return };
        let mail = Mail { id, sender: entry.sender };
        let next_hops: BTreeSet<_> = entry.destinations().map(|to| self.lane_of(mail, to)).collect();
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        for next_hop in next_hops {
            lanes.pass(&next_hop, Timestamp::MAX);
            lanes.dispatch(
                &next_hop,
                now,
                &mut |ready| begin(messages, destinations, counts, &ready),
                actions,
            );
        }
    }
}

impl Lanes {
    /// Learns what a connection's job says about the destination. `domain` is whom it was for.
    fn report(&mut self, id: ConnectionId, outcome: Outcome, domain: Option<&Domain>, now: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(lane) = self.by_next_hop.get_mut(&connection.next_hop) else { return };
        let probe = std::mem::take(&mut connection.probe);
        lane.breaker.end(probe);
        let opened = match outcome {
            Outcome::Good => {
                lane.standing = Standing::Proven;
                if lane.has_work() {
                    lane.window.succeed(lane.connections, lane.max_connections());
                }
                return is_there(lane, &connection.next_hop, &mut self.events);
            }
            Outcome::Interrupted => {
                // A host that falls silent over every message must not have all places.
                if lane.standing == Standing::Proven {
                    lane.standing = Standing::New;
                }
                if probe {
                    is_there(lane, &connection.next_hop, &mut self.events);
                }
                return;
            }
            Outcome::Failed => {
                lane.standing = Standing::Failing;
                lane.window.fail(lane.connections);
                lane.breaker.fail(probe, &self.breaker, now)
            }
            Outcome::TurnedAway => {
                lane.window.turn_away(lane.connections - 1);
                lane.breaker.fail(probe, &self.breaker, now)
            }
            // One message is enough to know. That all the others showed the same wrong password or token would be taken for an attack.
            Outcome::Denied => lane.breaker.open(probe, &self.breaker, now),
            Outcome::Unknown => return,
        };
        if lane.domain.is_none() {
            lane.domain = domain.cloned();
        }
        if opened && let BreakerState::Open { until } = lane.breaker.state() {
            self.timers.insert((until, Wake::Lane(connection.next_hop.clone())));
            self.events.push(Event::breaker(&connection.next_hop, lane));
        }
    }

    /// The destination wants no more connections than the others that there are. False if there are none; else this one is
    /// taken out.
    fn turn_away(
        &mut self,
        id: ConnectionId,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        let Some(lane) = self.by_next_hop.get_mut(&connection.next_hop) else { return false };
        let others = lane.connections - 1;
        if others == 0 || connection.probe {
            return false;
        }
        lane.window.turn_away(others);
        self.refund(id, now);
        self.take_out(id, now);
        self.grant(now, begin, actions);
        true
    }

    /// The pause of a lane's breaker may be over.
    pub(super) fn pass(&mut self, next_hop: &NextHop, now: Timestamp) {
        if let Some(lane) = self.by_next_hop.get_mut(next_hop) {
            lane.alarm = None;
            if lane.breaker.pass(now) {
                self.events.push(Event::breaker(next_hop, lane));
            }
        }
    }

    /// Drops a lane that nobody needs. One that failed is remembered for a while.
    pub(super) fn forget(&mut self, next_hop: &NextHop, now: Timestamp) {
        let Some(lane) = self.by_next_hop.get_mut(next_hop) else { return };
        if !lane.is_empty() || lane.connections > 0 || lane.waiting.is_some() || lane.throttled {
            return;
        }
        let full = self.kept >= MAX_KEPT;
        let keep_until = match lane.keep_until {
            None if !full && !lane.breaker.is_calm() => {
                self.kept += 1;
                schedule::after(now, KEEP)
            }
            Some(until) if until > now => until,
            over => {
                self.kept -= usize::from(over.is_some());
                if lane.breaker.state() != BreakerState::Closed {
                    lane.breaker.succeed();
                    self.events.push(Event::breaker(next_hop, lane));
                }
                if lane.standing == Standing::Proven {
                    self.proven.put(next_hop.clone(), ());
                }
                self.by_next_hop.remove(next_hop);
                return;
            }
        };
        lane.keep_until = Some(keep_until);
        if lane.alarm.is_none() {
            lane.alarm = Some(keep_until);
            self.timers.insert((keep_until, Wake::Lane(next_hop.clone())));
        }
    }
}

/// A destination has been found to be there.
fn is_there(lane: &mut Lane, next_hop: &NextHop, events: &mut Vec<Event>) {
    if lane.breaker.succeed() {
        lane.window = Window::default();
        events.push(Event::breaker(next_hop, lane));
    }
    lane.domain = None;
}
