//! Which destinations may have which part of the connections.
//!
//! A connection to a host that does not answer is busy until its time is over, so that those to hosts that are dead would soon
//! be all that there are. Hence destinations that deliver have the use of every connection; those of which nothing is known
//! together have three quarters at most, of which those that failed last have two thirds at most. Within these parts it is
//! first come first served.

use std::collections::BTreeMap;

use super::lanes::{ConnectionId, Lanes};
use crate::route::NextHop;

/// What the last attempts say about a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// A host listened.
    Proven,
    /// Nothing is known.
    #[default]
    New,
    /// No host did.
    Failing,
}

/// Where a lane stands in line: a smaller number came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    standing: Standing,
    number: u64,
}

/// Who holds places, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Busy connections by what was known when their jobs began.
    held: [usize; 3],
    lines: [BTreeMap<u64, NextHop>; 3],
    last: u64,
    /// The last of those who had their turn and left their places.
    last_again: u64,
}

impl Places {
    /// A connection takes up a job.
    pub(super) fn take(&mut self, standing: Standing) {
        if let Some(held) = self.held.get_mut(standing as usize) {
            *held += 1;
        }
    }

    /// It has ended.
    pub(super) fn give_back(&mut self, standing: Standing) {
        if let Some(held) = self.held.get_mut(standing as usize) {
            *held -= 1;
        }
    }

    /// Whether one more is within the part, of `max` places, that there is for lanes like this.
    pub(super) fn has_room(&self, standing: Standing, max: usize) -> bool {
        let [_, new, failing] = self.held;
        match standing {
            Standing::Proven => true,
            Standing::New => new + failing < unproven(max),
            Standing::Failing => new + failing < unproven(max) && failing < max.div_ceil(2),
        }
    }

    /// A lane waits for a place; one that does already keeps its turn.
    pub(super) fn wait(&mut self, next_hop: &NextHop, standing: Standing, before: Option<Ticket>) -> Ticket {
        if let Some(ticket) = before {
            if ticket.standing == standing {
                return ticket;
            }
            self.line(ticket.standing).remove(&ticket.number);
        }
        self.last += 1;
        let number = before.map_or(FIRST + self.last, |ticket| ticket.number);
        let ticket = Ticket { standing, number };
        self.line(standing).insert(ticket.number, next_hop.clone());
        ticket
    }

    /// A lane that waits had its turn already: it stands before all that had none.
    fn advance(&mut self, Ticket { standing, number }: Ticket) -> Ticket {
        if number >= FIRST
            && let Some(next_hop) = self.line(standing).remove(&number)
        {
            self.last_again += 1;
            let number = self.last_again;
            self.line(standing).insert(number, next_hop);
            return Ticket { standing, number };
        }
        Ticket { standing, number }
    }

    /// Takes the next lane out of the line that could have a place if one was free.
    pub(super) fn next(&mut self, max: usize) -> Option<NextHop> {
        let first = |standing| Some((*self.line_of(standing, max)?.first_key_value()?.0, standing));
        let (number, standing) = ALL.into_iter().filter_map(first).min_by_key(|(number, _)| *number)?;
        self.line(standing).remove(&number)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> [usize; 3] {
        self.held
    }

    /// Whether lanes wait that would not be expected to fail.
    pub(super) fn are_wanted(&self) -> bool {
        let [proven, new, _] = &self.lines;
        !(proven.is_empty() && new.is_empty())
    }

    /// Whether another lane could have a place if one was free.
    pub(super) fn is_wanted_by_others(&self, next_hop: &NextHop, max: usize) -> bool {
        let mut lines = ALL.into_iter().filter_map(|standing| self.line_of(standing, max));
        lines.any(|line| line.values().any(|other| other != next_hop))
    }

    /// Those who could have a place.
    fn line_of(&self, standing: Standing, max: usize) -> Option<&BTreeMap<u64, NextHop>> {
        self.lines.get(standing as usize).filter(|_| self.has_room(standing, max))
    }

    fn line(&mut self, standing: Standing) -> &mut BTreeMap<u64, NextHop> {
        let [proven, new, failing] = &mut self.lines;
        match standing {
            Standing::Proven => proven,
            Standing::New => new,
            Standing::Failing => failing,
        }
    }
}

impl Lanes {
    /// What is there was tried before: a destination that nothing else is known of counts as one that fails.
    pub(super) fn doubt(&mut self, next_hop: &NextHop) {
        if let Some(lane) = self.by_next_hop.get_mut(next_hop).filter(|lane| lane.standing == Standing::New) {
            lane.standing = Standing::Failing;
        }
    }

    /// A lane waits for a place.
    pub(super) fn wait(&mut self, next_hop: &NextHop) {
        if let Some(lane) = self.by_next_hop.get_mut(next_hop) {
            lane.waiting = Some(self.places.wait(next_hop, lane.standing, lane.waiting));
        }
    }

    /// If a lane waits for a place, that is for a job that has left its own to others.
    pub(super) fn advance(&mut self, next_hop: &NextHop) {
        if let Some(lane) = self.by_next_hop.get_mut(next_hop) {
            lane.waiting = lane.waiting.map(|ticket| self.places.advance(ticket));
        }
    }

    /// Whether there is a place, or one that can be made.
    pub(super) fn has_place(&self) -> bool {
        self.connections() < self.max_connections || !self.idle.is_empty()
    }

    /// The place of a connection counts as one of these while it is busy.
    pub(super) fn occupy(&mut self, id: ConnectionId, standing: Standing) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.place = Some(standing);
            self.places.take(standing);
        }
    }

    /// It is not busy any more.
    pub(super) fn vacate(&mut self, id: ConnectionId) {
        if let Some(place) = self.connections.get_mut(&id).and_then(|connection| connection.place.take()) {
            self.places.give_back(place);
        }
    }
}

/// Numbers of those who had no turn yet are greater.
const FIRST: u64 = 1 << 63;

const ALL: [Standing; 3] = [Standing::Proven, Standing::New, Standing::Failing];

/// How many of `max` places lanes may have that are not proven.
fn unproven(max: usize) -> usize {
    max - max / 4
}
