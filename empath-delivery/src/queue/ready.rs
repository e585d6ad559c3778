//! What is ready stands in the lane of its next hop until a job begins with it.

use std::collections::BTreeMap;

use empath_common::{Domain, MessageId, Priority};
use jiff::Timestamp;

use super::{
    Counts, MAX_RECIPIENTS, Messages, Queue, Queued, Rate, count,
    destinations::{Destination, Destinations},
    few::Few,
    moment::Moment,
};
use crate::route::{Limit, Mail, NextHop, Route, SenderClass};

/// Recipients of one message that are ready for one next hop.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) id: MessageId,
    pub(super) recipients: Few<u32>,
    pub(super) since: Moment,
    pub(super) priority: Priority,
    /// By which its lane was chosen.
    pub(super) sender: SenderClass,
    /// That of the last recipient, in whose line it stands, or what had its number when there is none any more.
    pub(super) destination: Destination,
    /// How many connections there may be while it waits.
    pub(super) max_connections: u16,
}

/// What recipients have in common that travel together: their next hop, and the limit of their domain if there is one.
type Together = (NextHop, Option<Domain>);

/// Recipients that travel together.
#[derive(Default)]
struct Grouped {
    max_connections: Option<usize>,
    destination: Destination,
    rate: Option<Rate>,
    together: Vec<u32>,
    alone: Vec<u32>,
}

impl Queue {
    /// Puts recipients, which are marked ready, into the lanes of their next hops.
    pub(super) fn ready(&mut self, id: MessageId, recipients: &[u32], now: Timestamp) {
        self.line_up(id, recipients, false, now);
    }

    /// The same. What is `first` had its turn, and has the next one of its domain.
    pub(super) fn line_up(&mut self, id: MessageId, recipients: &[u32], first: bool, now: Timestamp) {
        let Some(entry) = self.messages.get_mut(&id) else {
            return;
        };
        let (priority, sender, tried) = (entry.priority, entry.sender, entry.was_tried(recipients));
        let mut jobs: BTreeMap<Together, Grouped> = BTreeMap::new();
        for index in recipients {
            let Some((destination, alone)) = entry.list(*index, &self.destinations) else { continue };
            let Route { next_hop, max_connections, limit } =
                self.routes.route_to(Mail { id, sender }, self.destinations.host(destination));
            let (domain, rate) = limit.map(|Limit { domain, rate }| (domain, rate)).unzip();
            let together = self.destinations.lane_of(destination, next_hop.clone());
            let next_hop = if first { together } else { self.lanes.entrance(next_hop, together) };
            let job = jobs.entry((next_hop, domain)).or_default();
            // Where domains go together, the one that bears the fewest connections counts.
            job.max_connections = job.max_connections.into_iter().chain([max_connections]).min();
            (job.destination, job.rate) = (destination, rate);
            if alone { &mut job.alone } else { &mut job.together }.push(*index);
        }
        let Self { lanes, messages, destinations, counts, actions, .. } = self;
        for ((next_hop, domain), Grouped { max_connections, destination, rate, together, alone }) in jobs {
            let max_connections = max_connections.and_then(|max| max.try_into().ok()).unwrap_or(u16::MAX);
            let limit = domain.zip(rate).map(|(domain, rate)| Limit { domain, rate });
            for recipients in together.chunks(MAX_RECIPIENTS).chain(alone.chunks(1)) {
                let recipients = recipients.iter().copied().collect();
                let since = now.into();
                let ready = Ready { id, recipients, since, priority, sender, destination, max_connections };
                lanes.push(&next_hop, limit.clone(), ready, first);
            }
            if tried {
                lanes.doubt(&next_hop);
            }
            lanes.dispatch(
                &next_hop,
                now,
                &mut |ready| begin(messages, destinations, counts, &ready),
                actions,
            );
        }
    }
}

/// Takes the recipients that are still ready into a job. `None` if there are none: they were removed or have expired
/// in the meantime.
pub(super) fn begin(
    messages: &mut Messages,
    destinations: &Destinations,
    counts: &mut Counts,
    ready: &Ready,
) -> Option<Queued> {
    let entry = messages.get_mut(&ready.id)?;
    let before = entry.status();
    let indexes = ready.recipients.as_slice();
    let mut recipients = Vec::with_capacity(indexes.len());
    recipients.extend(indexes.iter().filter_map(|index| entry.take_off(*index, destinations)));
    if recipients.is_empty() {
        return None;
    }
    count(counts, before, Some(entry.status()));
    Some(Queued { sender: ready.sender, ..entry.job(ready.id, recipients, ready.since.into()) })
}
