use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Action, Next, Queued as Job, classes::Classes, ready::Ready};
use crate::route::NextHop;

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
    by_next_hop: HashMap<NextHop, Lane>,
    connections: HashMap<ConnectionId, Connection>,
    idle: BTreeSet<ConnectionId>,
    /// Lanes that could use a connection more, were there places; first come first served.
    waiting: VecDeque<NextHop>,
    max_connections: usize,
    last: ConnectionId,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Lane {
    ready: Classes,
    /// Connections, idle ones included.
    connections: usize,
    max_connections: usize,
    idle: Vec<ConnectionId>,
    /// Whether it stands in `waiting`.
    waiting: bool,
}

#[derive(Debug)]
struct Connection {
    next_hop: NextHop,
    /// Jobs since it last had its turn.
    turn: u32,
}

impl Lane {
    fn pop(&mut self, begin: &mut impl FnMut(Ready) -> Option<Job>) -> Option<Job> {
        while let Some(ready) = self.ready.pop_front() {
            if let Some(job) = begin(ready) {
                return Some(job);
            }
        }
        None
    }
}

impl Lanes {
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            by_next_hop: HashMap::new(),
            connections: HashMap::new(),
            idle: BTreeSet::new(),
            waiting: VecDeque::new(),
            max_connections,
            last: ConnectionId(0),
            stopped: false,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn push(&mut self, next_hop: &NextHop, max_connections: usize, ready: Ready) {
        let lane = match self.by_next_hop.get_mut(next_hop) {
            Some(lane) => lane,
            None => self.by_next_hop.entry(next_hop.clone()).or_default(),
        };
        lane.max_connections = max_connections;
        lane.ready.push_back(ready);
    }

    /// Gives ready jobs of a lane to idle and new connections, as far as limits allow.
    pub(super) fn dispatch(
        &mut self,
        next_hop: &NextHop,
        begin: &mut impl FnMut(Ready) -> Option<Job>,
        actions: &mut Vec<Action>,
    ) {
        while !self.stopped
            && let Some(lane) = self.by_next_hop.get_mut(next_hop)
            && !lane.ready.is_empty()
        {
            if lane.idle.is_empty() {
                if lane.connections >= lane.max_connections {
                    return;
                }
                if self.connections.len() >= self.max_connections && self.idle.is_empty() {
                    if !std::mem::replace(&mut lane.waiting, true) {
                        self.waiting.push_back(next_hop.clone());
                    }
                    return;
                }
            }
            let Some(job) = lane.pop(begin) else { break };
            if let Some(connection) = lane.idle.pop() {
                self.idle.remove(&connection);
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.turn = 1;
                }
                actions.push(Action::Resume { connection, job });
            } else {
                lane.connections += 1;
                self.make_room(actions);
                self.last.0 += 1;
                let connection = self.last;
                self.connections.insert(connection, Connection { next_hop: next_hop.clone(), turn: 1 });
                actions.push(Action::Open { connection, next_hop: next_hop.clone(), job });
            }
        }
        self.forget(next_hop);
    }

    pub(super) fn next(
        &mut self,
        id: ConnectionId,
        begin: &mut impl FnMut(Ready) -> Option<Job>,
        actions: &mut Vec<Action>,
    ) -> Next {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Next::Close;
        };
        let Some(lane) = self.by_next_hop.get_mut(&connection.next_hop) else {
            return Next::Close;
        };
        let others_wait = self.waiting.iter().any(|next_hop| *next_hop != connection.next_hop);
        if !self.stopped
            && (connection.turn < TURN || !others_wait)
            && let Some(job) = lane.pop(begin)
        {
            connection.turn = if others_wait { connection.turn + 1 } else { 1 };
            return Next::Job(job);
        }
        if !self.stopped && !others_wait {
            lane.idle.push(id);
            self.idle.insert(id);
            return Next::Idle;
        }
        // Behind those who wait already.
        if !lane.ready.is_empty() && !std::mem::replace(&mut lane.waiting, true) {
            self.waiting.push_back(connection.next_hop.clone());
        }
        self.take_out(id);
        self.grant(begin, actions);
        Next::Close
    }

    pub(super) fn leave(
        &mut self,
        id: ConnectionId,
        begin: &mut impl FnMut(Ready) -> Option<Job>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let gone = !self.connections.contains_key(&id);
        if self.idle.contains(&id) {
            self.take_out(id);
            self.grant(begin, actions);
            return true;
        }
        gone
    }

    pub(super) fn stop(&mut self, actions: &mut Vec<Action>) {
        self.stopped = true;
        while let Some(connection) = self.idle.first().copied() {
            self.take_out(connection);
            actions.push(Action::Close { connection });
        }
    }

    /// Closes the oldest idle connection if all places are taken.
    fn make_room(&mut self, actions: &mut Vec<Action>) {
        if self.connections.len() < self.max_connections {
            return;
        }
        if let Some(connection) = self.idle.first().copied() {
            self.take_out(connection);
            actions.push(Action::Close { connection });
        }
    }

    /// Gives places that are free to the lanes that wait for one.
    fn grant(&mut self, begin: &mut impl FnMut(Ready) -> Option<Job>, actions: &mut Vec<Action>) {
        while !self.stopped
            && self.connections.len() < self.max_connections
            && let Some(next_hop) = self.waiting.pop_front()
        {
            if let Some(lane) = self.by_next_hop.get_mut(&next_hop) {
                lane.waiting = false;
            }
            self.dispatch(&next_hop, begin, actions);
        }
    }

    fn take_out(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if let Some(lane) = self.by_next_hop.get_mut(&connection.next_hop) {
            lane.connections -= 1;
            if self.idle.remove(&id) {
                lane.idle.retain(|idle| *idle != id);
            }
        }
        self.forget(&connection.next_hop);
    }

    /// Drops a lane that nobody needs.
    fn forget(&mut self, next_hop: &NextHop) {
        let unused = |lane: &Lane| lane.ready.is_empty() && lane.connections == 0 && !lane.waiting;
        if self.by_next_hop.get(next_hop).is_some_and(unused) {
            self.by_next_hop.remove(next_hop);
        }
    }
}
