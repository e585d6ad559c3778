//! What lanes do when a time has come.

use empath_common::Domain;
use jiff::Timestamp;

use super::{Action, Event, Queued, lanes::Lanes, ready::Ready};
use crate::route::NextHop;

/// Most timers that one call of [`Lanes::poll`] handles.
const BATCH: usize = 256;

/// What a timer is for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// There is a token for all mail.
    Token,
    /// There is a token for mail of a lane that goes to a domain.
    Flow(NextHop, Domain),
    /// The pause of a lane's breaker is over, or it may be forgotten.
    Lane(NextHop),
}

impl Lanes {
    /// When [`poll`](Self::poll) has something to do.
    pub(super) fn due(&self) -> Timestamp {
        self.timers.first().map_or(Timestamp::MAX, |(at, _)| *at)
    }

    /// Handles what is due.
    pub(super) fn poll(
        &mut self,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) {
        for _ in 0..BATCH {
            if self.due() > now {
                return;
            }
            match self.timers.pop_first() {
                Some((_, Wake::Token)) => self.spread(now, begin, actions),
                Some((_, Wake::Flow(next_hop, domain))) => {
                    if let Some(lane) = self.by_next_hop.get_mut(&next_hop) {
                        lane.pass(&domain, now);
                    }
                    self.dispatch(&next_hop, now, begin, actions);
                }
                Some((_, Wake::Lane(next_hop))) => {
                    self.pass(&next_hop, now);
                    self.dispatch(&next_hop, now, begin, actions);
                }
                None => return,
            }
        }
    }

    /// Whether a lane has to wait for a token of all mail: then it stands in the line.
    pub(super) fn throttle(&mut self, next_hop: &NextHop, now: Timestamp) -> bool {
        if !self.limiter.is_global() {
            return false;
        }
        if self.throttled.is_empty() {
            let Some(at) = self.limiter.next_token(now) else { return false };
            self.timers.insert((at, Wake::Token));
        }
        if let Some(lane) = self.by_next_hop.get_mut(next_hop)
            && !std::mem::replace(&mut lane.throttled, true)
        {
            self.throttled.push_back(next_hop.clone());
            self.events.push(Event::limited(next_hop, lane));
        }
        true
    }

    /// Gives the tokens that there are to the lanes that wait for one.
    fn spread(
        &mut self,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) {
        while self.limiter.next_token(now).is_none()
            && let Some(next_hop) = self.throttled.pop_front()
        {
            if let Some(lane) = self.by_next_hop.get_mut(&next_hop) {
                lane.throttled = false;
            }
            let started = self.can_start(&next_hop) && self.start(&next_hop, now, begin, actions);
            if started && let Some(lane) = self.by_next_hop.get_mut(&next_hop).filter(|lane| lane.has_work())
            {
                lane.throttled = true;
                self.throttled.push_back(next_hop);
            } else {
                self.forget(&next_hop, now);
            }
        }
        if !self.throttled.is_empty() {
            let at = self.limiter.next_token(now).unwrap_or(now);
            self.timers.insert((at, Wake::Token));
        }
    }
}
