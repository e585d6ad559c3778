use std::{collections::VecDeque, ops::Bound, time::Duration};

use empath_common::{Domain, Host, MessageId};
use jiff::Timestamp;

use super::{
    Action, BATCH, Limits, Queue, Queued, begin, classes::Classes, entry::Entry, lanes::Lanes,
    moment::Moment, pace::Wake, ready::Ready,
};
use crate::route::Routes;

/// What a new configuration was not applied to yet: there may be a million messages, and others have their turn in between.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// What was taken out of the lanes; they take turns.
    ready: VecDeque<Classes>,
    /// The last message of which the timer is set anew, while there are more; and how long messages had before.
    timers: Option<(Bound<MessageId>, Duration)>,
}

impl Renewal {
    fn is_over(&self) -> bool {
        self.ready.is_empty() && self.timers.is_none()
    }
}

/// Changes of next hops while there is mail.
impl Queue {
    /// Changes where mail for a domain goes, and takes along what is ready for it: behind a host that is dead it would be
    /// tried there all the same.
    pub fn reroute<T>(
        &mut self,
        domain: &Domain,
        now: Timestamp,
        change: impl FnOnce(&mut Routes) -> T,
    ) -> T {
        let host = Host::Domain(domain.clone());
        let before = self.route(Some(&host));
        let changed = change(&mut self.routes);
        if self.route(Some(&host)) != before {
            for ready in self.lanes.drain(&before, now) {
                self.route_again(ready, now);
            }
        }
        changed
    }

    /// From now on these routes and limits apply, to mail that is here already too; overrides stay. What is ready is routed
    /// again by the next calls of [`poll`](Self::poll), what waits keeps its due time, and what is in flight is finished.
    pub fn replace(&mut self, mut routes: Routes, limits: Limits, now: Timestamp) {
        routes.keep_overrides_of(&mut self.routes);
        self.routes = routes;
        let before = std::mem::replace(&mut self.limits, limits);
        if (before.expire_after, before.delay_after) != (limits.expire_after, limits.delay_after) {
            let had = self.renewal.timers.map_or(before.expire_after, |(_, had)| had);
            self.renewal.timers = Some((Bound::Unbounded, had));
        }
        self.renewal.ready.extend(self.lanes.replace(&limits, now));
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        lanes.resize(
            limits.max_concurrent,
            now,
            &mut |ready| begin(messages, destinations, counts, &ready),
            actions,
        );
    }

    /// When [`poll`](Self::poll) has something to do besides the timers of messages.
    pub(super) fn due(&self) -> Moment {
        if self.renewal.is_over() { self.lanes.due().into() } else { Timestamp::MIN.into() }
    }

    /// Applies a new configuration to some more messages.
    pub(super) fn renew(&mut self, now: Timestamp) {
        for _ in 0..BATCH {
            let Some(mut lane) = self.renewal.ready.pop_front() else { break };
            if let Some(ready) = lane.pop_front() {
                self.route_again(ready, now);
            }
            if !lane.is_empty() {
                self.renewal.ready.push_back(lane);
            }
        }
        let Some((after, had)) = self.renewal.timers else { return };
        let some = self.messages.range((after, Bound::Unbounded)).take(BATCH);
        let expire_after = self.limits.expire_after;
        // What had expired before has its last attempt before it.
        let stays = |entry: &Entry| entry.is_held() || entry.expires_at(had.max(expire_after)) <= now.into();
        let some: Vec<_> = some.map(|(id, entry)| (*id, stays(entry))).collect();
        self.renewal.timers = some.get(BATCH - 1).map(|(id, _)| (Bound::Excluded(*id), had));
        for (id, stays) in some {
            if !stays {
                self.fire(id, now);
            }
        }
    }

    /// Puts what was taken out of a lane into the one that it belongs to now.
    fn route_again(&mut self, Ready { id, recipients, .. }: Ready, now: Timestamp) {
        let recipients = self.messages.get_mut(&id).map(|entry| entry.unlist(recipients.as_slice()));
        self.ready(id, &recipients.unwrap_or_default(), now);
    }
}

impl Lanes {
    /// From now on these limits apply. Returns all that is ready, by lane.
    fn replace(&mut self, limits: &Limits, now: Timestamp) -> Vec<Classes> {
        self.limiter.limit(limits.rate);
        self.breaker = limits.breaker;
        let mut drained = Vec::new();
        let mut empty = Vec::new();
        for (next_hop, lane) in &mut self.by_next_hop {
            drained.extend(lane.drain());
            if let Some(until) = lane.breaker.shorten(&self.breaker, now) {
                self.timers.insert((until, Wake::Lane(next_hop.clone())));
            }
            if lane.connections == 0 {
                empty.push(next_hop.clone());
            }
        }
        for next_hop in empty {
            self.forget(&next_hop, now);
        }
        if !self.throttled.is_empty() {
            // By the new limit the next token may come sooner.
            self.timers.insert((now, Wake::Token));
        }
        drained
    }

    /// From now on there may be so many connections: idle ones close if there are more, busy ones when they are done.
    fn resize(
        &mut self,
        max_connections: usize,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
        actions: &mut Vec<Action>,
    ) {
        self.max_connections = max_connections;
        while self.connections.len() > self.max_connections
            && let Some(connection) = self.idle.first().copied()
        {
            self.take_out(connection, now);
            actions.push(Action::Close { connection });
        }
        self.grant(now, begin, actions);
    }
}
