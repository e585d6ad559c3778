//! One attempt: a job over the hosts of its next hop until every recipient has a result.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use empath_common::{Envelope, ForwardPath, MessageId, Reply};
use empath_metrics::Gauge;
use empath_smtp::client::{self, Connection, FailureKind, Stage, Survey};
use empath_spool::Content;
use tokio::time::Instant;

use crate::{
    config::{Config, HostAddr},
    content::Outgoing,
    dsn::Arrived,
    failure::{Class, Disposition, Failure, Scope, disposition},
    hosts::{Candidate, Hosts, Own},
    processor::Shared,
    queue::{Job, JobRecipient, Outcome},
    resolve::Resolver,
    route::NextHop,
};

/// How long connecting to a host may take while there are others: a second SYN has been answered or lost by then (RFC 6298
/// §2.1). The host has the usual time when nobody else took the message.
pub(crate) const HASTE: Duration = Duration::from_secs(3);

/// What attempts need besides the job.
pub(crate) struct Outbound<'a> {
    pub(crate) next_hop: &'a NextHop,
    pub(crate) helo: &'a str,
    pub(crate) config: &'a Config,
    pub(crate) timeouts: &'a Arc<client::Timeouts>,
    pub(crate) resolver: &'a Resolver,
    pub(crate) own: &'a Own,
    /// Connections to the next hop.
    pub(crate) active: &'a Gauge,
    /// For everything that attempts share.
    pub(crate) shared: &'a Arc<Shared>,
}

/// The host at the other end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As it is shown: `mx1.example.test[192.0.2.1]:25`.
    pub(crate) shown: String,
    pub(crate) host: HostAddr,
}

/// A greeted connection, counted as long as it exists.
pub(crate) struct Open {
    connection: Connection,
    peer: Arc<Peer>,
    since: Instant,
    messages: u32,
    active: Active,
}

/// Counts a connection until it is dropped.
struct Active(Gauge);

impl Active {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment();
        Self(gauge.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

/// What one attempt has come to.
pub(crate) struct Attempted {
    /// One for each recipient of the job.
    pub(crate) results: Vec<Tried>,
    /// Places of recipients that should not share a transaction again: it failed as a whole, maybe by the fault of one.
    pub(crate) alone: Vec<u32>,
    /// Time spent on finding and connecting to hosts.
    pub(crate) connect: Duration,
    /// Time spent in transactions.
    pub(crate) transfer: Duration,
    /// Connections of no more use, to take leave of.
    pub(crate) spare: Vec<Open>,
    /// What it says about the destination.
    pub(crate) outcome: Outcome,
    /// Whether a host came to hear of the recipients.
    begun: bool,
}

impl Attempted {
    /// Without any result yet.
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            results: Vec::with_capacity(job.recipients.len()),
            alone: Vec::new(),
            connect: Duration::ZERO,
            transfer: Duration::ZERO,
            spare: Vec::new(),
            outcome: Outcome::Unknown,
            begun: false,
        }
    }

    /// The same failure for all, before any host was asked.
    pub(crate) fn all(job: &Job, failure: &Failure) -> Self {
        let failed = |recipient: &JobRecipient| Tried {
            recipient: *recipient,
            result: Err(failure.clone()),
            peer: None,
            arrived: None,
        };
        Self { results: job.recipients.iter().map(failed).collect(), ..Self::new(job) }
    }

    /// Learns what a host did.
    fn learn(&mut self, outcome: Outcome) {
        // One host that listens is enough. Of those that don't, one that has too many of our connections says more.
        let rank = |outcome| match outcome {
            Outcome::Unknown => 0,
            Outcome::Failed => 1,
            Outcome::TurnedAway => 2,
            Outcome::Good => 3,
        };
        if rank(outcome) > rank(self.outcome) {
            self.outcome = outcome;
        }
    }

    /// Whether there was no transaction, because the destination wants no more connections at present.
    pub(crate) fn is_turned_away(&self) -> bool {
        self.outcome == Outcome::TurnedAway && !self.begun
    }

    /// Whether a recipient did not get the message because it could not be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.results
            .iter()
            .any(|tried| tried.result.as_ref().is_err_and(|found| *found == Failure::unreadable()))
    }

    /// Says what has become of a message that could not be read.
    pub(crate) fn unreadable_is(&mut self, failure: &Failure) {
        for tried in &mut self.results {
            if let Err(found) = &mut tried.result
                && *found == Failure::unreadable()
            {
                *found = failure.clone();
            }
        }
    }
}

/// What one attempt has come to for one recipient.
pub(crate) struct Tried {
    pub(crate) recipient: JobRecipient,
    pub(crate) result: Result<Reply, Failure>,
    /// Who said so.
    pub(crate) peer: Option<Arc<Peer>>,
    /// How the message arrived, unless the next hop sees to telling the sender.
    pub(crate) arrived: Option<Arrived>,
}

/// Makes an attempt. `open` is a connection from an earlier one, and the connection for the next one afterwards.
pub(crate) async fn attempt(
    outbound: &Outbound<'_>,
    open: &mut Option<Open>,
    job: &Job,
    content: &Content,
    rng: &mut fastrand::Rng,
) -> Attempted {
    let Ok(survey) = Survey::of(Outgoing::new(job.id, content)).await else {
        return Attempted::all(job, &Failure::unreadable());
    };
    let mut attempt = Attempt::new(job, content, survey);
    let mut used = None;
    if let Some(mut reused) = open.take() {
        used = Some(reused.connection.peer());
        let reusable = attempt.transfer(&mut reused, true).await;
        if attempt.begun() {
            outbound.shared.metrics.pool_hits.increment();
        }
        if reusable {
            *open = Some(reused);
        } else if !attempt.begun() {
            // An idle connection closed by the peer is not a failure: the host gets a fresh one.
            used = None;
        }
    }
    if !attempt.left.is_empty() {
        attempt.hosts(outbound, open, used, rng).await;
    }
    attempt.finish()
}

struct Attempt<'a> {
    id: MessageId,
    envelope: &'a Envelope,
    content: &'a Content,
    survey: Survey,
    /// Recipients that the next host is tried for, each with what went wrong before.
    left: Vec<Left>,
    attempted: Attempted,
}

struct Left {
    recipient: JobRecipient,
    failed: Option<(Failure, Option<Arc<Peer>>)>,
}

impl<'a> Attempt<'a> {
    fn new(job: &'a Job, content: &'a Content, survey: Survey) -> Self {
        let left = |recipient: &JobRecipient| Left { recipient: *recipient, failed: None };
        Self {
            id: job.id,
            envelope: &job.envelope,
            content,
            survey,
            left: job.recipients.iter().map(left).collect(),
            attempted: Attempted::new(job),
        }
    }

    /// Whether any host has said anything about any recipient.
    fn begun(&self) -> bool {
        !self.attempted.results.is_empty() || self.left.iter().any(|left| left.failed.is_some())
    }

    async fn hosts(
        &mut self,
        outbound: &Outbound<'_>,
        open: &mut Option<Open>,
        used: Option<SocketAddr>,
        rng: &mut fastrand::Rng,
    ) {
        let started = Instant::now();
        let hosts =
            Hosts::of(outbound.next_hop, outbound.config.mx_port, outbound.resolver, outbound.own, rng).await;
        self.attempted.connect += started.elapsed();
        let mut hosts = match hosts {
            Ok(hosts) => hosts,
            Err(failure) => return self.fail(&failure, None),
        };
        // Hosts that could not be reached lately, or not soon enough while there are others.
        let mut last = VecDeque::new();
        while !self.left.is_empty() {
            let started = Instant::now();
            let (candidate, first) = match hosts.next().await {
                Some(Err(failure)) => {
                    self.fail(&failure, None);
                    continue;
                }
                Some(Ok(candidate)) if Some(candidate.address) == used => continue,
                Some(Ok(candidate)) => (candidate, true),
                None => match last.pop_front() {
                    Some(candidate) => (candidate, false),
                    None => return,
                },
            };
            if first && outbound.shared.is_sick(candidate.address) {
                last.push_back(candidate);
                continue;
            }
            let hasty = first && (hosts.has_more() || !last.is_empty());
            let connected = Open::connect(&candidate, outbound, hasty).await;
            self.attempted.connect += started.elapsed();
            match connected {
                Err((failure, _)) if hasty && started.elapsed() >= HASTE && is_no_answer(&failure) => {
                    last.push_back(candidate);
                }
                Err((failure, peer)) => {
                    self.attempted.learn(turned_down(&failure));
                    self.fail(&failure, Some(&peer));
                }
                Ok(mut fresh) => {
                    if self.transfer(&mut fresh, false).await {
                        // One is kept: the first, which is of the better host.
                        let spare = if open.is_none() { open.replace(fresh) } else { Some(fresh) };
                        self.attempted.spare.extend(spare);
                    }
                }
            }
        }
    }

    /// Offers the message to a host for the recipients that are left. False if the connection is of no more use.
    async fn transfer(&mut self, open: &mut Open, reused: bool) -> bool {
        let started = Instant::now();
        let mut round = std::mem::take(&mut self.left);
        loop {
            let message = self.outgoing(&round);
            open.messages += 1;
            let sent = open.connection.send(&message, Outgoing::new(self.id, self.content)).await;
            if reused && sent.recipients.iter().all(is_stale) {
                self.left.append(&mut round);
                self.attempted.transfer += started.elapsed();
                return false;
            }
            let delivered = sent.recipients.iter().any(Result::is_ok);
            let several = round.len() > 1;
            for result in &sent.recipients {
                self.attempted.learn(said(result));
                self.attempted.begun |= !matches!(
                    result,
                    Err(client::Failure { stage: Stage::MailFrom, kind: FailureKind::Refused(_) })
                );
            }
            let mut again = Vec::new();
            for (left, result) in round.drain(..).zip(sent.recipients) {
                match result {
                    Ok(reply) => self.attempted.results.push(Tried {
                        recipient: left.recipient,
                        result: Ok(reply),
                        peer: Some(Arc::clone(&open.peer)),
                        arrived: Some(Arrived::Relayed).filter(|_| !sent.notifies),
                    }),
                    // RFC 5321 §4.5.3.1.10: the server takes the rest in another transaction. Each takes some.
                    Err(failure) if delivered && sent.reusable && is_too_many(&failure) => again.push(left),
                    // No other host can help.
                    Err(client::Failure { kind: FailureKind::Unreadable, .. }) => {
                        let result = Err(Failure::unreadable());
                        self.attempted.results.push(Tried {
                            recipient: left.recipient,
                            result,
                            peer: None,
                            arrived: None,
                        });
                    }
                    Err(failure) => {
                        if several && is_unclear(&failure) {
                            self.attempted.alone.push(left.recipient.index);
                        }
                        self.failed(left, failure.into(), Some(&open.peer));
                    }
                }
            }
            if again.is_empty() {
                self.attempted.transfer += started.elapsed();
                return sent.reusable;
            }
            round = again;
        }
    }

    fn outgoing(&self, round: &[Left]) -> client::Outgoing {
        let path = |left: &Left| self.envelope.recipients().get(left.recipient.index as usize).cloned();
        let asked = |left: &Left| self.envelope.notification_of(left.recipient.index as usize).clone();
        client::Outgoing {
            reverse_path: self.envelope.reverse_path.clone(),
            // The index was made from this envelope; whatever happens, results must stay in step.
            recipients: round.iter().map(|left| path(left).unwrap_or(ForwardPath::Postmaster)).collect(),
            body: self.envelope.body,
            smtputf8: self.envelope.smtputf8,
            notification: self.envelope.notification().clone(),
            notifications: round.iter().map(asked).collect(),
            survey: self.survey,
        }
    }

    /// All that are left failed in the same way.
    fn fail(&mut self, failure: &Failure, peer: Option<&Arc<Peer>>) {
        for left in std::mem::take(&mut self.left) {
            self.failed(left, failure.clone(), peer);
        }
    }

    fn failed(&mut self, left: Left, failure: Failure, peer: Option<&Arc<Peer>>) {
        let Left { recipient, failed } = left;
        if disposition(&failure, true) == Disposition::TryNextHost {
            let later = (failure, peer.cloned());
            let failed = match failed {
                Some((earlier, host)) if earlier.outweighs(&later.0) => (earlier, host),
                _ => later,
            };
            self.left.push(Left { recipient, failed: Some(failed) });
        } else {
            self.attempted.results.push(Tried {
                recipient,
                result: Err(failure),
                peer: peer.cloned(),
                arrived: None,
            });
        }
    }

    fn finish(mut self) -> Attempted {
        for Left { recipient, failed } in self.left {
            let (failure, peer) = failed.unwrap_or_else(|| {
                (Failure::new(Scope::Destination, (4, 4, 0), "there was no host to try"), None)
            });
            self.attempted.results.push(Tried { recipient, result: Err(failure), peer, arrived: None });
        }
        self.attempted
    }
}

/// Whether the host gave no answer that could be understood.
fn is_no_answer(failure: &Failure) -> bool {
    failure.reply.is_none() && failure.scope == Scope::Host && failure.class == Class::Transient
}

/// What a connection that did not come about says about the host. One that never wants us is not ill.
fn turned_down(failure: &Failure) -> Outcome {
    match &failure.reply {
        _ if failure.class == Class::Permanent => Outcome::Unknown,
        Some(reply) if reply.code.get() == 421 => Outcome::TurnedAway,
        _ => Outcome::Failed,
    }
}

/// What a host's answer about a recipient says about the host.
fn said(result: &Result<Reply, client::Failure>) -> Outcome {
    match result {
        Ok(_) => Outcome::Good,
        Err(client::Failure { kind, stage }) => match kind {
            FailureKind::Unreadable => Outcome::Unknown,
            FailureKind::Unsupported(_) => Outcome::Good,
            FailureKind::Refused(reply) if reply.code.get() != 421 => Outcome::Good,
            FailureKind::Refused(_) if *stage == Stage::MailFrom => Outcome::TurnedAway,
            _ => Outcome::Failed,
        },
    }
}

/// The peer had given the connection up before it saw the message.
fn is_stale(result: &Result<Reply, client::Failure>) -> bool {
    match result {
        Err(client::Failure { stage: Stage::MailFrom, kind }) => match kind {
            FailureKind::Closed | FailureKind::Io(_) => true,
            FailureKind::Refused(reply) => reply.code.get() == 421,
            _ => false,
        },
        _ => false,
    }
}

/// The transaction failed without an answer that says whom it is about.
fn is_unclear(failure: &client::Failure) -> bool {
    matches!(failure.stage, Stage::RcptTo | Stage::Data | Stage::EndOfData)
        && matches!(failure.kind, FailureKind::Garbled(_) | FailureKind::Closed | FailureKind::Timeout)
}

fn is_too_many(failure: &client::Failure) -> bool {
    match failure {
        client::Failure { stage: Stage::RcptTo, kind: FailureKind::Refused(reply) } => {
            matches!(reply.code.get(), 452 | 552)
        }
        _ => false,
    }
}

impl Open {
    async fn connect(
        candidate: &Candidate,
        outbound: &Outbound<'_>,
        hasty: bool,
    ) -> Result<Self, (Failure, Arc<Peer>)> {
        let Candidate { host, address } = candidate;
        let shown = match host {
            HostAddr::Name(name) => format!("{name}[{}]:{}", address.ip(), address.port()),
            HostAddr::Ip(_) => address.to_string(),
        };
        let peer = Arc::new(Peer { shown, host: host.clone() });
        let timeouts = if hasty { &outbound.shared.hasty } else { outbound.timeouts };
        match Connection::open(*address, outbound.helo, Arc::clone(timeouts)).await {
            Ok(connection) => {
                outbound.shared.is_well(*address);
                outbound.shared.metrics.pool_misses.increment();
                let active = Active::new(outbound.active);
                Ok(Self { connection, peer, since: Instant::now(), messages: 0, active })
            }
            Err(failure) => {
                let failure = failure.into();
                if is_no_answer(&failure) {
                    outbound.shared.is_ill(*address);
                }
                Err((failure, peer))
            }
        }
    }

    /// Whether it may take another message.
    pub(crate) fn may_continue(&self, config: &Config) -> bool {
        let pool = &config.connection_pool;
        self.messages < pool.max_messages && self.since.elapsed() < pool.max_age
    }

    /// Completes when the peer gives the idle connection up.
    pub(crate) async fn closed(&mut self) {
        self.connection.closed().await;
    }

    /// Takes leave. It bounds its time itself.
    pub(crate) async fn quit(self) {
        let Self { connection, active, .. } = self;
        connection.quit().await;
        drop(active);
    }
}
