//! One attempt: a job over the hosts of its next hop until every recipient has a result.

use std::sync::Arc;

use empath_common::{Domain, Envelope, ForwardPath, MessageId};
use empath_smtp::client::{self, FailureKind, Limits, Protocol, Survey, Target};
use empath_spool::Content;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    attempted::{Attempted, Tried, is_about_chunks, is_stale, is_too_many, is_unclear, turned_down},
    config::Config,
    content::Outgoing,
    dsn::Arrived,
    failure::{Disposition, Failure, Scope, disposition},
    hosts::{Candidate, Own},
    open::{Network, Open, Peer},
    order::{HASTE, Order, Turn},
    processor::Shared,
    queue::{ConnectionId, Job, JobRecipient},
    resolve::Resolver,
    route::{NextHop, Terms},
};

/// What attempts need besides the job.
pub(crate) struct Outbound<'a> {
    pub(crate) next_hop: &'a NextHop,
    /// Those of the next hop.
    pub(crate) terms: &'a Arc<Terms>,
    pub(crate) network: &'a Network,
    /// Our own name, in EHLO too.
    pub(crate) hostname: &'a Domain,
    pub(crate) config: &'a Config,
    pub(crate) timeouts: &'a Arc<client::Timeouts>,
    /// For hosts while there are others.
    pub(crate) hasty: &'a Arc<client::Timeouts>,
    pub(crate) resolver: &'a Resolver,
    pub(crate) own: &'a Own,
    /// What is in flight is given up.
    pub(crate) aborting: &'a CancellationToken,
    pub(crate) connection: ConnectionId,
    /// What all attempts share.
    pub(crate) shared: &'a Arc<Shared>,
}

/// Makes an attempt. `open` is a connection from an earlier one, and the connection for the next one afterwards.
///
/// One that is given up has results for those recipients alone whose results are known; for the others it has not begun.
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
    if outbound.aborting.run_until_cancelled(attempt.run(outbound, open, rng)).await.is_none() {
        attempt.left.clear();
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
    /// Those that the present host has not been asked for: the connection took no more.
    unasked: Vec<Left>,
    /// Some host offers CHUNKING and doesn't know it.
    in_dots: bool,
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
            unasked: Vec::new(),
            in_dots: false,
            attempted: Attempted::new(job),
        }
    }

    async fn run(&mut self, outbound: &Outbound<'_>, open: &mut Option<Open>, rng: &mut fastrand::Rng) {
        let mut used = None;
        if let Some(mut reused) = open.take() {
            used = Some(reused.connection.peer().clone());
            let reusable = self.transfer(&mut reused, true).await;
            if self.begun() {
                outbound.shared.metrics.pool_hits.increment();
            }
            if reusable {
                *open = Some(reused);
            } else if !self.unasked.is_empty() {
                // An idle connection closed by the peer is not a failure: the host gets a fresh one.
                used = None;
            }
            self.left.append(&mut self.unasked);
        }
        if !self.left.is_empty() {
            self.hosts(outbound, open, used, rng).await;
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
        used: Option<Target>,
        rng: &mut fastrand::Rng,
    ) {
        let started = Instant::now();
        let order = tokio::select! {
            order = Order::of(outbound, rng) => order,
            () = outbound.shared.stopped() => return self.left.clear(),
        };
        self.attempted.connect += started.elapsed();
        let mut order = match order {
            Ok(order) => order,
            Err(failure) => return self.fail(&failure, None),
        };
        while !self.left.is_empty() {
            let started = Instant::now();
            let turn = tokio::select! {
                turn = order.next(self.attempted.has_listened()) => turn,
                // Nothing has begun there: the next start finds the recipients as they were.
                () = outbound.shared.stopped() => return self.left.clear(),
            };
            let Turn { candidate, hasty } = match turn {
                None => break,
                Some(Err(failure)) => {
                    self.fail(&failure, None);
                    continue;
                }
                Some(Ok(turn)) if used.as_ref() == Some(&turn.candidate.target) => continue,
                Some(Ok(turn)) => turn,
            };
            if !self.host(&candidate, hasty, outbound, open, started).await {
                order.put_last(candidate);
            }
        }
        if let Some(source) = order.out_of_reach()
            && !self.begun()
        {
            self.fail(&Failure::out_of_reach(source), None);
        }
    }

    /// Offers the message to a host, over as many connections as it needs for all recipients. False if it did not answer in
    /// haste.
    async fn host(
        &mut self,
        candidate: &Candidate,
        hasty: bool,
        outbound: &Outbound<'_>,
        open: &mut Option<Open>,
        mut started: Instant,
    ) -> bool {
        let mut elsewhere = Vec::new();
        loop {
            // The next attempt has the usual time, so a host that is slow does get its mail.
            let first = self.left.iter().all(|left| left.recipient.attempts == 0);
            let pressed = first && outbound.shared.is_pressed();
            let connected = tokio::select! {
                connected =
                    Open::connect(candidate, outbound, self.domain(outbound), hasty || pressed) => connected,
                () = outbound.shared.pressed(), if first => Err(Open::give_up(candidate, outbound)),
                () = outbound.shared.stopped() => {
                    self.left.clear();
                    return true;
                }
            };
            self.attempted.connect += started.elapsed();
            match connected {
                Err((failure, _))
                    if hasty && !pressed && started.elapsed() >= HASTE && failure.is_no_answer() =>
                {
                    self.left.append(&mut elsewhere);
                    return false;
                }
                Err((failure, peer)) => {
                    self.attempted.learn(turned_down(&failure));
                    self.fail(&failure, Some(&peer));
                }
                Ok(mut fresh) => {
                    fresh.connection.forgo(false, self.in_dots);
                    if self.transfer(&mut fresh, false).await {
                        // One is kept: the first, which is of the better host.
                        let spare = if open.is_none() { open.replace(fresh) } else { Some(fresh) };
                        self.attempted.spare.extend(spare);
                    }
                }
            }
            elsewhere.append(&mut self.left);
            self.left = std::mem::take(&mut self.unasked);
            if self.left.is_empty() {
                self.left = elsewhere;
                return true;
            }
            started = Instant::now();
        }
    }

    /// The domain that the mail is for, or one of them.
    fn domain<'b>(&'b self, outbound: &'b Outbound<'_>) -> &'b Domain {
        let first = self.left.first().and_then(|left| self.path(left));
        first.and_then(ForwardPath::domain).unwrap_or(outbound.hostname)
    }

    fn path(&self, left: &Left) -> Option<&'a ForwardPath> {
        self.envelope.recipients().get(left.recipient.index as usize)
    }

    /// Offers the message to a host for the recipients that are left. False if the connection is of no more use.
    async fn transfer(&mut self, open: &mut Open, reused: bool) -> bool {
        let started = Instant::now();
        let mut round = std::mem::take(&mut self.left);
        // Whether the connection is known to have been of use. One that has then gone is no failure: a fresh one may be of use too.
        let mut proven = reused;
        loop {
            let mut later = self.beyond(&mut round, open.connection.offered().limits);
            let message = self.outgoing(&round);
            let chunked = open.connection.offered().chunking;
            open.messages += 1;
            let sent = open.connection.send(&message, Outgoing::new(self.id, self.content)).await;
            if proven && sent.recipients.iter().any(is_stale) {
                round.append(&mut later);
                self.unasked = round;
                self.attempted.transfer += started.elapsed();
                return false;
            }
            let delivered = sent.recipients.iter().any(Result::is_ok);
            proven |= delivered;
            // RFC 2033 §1: what an LMTP server has taken is in its place.
            let arrived = match open.connection.protocol() {
                Protocol::Smtp => Arrived::Relayed,
                Protocol::Lmtp => Arrived::Delivered,
            };
            let several = round.len() > 1;
            for result in &sent.recipients {
                self.attempted.hear(result, open.footing);
            }
            let (mut again, mut broken) = (Vec::new(), None);
            for (left, result) in round.drain(..).zip(sent.recipients) {
                match result {
                    Ok(reply) => self.attempted.results.push(Tried {
                        recipient: left.recipient,
                        result: Ok(reply),
                        peer: Some(Arc::clone(&open.peer)),
                        arrived: Some(arrived).filter(|_| !sent.notifies),
                    }),
                    // RFC 5321 §4.5.3.1.10: the server takes the rest in another transaction. Each takes some.
                    Err(failure) if delivered && is_too_many(&failure) => again.push(left),
                    Err(failure) if chunked && is_about_chunks(&failure, open.connection.takes_chunks()) => {
                        self.in_dots = true;
                        again.push(left);
                    }
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
                        let failure = open.failure(failure);
                        if failure.scope == Scope::Host && !sent.reusable {
                            broken = Some(failure.clone());
                        }
                        self.failed(left, failure, Some(&open.peer));
                    }
                }
            }
            match broken {
                // Whoever was still to be asked for need not try the same again.
                Some(failure) => {
                    later.drain(..).for_each(|left| self.failed(left, failure.clone(), Some(&open.peer)));
                }
                None => again.append(&mut later),
            }
            open.connection.forgo(false, self.in_dots);
            if again.is_empty() || !sent.reusable {
                self.unasked = again;
                self.attempted.transfer += started.elapsed();
                return sent.reusable;
            }
            round = again;
        }
    }

    /// Takes those out of `round` that are more than a transaction may have.
    fn beyond(&self, round: &mut Vec<Left>, limits: Limits) -> Vec<Left> {
        if limits == Limits::default() {
            return Vec::new();
        }
        let domains = round.iter().map(|left| self.path(left).and_then(ForwardPath::domain));
        let mut fitting = limits.fitting(domains).into_iter();
        round.extract_if(.., |_| !fitting.next().unwrap_or(true)).collect()
    }

    fn outgoing(&self, round: &[Left]) -> client::Outgoing {
        let path = |left: &Left| self.path(left).cloned();
        let asked = |left: &Left| self.envelope.notification_of(left.recipient.index as usize).clone();
        client::Outgoing {
            reverse_path: self.envelope.reverse_path.clone(),
            // The index was made from this envelope; whatever happens, results must stay in step.
            recipients: round.iter().map(|left| path(left).unwrap_or(ForwardPath::Postmaster)).collect(),
            body: self.envelope.body,
            smtputf8: self.envelope.smtputf8,
            mt_priority: self.envelope.mt_priority,
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
