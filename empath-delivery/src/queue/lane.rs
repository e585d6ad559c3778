use std::collections::{BTreeMap, VecDeque};

use empath_common::Domain;
use jiff::Timestamp;

use super::{
    Queued,
    breaker::{Breaker, BreakerState},
    classes::{CLASSES, Classes},
    destinations::Destination,
    lanes::ConnectionId,
    load::Load,
    places::{Standing, Ticket},
    rate::{Limiter, Rate},
    ready::Ready,
    window::Window,
};
use crate::{config::CircuitBreaker, route::Limit};

/// One destination that is served as a unit.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What no limit of its domain applies to.
    ready: Classes,
    /// The other mail by its domain. A flow has mail.
    flows: BTreeMap<Domain, Flow>,
    /// Flows that do not wait for a token, as far as is known; they take turns.
    open: VecDeque<Domain>,
    /// Of what does not wait for a token.
    load: Load,
    /// Whether it is the turn of a flow.
    flows_turn: bool,
    /// Connections, idle ones included.
    pub(super) connections: usize,
    pub(super) idle: Vec<ConnectionId>,
    /// Its place in the line of those that wait for a connection.
    pub(super) waiting: Option<Ticket>,
    /// What its last attempts say.
    pub(super) standing: Standing,
    /// Whether it stands in the line of those that wait for a token of all mail.
    pub(super) throttled: bool,
    pub(super) window: Window,
    pub(super) breaker: Breaker,
    /// Whose mail failed first, since the last success.
    pub(super) domain: Option<Domain>,
    /// Nobody needs it but for what its breaker knows, and not for longer than this.
    pub(super) keep_until: Option<Timestamp>,
    /// When the timer goes off that was set for that.
    pub(super) alarm: Option<Timestamp>,
}

/// Mail for a domain that has a limit.
#[derive(Debug)]
struct Flow {
    rate: Rate,
    ready: Classes,
    load: Load,
    /// When the token comes that it waits for.
    until: Option<Timestamp>,
}

/// What is ready in a lane for one domain.
#[derive(Debug)]
pub(super) struct Share {
    ready: [VecDeque<Ready>; CLASSES],
    limited: Option<Flow>,
    /// Of several recipients: some may be in other domains, which had the same hosts.
    pub(super) several: Vec<Ready>,
}

impl Share {
    /// All of it.
    pub(super) fn into_classes(self, destination: Destination) -> impl Iterator<Item = Classes> {
        let mut ready = Classes::default();
        ready.append(destination, self.ready);
        self.several.into_iter().for_each(|several| ready.push_back(several));
        std::iter::once(ready).chain(self.limited.map(|flow| flow.ready))
    }
}

/// What a lane has to do.
pub(super) enum Popped {
    /// This, with a token of that domain.
    Job(Queued, Option<Domain>),
    /// Nothing before this domain gets its next token.
    Wait(Domain, Timestamp),
    /// Nothing.
    Nothing,
}

impl Lane {
    pub(super) fn new(standing: Standing) -> Self {
        Self { standing, ..Self::default() }
    }

    /// What is `first` had its turn, and has the next one of its domain.
    pub(super) fn push(&mut self, ready: Ready, limit: Option<Limit>, first: bool) {
        let line = match limit {
            None => {
                self.load.enter(&ready);
                &mut self.ready
            }
            Some(Limit { domain, rate }) => {
                let flow = flow_of(&mut self.flows, &mut self.open, domain, rate);
                flow.load.enter(&ready);
                if flow.until.is_none() {
                    self.load.enter(&ready);
                }
                &mut flow.ready
            }
        };
        if first { line.push_front(ready) } else { line.push_back(ready) }
    }

    /// Takes out what is ready for a domain.
    pub(super) fn take(&mut self, destination: Destination, domain: &Domain) -> Share {
        let (ready, limited) = (self.ready.take(destination), self.flows.remove(domain));
        let mut share = Share { ready, limited, several: Vec::new() };
        self.open.retain(|other| other != domain);
        share.ready.iter().flatten().for_each(|ready| self.load.leave(ready));
        for line in &mut share.ready {
            let (several, one): (VecDeque<_>, _) =
                std::mem::take(line).into_iter().partition(|ready| ready.recipients.as_slice().len() > 1);
            *line = one;
            share.several.extend(several);
        }
        if let Some(flow) = share.limited.as_ref().filter(|flow| flow.until.is_none()) {
            self.load.part(&flow.load);
        }
        share
    }

    /// Puts what is ready for a domain behind what there is of it.
    pub(super) fn give(&mut self, destination: Destination, domain: &Domain, share: Share) {
        share.ready.iter().flatten().for_each(|ready| self.load.enter(ready));
        self.ready.append(destination, share.ready);
        if let Some(Flow { rate, ready: mut limited, .. }) = share.limited {
            while let Some(ready) = limited.pop_front() {
                self.push(ready, Some(Limit { domain: domain.clone(), rate }), false);
            }
        }
    }

    /// Takes all that is ready out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Classes> + use<> {
        let flows = std::mem::take(&mut self.flows).into_values().map(|flow| flow.ready);
        let all = std::iter::once(std::mem::take(&mut self.ready)).chain(flows);
        self.open.clear();
        self.load.clear();
        all.filter(|ready| !ready.is_empty())
    }

    /// Whether something is ready that does not wait for a token of its domain.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.open.is_empty()
    }

    /// Whether nothing is ready at all.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.flows.is_empty()
    }

    /// What keeps mail for a domain from starting. `token` is when the next token of all mail comes.
    pub(super) fn obstacle(
        &self,
        domain: Option<&Domain>,
        token: Timestamp,
        config: &CircuitBreaker,
    ) -> Obstacle {
        match self.breaker.state() {
            BreakerState::Open { until } => return Obstacle::Breaker { until: Some(until) },
            BreakerState::HalfOpen if !self.breaker.admits(config) => {
                return Obstacle::Breaker { until: None };
            }
            BreakerState::HalfOpen | BreakerState::Closed => {}
        }
        if let Some(until) = domain.and_then(|domain| self.flows.get(domain)?.until) {
            return Obstacle::Rate { until, common: false };
        }
        if self.throttled {
            return Obstacle::Rate { until: token, common: true };
        }
        let busy = self.connections.saturating_sub(self.idle.len());
        if self.waiting.is_some() || (self.idle.is_empty() && busy >= self.allowed()) {
            return Obstacle::Busy { connections: busy, allowed: self.allowed(), ready: self.load.len() };
        }
        Obstacle::None
    }

    /// The token of a domain may be there.
    pub(super) fn pass(&mut self, domain: &Domain, now: Timestamp) {
        if let Some(flow) = self.flows.get_mut(domain)
            && flow.until.is_some_and(|until| until <= now)
        {
            flow.until = None;
            self.load.join(&flow.load);
            self.open.push_back(domain.clone());
        }
    }

    /// A domain may have its token earlier than was said. Whether it waits for one.
    pub(super) fn hasten(&mut self, domain: &Domain, at: Timestamp) -> bool {
        let until = self.flows.get_mut(domain).and_then(|flow| flow.until.as_mut());
        until.map(|until| *until = at.min(*until)).is_some()
    }

    /// Most connections that the configuration allows.
    pub(super) fn max_connections(&self) -> usize {
        self.load.max_connections()
    }

    /// Most connections at present.
    pub(super) fn allowed(&self) -> usize {
        self.window.size(self.max_connections())
    }

    /// The next job, with the token of its domain taken. `begin` makes a job of what is ready, or says that nobody wants it
    /// any more.
    pub(super) fn pop(
        &mut self,
        limiter: &mut Limiter,
        now: Timestamp,
        begin: &mut impl FnMut(Ready) -> Option<Queued>,
    ) -> Popped {
        loop {
            if self.open.is_empty() || (!self.flows_turn && !self.ready.is_empty()) {
                self.flows_turn = true;
                match self.ready.pop_front() {
                    None => return Popped::Nothing,
                    Some(ready) => {
                        self.load.leave(&ready);
                        match begin(ready) {
                            Some(job) => return Popped::Job(job, None),
                            None => continue,
                        }
                    }
                }
            }
            self.flows_turn = false;
            let Some(domain) = self.open.pop_front() else { continue };
            let Some(flow) = self.flows.get_mut(&domain) else { continue };
            if let Some(until) = limiter.next_token_of(&domain, flow.rate, now) {
                flow.until = Some(until);
                self.load.part(&flow.load);
                return Popped::Wait(domain, until);
            }
            let mut job = None;
            while job.is_none()
                && let Some(ready) = flow.ready.pop_front()
            {
                self.load.leave(&ready);
                flow.load.leave(&ready);
                job = begin(ready);
            }
            if job.is_some() {
                limiter.take_of(&domain, flow.rate, now);
            }
            if flow.ready.is_empty() {
                self.flows.remove(&domain);
            } else {
                self.open.push_back(domain.clone());
            }
            if let Some(job) = job {
                return Popped::Job(job, Some(domain));
            }
        }
    }
}

/// That of a domain, for something to be put there.
fn flow_of<'a>(
    flows: &'a mut BTreeMap<Domain, Flow>,
    open: &mut VecDeque<Domain>,
    domain: Domain,
    rate: Rate,
) -> &'a mut Flow {
    let flow = flows.entry(domain).or_insert_with_key(|domain| {
        open.push_back(domain.clone());
        Flow { rate, ready: Classes::default(), load: Load::default(), until: None }
    });
    flow.rate = rate;
    flow
}

/// What keeps ready mail from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing; it starts at once.
    None,
    /// An operator lets nothing start to its domain.
    Frozen,
    /// All connections are in use.
    Busy {
        /// How many there are to the destination.
        connections: usize,
        /// How many there may be at present.
        allowed: usize,
        /// How much mail for it waits for one.
        ready: usize,
    },
    /// A rate limit.
    Rate {
        /// When the next message may go.
        until: Timestamp,
        /// It is that of all mail.
        common: bool,
    },
    /// The breaker of the destination.
    Breaker {
        /// The end of the pause; `None` while the destination is probed.
        until: Option<Timestamp>,
    },
}
