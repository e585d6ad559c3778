//! Which job is due, and which connection gets it.
//!
//! Pure: it sees ids and times and returns what to do. Messages are kept by id; a recipient is waiting for its due
//! time, ready in a lane, in flight, or at its end. A lane is a next hop, which domains with the same hosts share, with its
//! ready jobs: priorities take turns, domains within a priority, and within a domain it is first come first served.
//! Everything is bounded by the number of queued messages.

mod away;
mod breaker;
mod classes;
mod destinations;
mod entry;
mod event;
mod feedback;
mod few;
mod fresh;
mod hold;
mod job;
mod lane;
mod lanes;
mod late;
mod load;
mod look;
mod moment;
mod pace;
mod places;
mod rate;
mod ready;
mod remembered;
mod reroute;
mod sites;
mod status;
#[cfg(test)]
mod tests;
mod timers;
mod turns;
mod untold;
mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use empath_common::{Envelope, MessageId};
use empath_spool::{Content, Stored};
use jiff::Timestamp;

use crate::{config::CircuitBreaker, route::Routes};
use destinations::Destinations;
use entry::Entry;
use fresh::Fresh;
use lanes::Lanes;
use ready::begin;
use reroute::Renewal;
use timers::Timers;

pub use breaker::BreakerState;
pub use event::Event;
pub use feedback::Outcome;
pub use job::{Action, Fate, Job, JobRecipient, Next, Queued, Settlement, Snapshot};
pub use lane::Obstacle;
pub use lanes::{ConnectionId, TURN};
pub use rate::Rate;
pub use status::{MessageStatus, RecipientStatus};
pub use untold::TELL_WITHIN;

/// Most recipients of one transaction: what every server must take (RFC 5321 §4.5.3.1.8).
pub const MAX_RECIPIENTS: usize = 100;

/// Most timers that one call of [`Queue::poll`] handles.
const BATCH: usize = 256;

/// Bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at the same time.
    pub max_concurrent: usize,
    /// Most octets of envelopes and content kept for first attempts.
    pub content_memory: usize,
    /// How long after its reception, or the time that its sender asked for, a message is given up.
    pub expire_after: Duration,
    /// How long after that the sender is told that a message takes long.
    pub delay_after: Option<Duration>,
    /// How much mail there may be to all destinations together.
    pub rate: Option<Rate>,
    /// When a destination is left alone.
    pub breaker: CircuitBreaker,
}

/// Every message between acceptance and its end.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    routes: Routes,
    messages: BTreeMap<MessageId, Entry>,
    destinations: Destinations,
    timers: Timers,
    lanes: Lanes,
    /// What a new configuration was not applied to yet.
    renewal: Renewal,
    /// Octets of envelopes and content in memory.
    fresh: usize,
    counts: [usize; MessageStatus::ALL.len()],
    /// Recipients that an operator removed, not yet asked for.
    removed: u64,
    expired: VecDeque<Queued>,
    late: VecDeque<Queued>,
    untold: VecDeque<Queued>,
    actions: Vec<Action>,
}

impl Queue {
    /// An empty queue.
    pub fn new(routes: Routes, limits: Limits) -> Self {
        Self {
            lanes: Lanes::new(limits.max_concurrent, limits.rate, limits.breaker),
            limits,
            routes,
            messages: BTreeMap::new(),
            destinations: Destinations::default(),
            timers: Timers::new(),
            renewal: Renewal::default(),
            fresh: 0,
            counts: [0; MessageStatus::ALL.len()],
            removed: 0,
            expired: VecDeque::new(),
            late: VecDeque::new(),
            untold: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in a message whose recipients were not tried yet. Its envelope stays in memory for the first attempt if the
    /// limit allows, and so does content that is there; of large content nothing is kept, lest every queued message hold
    /// a file open.
    pub fn accept(&mut self, id: MessageId, envelope: Arc<Envelope>, content: &Content, now: Timestamp) {
        let sender = self.routes.sender_class(&envelope.reverse_path);
        let mut entry = Entry::new(&envelope, content.len(), sender, &mut self.destinations);
        let recipients = entry.make_ready(now.into(), |_| true);
        let fresh = Fresh { envelope, content: content.in_memory().cloned() };
        let octets = fresh.octets();
        if !entry.is_scheduled() && self.fresh.saturating_add(octets) <= self.limits.content_memory {
            self.fresh += octets;
            entry.fresh = Some(Box::new(fresh));
        }
        self.insert(id, entry, now);
        self.ready(id, &recipients, now);
    }

    /// Takes in a message from the spool, unless it is known. False if every recipient has ended, and the message
    /// can be removed.
    pub fn restore(&mut self, id: MessageId, stored: &Stored, now: Timestamp) -> bool {
        if self.messages.contains_key(&id) {
            return true;
        }
        let sender = self.routes.sender_class(&stored.envelope.reverse_path);
        let mut entry = Entry::new(&stored.envelope, stored.size, sender, &mut self.destinations);
        entry.restore(&stored.recipients, stored.held);
        if entry.outstanding() == 0 {
            self.forget(&entry);
            return false;
        }
        // What was never tried is tried once, however old it is.
        let untried = entry.make_untried_ready(now.into());
        let expired = entry.expires_at(self.limits.expire_after) <= now.into();
        let held = entry.is_held();
        self.insert(id, entry, now);
        if held {
            return true;
        }
        self.ready(id, &untried, now);
        if expired {
            self.expire(id, now, |attempts| attempts > 0);
            self.expire_unlisted(id, now);
        } else {
            self.fire(id, now);
        }
        true
    }

    /// Handles what is due. Returns when to call again at the latest.
    pub fn poll(&mut self, now: Timestamp) -> Timestamp {
        self.renew(now);
        for _ in 0..BATCH {
            let Some(id) = self.timers.due(now.into()) else { break };
            self.fire(id, now);
        }
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        lanes.poll(now, &mut |ready| begin(messages, destinations, counts, &ready), actions);
        self.timers.arm(self.due())
    }

    /// Whether something became due earlier than [`poll`](Self::poll) said. Asking resets it.
    pub fn take_wake(&mut self) -> bool {
        let due = self.due();
        self.timers.take_wake(due)
    }

    /// What to do with connections since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether [`take_expired`](Self::take_expired), [`take_late`](Self::take_late) or
    /// [`take_untold`](Self::take_untold) has something.
    pub fn has_expired(&self) -> bool {
        !self.expired.is_empty() || !self.late.is_empty() || !self.untold.is_empty()
    }

    /// Recipients that were in the queue for too long. They are in flight until they are settled.
    pub fn take_expired(&mut self) -> Option<Queued> {
        self.expired.pop_front()
    }

    /// Records what became of recipients in flight. True if the message has ended, and is no longer in the queue.
    pub fn settle(&mut self, id: MessageId, settlements: &[Settlement], now: Timestamp) -> bool {
        let Some(entry) = self.messages.get_mut(&id) else {
            return false;
        };
        let before = entry.status();
        self.removed += entry.settle(settlements, now.into());
        if entry.outstanding() == 0 {
            count(&mut self.counts, before, None);
            self.remove(id);
            return true;
        }
        count(&mut self.counts, before, Some(entry.status()));
        self.calm(id);
        self.rearm(id, now);
        false
    }

    /// How many recipients were removed by an operator since the last call.
    pub fn take_removed(&mut self) -> u64 {
        std::mem::take(&mut self.removed)
    }

    /// From now on these recipients travel alone: what failed in a transaction of several may be the fault of one.
    pub fn isolate(&mut self, id: MessageId, recipients: &[u32]) {
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.isolate(recipients);
        }
    }

    /// Whether the message would end if this many of its recipients in flight ended now.
    pub fn would_end(&self, id: MessageId, recipients: usize) -> bool {
        self.messages.get(&id).is_some_and(|entry| entry.outstanding() == recipients)
    }

    /// From now on no job starts, and connections close when they are done.
    pub fn stop(&mut self, now: Timestamp) {
        self.lanes.stop(now, &mut self.actions);
    }

    /// Makes the waiting recipients of a message due now, and has destinations tried that are left alone. How many recipients
    /// go on by that; `None` if there is no such message.
    pub fn retry(&mut self, id: MessageId, now: Timestamp) -> Option<usize> {
        let hurried = self.behind_breakers(id);
        let entry = self.messages.get_mut(&id)?;
        entry.hasten(now.into());
        let recipients = entry.make_ready(now.into(), |_| true);
        self.ready(id, &recipients, now);
        self.hurry(id, now);
        self.rearm(id, now);
        Some(recipients.len() + hurried)
    }

    /// Takes the recipients that are not in flight out of the queue, for their removal; those in flight are removed
    /// instead of deferred. Settle what is returned; `None` if there is no such message.
    pub fn delete(&mut self, id: MessageId, now: Timestamp) -> Option<Queued> {
        self.messages.get_mut(&id)?.removing = true;
        self.claim(id, now, |_| true)
    }

    /// Whether an operator removes the message: what is in flight and not delivered is removed as well.
    pub fn is_removing(&self, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(|entry| entry.removing)
    }

    /// The removal could not be made durable: the message stays.
    pub fn undelete(&mut self, id: MessageId) {
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.removing = false;
        }
    }

    /// Gives back the memory for a first attempt when nobody is about to make it.
    fn calm(&mut self, id: MessageId) {
        if let Some(entry) = self.messages.get_mut(&id)
            && entry.is_quiet()
            && let Some(fresh) = entry.fresh.take()
        {
            self.fresh -= fresh.octets();
        }
    }

    fn insert(&mut self, id: MessageId, entry: Entry, now: Timestamp) {
        if let Some(count) = self.counts.get_mut(entry.status() as usize) {
            *count += 1;
        }
        self.messages.insert(id, entry);
        self.rearm(id, now);
    }

    fn remove(&mut self, id: MessageId) {
        if let Some(entry) = self.messages.remove(&id) {
            self.fresh -= entry.fresh.as_ref().map_or(0, |fresh| fresh.octets());
            self.timers.clear(id, entry.timer);
            self.forget(&entry);
        }
    }

    fn forget(&mut self, entry: &Entry) {
        entry.destinations().for_each(|destination| self.destinations.leave(destination));
    }

    /// A due time of the message has come, or its end.
    fn fire(&mut self, id: MessageId, now: Timestamp) {
        self.claim_untold(id, now);
        let Some(entry) = self.messages.get_mut(&id).filter(|entry| !entry.is_held()) else {
            return;
        };
        if entry.expires_at(self.limits.expire_after) <= now.into() {
            return self.expire(id, now, |_| true);
        }
        let due = entry.make_ready(now.into(), |due| due <= now.into());
        self.ready(id, &due, now);
        // An attempt that starts now may make the news superfluous.
        self.claim_late(id, now);
        self.rearm(id, now);
    }

    fn expire(&mut self, id: MessageId, now: Timestamp, chosen: impl Fn(u32) -> bool) {
        let job = self.claim(id, now, chosen);
        self.expired.extend(job.filter(|job| !job.recipients.is_empty()));
    }

    /// What could be tried once more and is not, for its domain is frozen, has expired all the same.
    fn expire_unlisted(&mut self, id: MessageId, now: Timestamp) {
        let job = self.claim_with(id, now, Entry::claim_unlisted);
        self.expired.extend(job.filter(|job| !job.recipients.is_empty()));
    }

    /// Recipients with a chosen number of attempts go in flight without a connection, unless they are in flight.
    fn claim(&mut self, id: MessageId, now: Timestamp, chosen: impl Fn(u32) -> bool) -> Option<Queued> {
        self.claim_with(id, now, |entry| entry.claim(chosen))
    }

    fn claim_with(
        &mut self,
        id: MessageId,
        now: Timestamp,
        claim: impl FnOnce(&mut Entry) -> Vec<JobRecipient>,
    ) -> Option<Queued> {
        let entry = self.messages.get_mut(&id)?;
        let before = entry.status();
        let recipients = claim(entry);
        let after = entry.status();
        let job = entry.job(id, recipients, now);
        count(&mut self.counts, before, Some(after));
        self.rearm(id, now);
        Some(job)
    }

    /// Sets the message's timer to the next moment when something is to be done without an outside event.
    fn rearm(&mut self, id: MessageId, now: Timestamp) {
        let Some(entry) = self.messages.get_mut(&id) else {
            return;
        };
        let Limits { expire_after, delay_after, .. } = self.limits;
        let at = entry.next_event(delay_after, expire_after, now.into());
        self.timers.set(id, &mut entry.timer, at);
    }
}

type Messages = BTreeMap<MessageId, Entry>;
type Counts = [usize; MessageStatus::ALL.len()];

fn count(counts: &mut Counts, before: MessageStatus, after: Option<MessageStatus>) {
    if after == Some(before) {
        return;
    }
    if let Some(count) = counts.get_mut(before as usize) {
        *count -= 1;
    }
    if let Some(count) = after.and_then(|after| counts.get_mut(after as usize)) {
        *count += 1;
    }
}
