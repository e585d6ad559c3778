//! One attempt: a job over the hosts of its next hop until every recipient has a result.

use std::{net::SocketAddr, sync::Arc};

use empath_common::{Envelope, ForwardPath, MessageId, Reply};
use empath_metrics::Gauge;
use empath_smtp::client::{self, Connection, FailureKind, Stage, Survey};
use empath_spool::Content;
use tokio::time::Instant;

use crate::{
    attempted::{Attempted, Tried, is_no_answer, turned_down},
    config::{Config, HostAddr},
    content::Outgoing,
    dsn::Arrived,
    failure::{Disposition, Failure, Scope, disposition},
    hosts::{Candidate, Own},
    order::{HASTE, Order, Turn},
    processor::Shared,
    queue::{ConnectionId, Job, JobRecipient},
    resolve::Resolver,
    route::NextHop,
};

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
    pub(crate) connection: ConnectionId,
    /// What all attempts share.
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
        let order = Order::of(outbound, rng).await;
        self.attempted.connect += started.elapsed();
        let mut order = match order {
            Ok(order) => order,
            Err(failure) => return self.fail(&failure, None),
        };
        while !self.left.is_empty() {
            let started = Instant::now();
            let Turn { candidate, hasty } = match order.next().await {
                None => return,
                Some(Err(failure)) => {
                    self.fail(&failure, None);
                    continue;
                }
                Some(Ok(turn)) if Some(turn.candidate.address) == used => continue,
                Some(Ok(turn)) => turn,
            };
            let connected = Open::connect(&candidate, outbound, hasty).await;
            self.attempted.connect += started.elapsed();
            match connected {
                Err((failure, _)) if hasty && started.elapsed() >= HASTE && is_no_answer(&failure) => {
                    order.put_last(candidate);
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
                self.attempted.hear(result);
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
