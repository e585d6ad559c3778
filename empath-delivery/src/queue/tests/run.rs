//! A queue and destinations, in virtual time.

use empath_common::Host;

use super::*;
use crate::config::DomainConfig;

pub(super) const FAILED: Fate = Fate::Due(Timestamp::MAX);

/// A queue that runs against a destination in virtual time.
pub(super) struct Run {
    pub(super) queue: Queue,
    pub(super) now: i64,
    pub(super) flying: Vec<(ConnectionId, Queued)>,
    /// When which message started.
    pub(super) started: Vec<(i64, u8)>,
    pub(super) next: u8,
}

impl Run {
    pub(super) fn new(config: &Config) -> Self {
        let (queue, flying, started) = (configured(config), Vec::new(), Vec::new());
        Self { queue, now: 0, flying, started, next: 0 }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now).unwrap()
    }

    pub(super) fn accept(&mut self, count: u8, domain: &str) {
        for _ in 0..count {
            self.next += 1;
            let envelope = envelope(self.now(), &[&format!("u@{domain}")]);
            self.queue.accept(id(self.next), envelope, &Bytes::from_static(b"x\r\n").into(), self.now());
        }
        self.take();
    }

    pub(super) fn take(&mut self) {
        for (connection, job) in jobs(&mut self.queue) {
            self.took(connection, job);
        }
    }

    pub(super) fn took(&mut self, connection: ConnectionId, job: Queued) {
        self.started.push((self.now, job.id.to_bytes()[0]));
        self.flying.push((connection, job));
    }

    /// The oldest job in flight comes to this.
    pub(super) fn finish(&mut self, outcome: Outcome, fate: Fate) {
        let (connection, job) = self.flying.remove(0);
        let now = self.now();
        let hosts = self.queue.snapshot(job.id).map(|message| message.hosts).unwrap_or_default();
        let domain = hosts.into_iter().find_map(|host| match host {
            Some(Host::Domain(domain)) => Some(domain),
            _ => None,
        });
        settle(&mut self.queue, &job, fate, now);
        self.queue.report(connection, outcome, domain.as_ref(), now);
        match self.queue.next(connection, now) {
            Next::Job(job) => self.took(connection, job),
            Next::Idle if outcome != Outcome::Good => drop(self.queue.leave(connection, now)),
            Next::Idle | Next::Close => {}
        }
        self.take();
    }

    /// The n-th job in flight waits for name servers, and whoever waits for a place may have its own.
    pub(super) fn give_way(&mut self, n: usize) -> bool {
        let (now, (connection, job)) = (self.now(), &self.flying[n]);
        let goes = self.queue.give_way(*connection, job.id, &job.recipients, now);
        self.take();
        goes
    }

    /// It needs a place again.
    pub(super) fn come_back(&mut self, n: usize) -> Option<bool> {
        let (now, (connection, job)) = (self.now(), &self.flying[n]);
        let back = self.queue.come_back(*connection, job.id, &job.recipients, now);
        if back == Some(false) {
            self.flying.remove(n);
        }
        self.take();
        back
    }

    pub(super) fn deliver_all(&mut self) {
        while !self.flying.is_empty() {
            self.finish(Outcome::Good, DELIVERED);
        }
    }

    /// Lets time pass until something is due; what starts is delivered at once. The moment, in milliseconds.
    pub(super) fn tick(&mut self) -> i64 {
        let due = self.queue.poll(self.now());
        self.take();
        self.deliver_all();
        let due = due.min(self.queue.poll(self.now()));
        self.now = self.now.max(due.as_millisecond());
        self.queue.poll(self.now());
        self.take();
        self.now
    }

    pub(super) fn events(&mut self) -> Vec<String> {
        let shown = |event| match event {
            Event::RateLimited { domain } => format!("limited {domain}"),
            Event::Breaker { domain, state, .. } => format!("{domain} {state:?}"),
        };
        self.queue.take_events().into_iter().map(shown).collect()
    }

    pub(super) fn obstacle(&self, number: u8) -> Obstacle {
        self.queue.obstacle(id(number), 0, self.now()).unwrap()
    }
}

pub(super) fn domain(config: &mut Config, name: &str, domain: DomainConfig) {
    config.domains.insert(name.parse().unwrap(), domain);
}

pub(super) fn limited(per_minute: u32, burst: u32) -> DomainConfig {
    DomainConfig { rate_limit: Some(per_minute), rate_burst: Some(burst), ..DomainConfig::default() }
}
