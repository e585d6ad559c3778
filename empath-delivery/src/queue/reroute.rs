use std::{collections::VecDeque, ops::Bound, sync::Arc, time::Duration};

use empath_common::{Domain, MessageId, ReversePath};
use jiff::Timestamp;

use super::{
    Action, BATCH, Fate, Job, JobRecipient, Limits, Queue, Queued, Settlement, begin, classes::Classes,
    entry::Entry, lanes::Lanes, moment::Moment, pace::Wake, ready::Ready,
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
    /// Changes where an operator lets mail for a domain go, and takes along what is ready for it: behind a host that is dead
    /// it would be tried there all the same.
    pub fn reroute<T>(
        &mut self,
        domain: &Domain,
        now: Timestamp,
        change: impl FnOnce(&mut Routes) -> T,
    ) -> T {
        // Its mail stands in as many lanes as there are ways for senders.
        let before = self.lanes_to(domain);
        let had = self.routes.overrides().get(domain).cloned();
        let changed = change(&mut self.routes);
        if self.routes.overrides().get(domain) != had.as_ref() {
            let drained: Vec<_> = before.iter().flat_map(|before| self.lanes.drain(before, now)).collect();
            self.part(drained, now);
        }
        changed
    }

    /// Puts a job back that went the wrong way: its sender has another route by now, as only its envelope shows. No attempt
    /// is counted. `None` if the way was right, else whether the message has ended, for an operator removed it.
    pub fn redirect(&mut self, job: &Job, now: Timestamp) -> Option<bool> {
        let sender = self.routes.sender_class(&job.envelope.reverse_path);
        if sender == job.sender {
            return None;
        }
        let entry = self.messages.get_mut(&job.id)?;
        entry.sender = sender;
        if entry.removing {
            let settlement = |recipient: &JobRecipient| {
                let JobRecipient { index, attempts, due } = *recipient;
                Settlement { index, attempts, fate: Fate::Due(due) }
            };
            let settlements: Vec<_> = job.recipients.iter().map(settlement).collect();
            return Some(self.settle(job.id, &settlements, now));
        }
        // Now, and not by its timer: it may have expired, and is to be tried once more.
        self.again(job.id, &job.recipients, now);
        Some(false)
    }

    /// From now on these routes and limits apply, to mail that is here already too; overrides stay. What is ready is routed
    /// again by the next calls of [`poll`](Self::poll), what waits keeps its due time, and what is in flight is finished.
    ///
    /// True if mail may have [another class](Self::reclassify) by now: of what is in memory that is seen as it is routed.
    pub fn replace(&mut self, mut routes: Routes, limits: Limits, now: Timestamp) -> bool {
        routes.keep_overrides_of(&mut self.routes);
        routes.keep_classes_of(&self.routes);
        let others = !routes.has_senders_of(&self.routes);
        self.routes = routes;
        if !self.routes.domains_share() {
            self.destinations.forget_sites();
        }
        let before = std::mem::replace(&mut self.limits, limits);
        if (before.expire_after, before.delay_after) != (limits.expire_after, limits.delay_after) {
            let had = self.renewal.timers.map_or(before.expire_after, |(_, had)| had);
            self.renewal.timers = Some((Bound::Unbounded, had));
        }
        self.lanes.replace(&limits, now);
        self.route_all_again(now);
        others
    }

    /// Looks up which route the sender of a message has at present. True if it is another:
    /// [`route_all_again`](Self::route_all_again) takes along what is ready.
    pub fn reclassify(&mut self, id: MessageId, path: &ReversePath) -> bool {
        let sender = self.routes.sender_class(path);
        let entry = self.messages.get_mut(&id);
        entry.is_some_and(|entry| std::mem::replace(&mut entry.sender, sender) != sender)
    }

    /// Whatever is ready is routed again by the next calls of [`poll`](Self::poll).
    pub fn route_all_again(&mut self, now: Timestamp) {
        self.renewal.ready.extend(self.lanes.drain_all(now));
        let Self { lanes, limits, messages, destinations, counts, actions, .. } = self;
        lanes.resize(
            limits.max_concurrent,
            now,
            &mut |ready| begin(messages, destinations, counts, &ready),
            actions,
        );
    }

    /// What is ready for a domain is routed again by the next calls of [`poll`](Self::poll). Others in its lanes may have
    /// more connections without it.
    pub(super) fn withdraw(&mut self, domain: &Domain, now: Timestamp) {
        let Some(destination) = self.destinations.find(domain) else { return };
        let lanes: Vec<_> = self.lanes_to(domain).into_iter().collect();
        for next_hop in &lanes {
            let Some(lane) = self.lanes.by_next_hop.get_mut(next_hop) else { continue };
            self.renewal.ready.extend(lane.take(destination, domain).into_classes(destination));
            self.lanes.forget(next_hop, now);
        }
        self.set_going(&lanes, now);
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
    pub(super) fn route_again(&mut self, Ready { id, recipients, .. }: Ready, now: Timestamp) {
        let fresh = self.messages.get(&id).and_then(|entry| entry.fresh.as_ref());
        if let Some(envelope) = fresh.map(|fresh| Arc::clone(&fresh.envelope)) {
            self.reclassify(id, &envelope.reverse_path);
        }
        let recipients = self.messages.get_mut(&id).map(|entry| entry.unlist(recipients.as_slice()));
        self.ready(id, &recipients.unwrap_or_default(), now);
    }
}

impl Lanes {
    /// From now on these limits apply.
    fn replace(&mut self, limits: &Limits, now: Timestamp) {
        self.limiter.limit(limits.rate);
        self.breaker = limits.breaker;
        for (next_hop, lane) in &mut self.by_next_hop {
            if let Some(until) = lane.breaker.shorten(&self.breaker, now) {
                self.timers.insert((until, Wake::Lane(next_hop.clone())));
            }
        }
        if !self.throttled.is_empty() {
            // By the new limit the next token may come sooner.
            self.timers.insert((now, Wake::Token));
        }
    }

    /// Takes out all that is ready, by lane.
    fn drain_all(&mut self, now: Timestamp) -> Vec<Classes> {
        let mut drained = Vec::new();
        let mut empty = Vec::new();
        for (next_hop, lane) in &mut self.by_next_hop {
            drained.extend(lane.drain());
            if lane.connections == 0 {
                empty.push(next_hop.clone());
            }
        }
        for next_hop in empty {
            self.forget(&next_hop, now);
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
        while self.connections() > self.max_connections
            && let Some(connection) = self.idle.first().copied()
        {
            self.take_out(connection, now);
            actions.push(Action::Close { connection });
        }
        self.grant(now, begin, actions);
    }
}
