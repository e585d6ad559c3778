use std::collections::{BTreeSet, HashMap, VecDeque};

use empath_common::{Domain, MessageId};
use jiff::Timestamp;

use super::{
    Action, Event, Next, Queued,
    lane::{Lane, Obstacle, Popped},
    pace::Wake,
    places::{Places, Standing},
    rate::{Limiter, Rate},
    ready::Ready,
    remembered::Remembered,
};
use crate::{
    config::CircuitBreaker,
    route::{Limit, NextHop},
};

/// Jobs that a connection may do while another destination waits for its place; then they take turns.
pub const TURN: u32 = 20;

/// The name of a connection; a larger one is younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// The lanes and their connections.
///
/// `begin` makes a job of what is ready, or says that nobody wants it any more.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) by_next_hop: HashMap<NextHop, Lane>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) idle: BTreeSet<ConnectionId>,
    /// Among them who could use a connection more.
    pub(super) places: Places,
    /// Connections that wait for name servers without a place.
    pub(super) away: usize,
    /// Next hops without a lane that were proven when they had one.
    pub(super) proven: Remembered<NextHop, ()>,
    /// Lanes that could start a job, were there tokens for all mail; they take turns. While there are any, a timer runs.
    pub(super) throttled: VecDeque<NextHop>,
    pub(super) timers: BTreeSet<(Timestamp, Wake)>,
    pub(super) limiter: Limiter,
    pub(super) breaker: CircuitBreaker,
    /// Lanes without mail that are kept for what is known about their failures.
    pub(super) kept: usize,
    pub(super) events: Vec<Event>,
    pub(super) max_connections: usize,
    pub(super) last: ConnectionId,
    pub(super) stopped: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) next_hop: NextHop,
    /// Jobs since it last had its turn.
    turn: u32,
    /// Its job is a probe of the breaker.
    pub(super) probe: bool,
    /// The message of its job; of its last one, while it is idle.
    message: MessageId,
    /// Among what its place counts, while it is busy.
    pub(super) place: Option<Standing>,
    /// It waits for name servers without one.
    pub(super) away: bool,
    /// The tokens of its job, unless they were given back.
    pub(super) paid: Option<Paid>,
}

/// A token of all mail, and one of a domain that has a limit.
#[derive(Debug)]
pub(super) struct Paid(pub(super) Option<Domain>);

/// A job that a connection takes up.
struct Started {
    job: Queued,
    probe: bool,
    paid: Paid,
}

impl Lanes {
    pub(super) fn new(max_connections: usize, global: Option<Rate>, breaker: CircuitBreaker) -> Self {
        Self {
            by_next_hop: HashMap::new(),
            connections: HashMap::new(),
            idle: BTreeSet::new(),
            places: Places::default(),
            away: 0,
            proven: Remembered::default(),
            throttled: VecDeque::new(),
            timers: BTreeSet::new(),
            limiter: Limiter::new(global),
            breaker,
            kept: 0,
            events: Vec::new(),
            max_connections,
            last: ConnectionId(0),
            stopped: false,
        }
    }

    /// Connections that have a place.
    pub(super) fn connections(&self) -> usize {
        self.connections.len() - self.away
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The connection that is busy with a message for a next hop.
    pub(super) fn busy_with(&self, message: MessageId, next_hop: &NextHop) -> Option<ConnectionId> {
        let busy = |(id, connection): &(&ConnectionId, &Connection)| {
            connection.message == message && connection.next_hop == *next_hop && !self.idle.contains(id)
        };
        self.connections.iter().find(busy).map(|(id, _)| *id)
    }

    /// What is `first` had its turn, and has the next one of its domain.
    pub(super) fn push(&mut self, next_hop: &NextHop, limit: Option<Limit>, ready: Ready, first: bool) {
        self.lane(next_hop).push(ready, limit, first);
    }

    /// The lane of a next hop, for something to be put there.
    pub(super) fn lane(&mut self, next_hop: &NextHop) -> &mut Lane {
        let proven = &mut self.proven;
        let lane = self.by_next_hop.entry(next_hop.clone()).or_insert_with_key(|next_hop| {
            Lane::new(proven.take(next_hop).map_or(Standing::New, |()| Standing::Proven))
        });
        if lane.keep_until.take().is_some() {
            self.kept -= 1;
        }
        lane
    }

    /// Takes all that is ready out of a lane.
    pub(super) fn drain(&mut self, next_hop: &NextHop, now: Timestamp) -> Vec<Ready> {
        let drained = self.by_next_hop.get_mut(next_hop).map(Lane::drain).into_iter().flatten();
        let drained = drained.flat_map(|mut ready| std::iter::from_fn(move || ready.pop_front())).collect();
        self.forget(next_hop, now);
        drained
    }

    /// Gives ready jobs of a lane to idle and new connections, as far as limits allow.
    pub(super) fn dispatch(
        &mut self,
        next_hop: &NextHop,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) {
        while self.can_start(next_hop)
            && !self.throttle(next_hop, now)
            && self.start(next_hop, now, begin, actions)
        {}
        self.forget(next_hop, now);
    }

    pub(super) fn next(
        &mut self,
        id: ConnectionId,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) -> Next {
        self.end_away(id);
        let Some(Connection { next_hop, turn, .. }) = self.connections.get(&id) else {
            return Next::Close;
        };
        let (next_hop, turn) = (next_hop.clone(), *turn);
        let Some(lane) = self.by_next_hop.get(&next_hop) else {
            return Next::Close;
        };
        let (max, standing) = (self.max_connections, lane.standing);
        let is_one_too_many = lane.connections > lane.allowed();
        // Since a new configuration there may be fewer; and this one may have been away.
        let are_too_many = self.connections() > max;
        let wanted = !self.stopped && lane.has_work() && lane.breaker.admits(&self.breaker);
        self.vacate(id);
        let others_wait = self.places.is_wanted_by_others(&next_hop, max);
        let has_room = self.places.has_room(standing, max);
        if wanted
            && has_room
            && !is_one_too_many
            && !are_too_many
            && (turn < TURN || !others_wait)
            && !self.throttle(&next_hop, now)
            && let Some(Started { job, probe, paid }) = self.pop(&next_hop, now, begin)
        {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.turn = if others_wait { turn + 1 } else { 1 };
                (connection.probe, connection.message, connection.paid) = (probe, job.id, Some(paid));
            }
            self.occupy(id, standing);
            // With success the lane may have come to bear more connections, and its place to count as another.
            self.dispatch(&next_hop, now, begin, actions);
            self.grant(now, begin, actions);
            return Next::Job(job);
        }
        if !self.stopped && !others_wait && !is_one_too_many && !are_too_many && (has_room || !wanted) {
            if let Some(lane) = self.by_next_hop.get_mut(&next_hop) {
                lane.idle.push(id);
            }
            self.idle.insert(id);
            // Whoever stands in line and has nothing to do any more does not hurry the others.
            self.grant(now, begin, actions);
            return Next::Idle;
        }
        // Behind those who wait already, unless what was ready is not wanted any more.
        let has_work = self.by_next_hop.get(&next_hop).is_some_and(Lane::has_work);
        if wanted && has_work && !is_one_too_many {
            self.wait(&next_hop);
        }
        self.take_out(id, now);
        self.grant(now, begin, actions);
        // Connections of the lane that idled while its breaker let nothing through are not asked by anybody else.
        self.dispatch(&next_hop, now, begin, actions);
        Next::Close
    }

    pub(super) fn leave(
        &mut self,
        id: ConnectionId,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let gone = !self.connections.contains_key(&id);
        if self.idle.contains(&id) {
            self.take_out(id, now);
            self.grant(now, begin, actions);
            return true;
        }
        gone
    }

    pub(super) fn stop(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.stopped = true;
        while let Some(connection) = self.idle.first().copied() {
            self.take_out(connection, now);
            actions.push(Action::Close { connection });
        }
    }

    /// What keeps mail for a domain in its lane.
    pub(super) fn obstacle(&self, next_hop: &NextHop, domain: Option<&Domain>, now: Timestamp) -> Obstacle {
        match self.by_next_hop.get(next_hop) {
            Some(lane) => lane.obstacle(domain, self.limiter.look(now).unwrap_or(now), &self.breaker),
            None => Obstacle::None,
        }
    }

    /// Whether a lane has a job that could start at once, but for tokens.
    pub(super) fn can_start(&mut self, next_hop: &NextHop) -> bool {
        let Some(lane) = self.by_next_hop.get(next_hop) else { return false };
        if self.stopped || !lane.has_work() || !lane.breaker.admits(&self.breaker) {
            return false;
        }
        if lane.idle.is_empty() {
            if lane.connections >= lane.allowed() {
                return false;
            }
            if !self.has_place() || !self.places.has_room(lane.standing, self.max_connections) {
                self.wait(next_hop);
                return false;
            }
        }
        true
    }

    /// Starts a job of a lane that [can](Self::can_start).
    pub(super) fn start(
        &mut self,
        next_hop: &NextHop,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(Started { job, probe, paid }) = self.pop(next_hop, now, begin) else {
            return false;
        };
        let Some(lane) = self.by_next_hop.get_mut(next_hop) else {
            return false;
        };
        let (message, paid, standing) = (job.id, Some(paid), lane.standing);
        if let Some(connection) = lane.idle.pop() {
            self.idle.remove(&connection);
            if let Some(connection) = self.connections.get_mut(&connection) {
                let next_hop = next_hop.clone();
                *connection =
                    Connection { next_hop, turn: 1, probe, message, place: None, away: false, paid };
            }
            // A host listened to it before.
            self.occupy(connection, Standing::Proven);
            actions.push(Action::Resume { connection, job });
        } else {
            lane.connections += 1;
            self.make_room(now, actions);
            self.last.0 += 1;
            let connection = self.last;
            let next_hop = next_hop.clone();
            let to = next_hop.clone();
            let opened = Connection { next_hop: to, turn: 1, probe, message, place: None, away: false, paid };
            self.connections.insert(connection, opened);
            self.occupy(connection, standing);
            actions.push(Action::Open { connection, next_hop, job });
        }
        true
    }

    /// Takes a job out of a lane, with its tokens.
    fn pop(
        &mut self,
        next_hop: &NextHop,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
    ) -> Option<Started> {
        let lane = self.by_next_hop.get_mut(next_hop)?;
        loop {
            match lane.pop(&mut self.limiter, now, begin) {
                Popped::Job(job, domain) => {
                    self.limiter.take(now);
                    return Some(Started { job, probe: lane.breaker.start(), paid: Paid(domain) });
                }
                Popped::Wait(domain, until) => {
                    self.events.push(Event::RateLimited { domain: domain.to_string() });
                    self.timers.insert((until, Wake::Flow(next_hop.clone(), domain)));
                }
                Popped::Nothing => return None,
            }
        }
    }

    /// Closes the oldest idle connection if all places are taken.
    pub(super) fn make_room(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.connections() < self.max_connections {
            return;
        }
        if let Some(connection) = self.idle.first().copied() {
            self.take_out(connection, now);
            actions.push(Action::Close { connection });
        }
    }

    /// Gives places that are free to the lanes that wait for one.
    pub(super) fn grant(
        &mut self,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) {
        while !self.stopped
            && self.has_place()
            && let Some(next_hop) = self.places.next(self.max_connections)
        {
            if let Some(lane) = self.by_next_hop.get_mut(&next_hop) {
                lane.waiting = None;
            }
            self.dispatch(&next_hop, now, begin, actions);
        }
    }

    pub(super) fn take_out(&mut self, id: ConnectionId, now: Timestamp) {
        self.vacate(id);
        self.end_away(id);
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if let Some(lane) = self.by_next_hop.get_mut(&connection.next_hop) {
            lane.connections -= 1;
            if self.idle.remove(&id) {
                lane.idle.retain(|idle| *idle != id);
            }
        }
        self.forget(&connection.next_hop, now);
    }
}
