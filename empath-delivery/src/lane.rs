//! A connection of a lane: it takes job after job.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use empath_common::{Domain, MessageId, Reply};
use empath_metrics::Histogram;
use empath_spool::{Content, LoadError};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    attempt::{Outbound, attempt},
    attempted::{Attempted, Tried},
    content::Outgoing,
    dsn::Arrived,
    failure::Failure,
    log, maildir,
    open::Open,
    processor::{Assigned, Commits, Live, Shared},
    queue::{ConnectionId, Job, Next, Outcome},
    rollup::{self, Whose},
    route::NextHop,
};

/// Delivers `job`, then what the queue gives, then what comes in by `jobs` while the connection is idle.
pub(crate) async fn run(
    shared: Arc<Shared>,
    id: ConnectionId,
    next_hop: NextHop,
    (mut job, live): Assigned,
    jobs: mpsc::Receiver<Assigned>,
) {
    let mut lane = Lane {
        rng: shared.with_rng(fastrand::Rng::fork),
        commits: Commits::default(),
        duration: None,
        open: None,
        away: false,
        live,
        shared,
        id,
        next_hop,
        jobs,
    };
    loop {
        let (next, live) = match lane.shared.directed(job, &mut lane.commits).await {
            // It is settled or ready again, and says nothing about the destination.
            None => {
                lane.shared.refund(id);
                lane.shared.next(id, Outcome::Unknown, None)
            }
            Some(mut job) => match lane.deliver(&mut job).await {
                Some(outcome) => lane.shared.next(id, outcome, job.domain()),
                None => break,
            },
        };
        let given = match next {
            Next::Job(next) => (next, live),
            Next::Idle => match lane.idle().await {
                Some(next) => next,
                None => break,
            },
            Next::Close => break,
        };
        job = given.0;
        lane.keep_to(given.1);
    }
    lane.commits.settled(&lane.shared).await;
    if let Some(open) = lane.open {
        let _ = lane.shared.aborting.run_until_cancelled(open.quit()).await;
    }
}

/// One of its connections.
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: ConnectionId,
    pub(crate) next_hop: NextHop,
    jobs: mpsc::Receiver<Assigned>,
    /// The configuration of the present job.
    pub(crate) live: Arc<Live>,
    pub(crate) open: Option<Open>,
    /// It waited for name servers, and has no place.
    pub(crate) away: bool,
    commits: Commits,
    rng: fastrand::Rng,
    /// The histogram of the domain of the last job.
    duration: Option<(Domain, Histogram)>,
}

impl Lane {
    /// The next job has this configuration. A connection that was opened by another one is not used any more.
    fn keep_to(&mut self, live: Arc<Live>) {
        if live.epoch != self.live.epoch
            && let Some(open) = self.open.take()
        {
            self.shared.spawn(open.quit());
        }
        self.live = live;
    }

    /// Makes an attempt and records what it comes to. `None` if there was none, and the job is another connection's.
    async fn deliver(&mut self, job: &mut Job) -> Option<Outcome> {
        let started = (self.shared.now(), Instant::now());
        let unfound = match self.sort(job).await {
            Whose::Ours(unfound) => unfound,
            Whose::Others | Whose::Nobodys => {
                self.shared.refund(self.id);
                return Some(Outcome::Unknown);
            }
            Whose::AnotherLanes => return None,
        };
        // Whoever has no place and nowhere to go fails in turn.
        let _turn =
            if self.away { Arc::clone(&self.shared.failing).acquire_owned().await.ok() } else { None };
        let looking = started.1.elapsed();
        self.shared.metrics.waited(job.envelope.priority, job.ready_at, started.0);
        let content = match job.content.take() {
            Some(octets) => Ok(octets.into()),
            None => self.shared.spool.content(job.id).await,
        };
        let (attempted, content) = match content {
            Ok(content) => {
                let Self { shared, next_hop, commits, .. } = self;
                let keys = shared.drop_duplicates(job, next_hop, &content, commits).await;
                if job.recipients.is_empty() {
                    self.shared.refund(self.id);
                    return Some(Outcome::Unknown);
                }
                let mut attempted = match &unfound {
                    Some(failure) => Attempted::all(job, failure),
                    None => self.attempt(job, &content).await,
                };
                attempted.connect += looking;
                if attempted.is_unreadable() && content.is_damaged().await {
                    attempted.unreadable_is(&self.lost(job.id).await);
                }
                self.shared.were_delivered(job.id, &keys, &attempted.results);
                (attempted, content)
            }
            Err(failure) => {
                log::not_read(job.id, &failure);
                let failure = match failure {
                    // It waits for whoever mends the spool.
                    LoadError::Io { .. } => Failure::unreadable(),
                    LoadError::Unknown(_) | LoadError::Damaged { .. } => self.lost(job.id).await,
                };
                (Attempted::all(job, &failure), Bytes::new().into())
            }
        };
        if attempted.results.is_empty() {
            // Given up, and the next start finds it as it was.
            return Some(Outcome::Unknown);
        }
        let outcome = attempted.outcome;
        if attempted.is_turned_away() && self.shared.put_back(self.id, job) {
            return None;
        }
        self.observe(job, started.1);
        let next_hop = rollup::shown(&self.next_hop, job);
        self.shared.conclude(job, &next_hop, attempted, (started.0, content), &mut self.commits).await;
        Some(outcome)
    }

    /// The message is damaged in the spool, or has gone from it for that reason. Its sender is told, and what there is of
    /// it is kept.
    async fn lost(&self, id: MessageId) -> Failure {
        match self.shared.spool.set_aside(id).await {
            Ok(()) => Failure::lost(),
            Err(failure) => {
                log::not_read(id, &failure);
                Failure::unreadable()
            }
        }
    }

    async fn attempt(&mut self, job: &Job, content: &Content) -> Attempted {
        let Self { shared, id, next_hop, live, open, rng, .. } = self;
        let terms = match &*next_hop {
            NextHop::Maildir(template) => return file(live, template, job, content).await,
            NextHop::Mx(_, terms)
            | NextHop::Site(_, terms)
            | NextHop::Host { terms, .. }
            | NextHop::Unix(_, terms)
            | NextHop::Smarthost(_, terms) => terms,
        };
        let outbound = Outbound {
            next_hop,
            terms,
            network: &live.network,
            hostname: &shared.hostname,
            config: &live.delivery,
            timeouts: &live.timeouts,
            hasty: &live.hasty,
            resolver: &live.resolver,
            own: &live.own,
            aborting: &shared.aborting,
            connection: *id,
            shared,
        };
        let mut attempted = attempt(&outbound, open, job, content, rng).await;
        // A domain's own lane is where its hosts are looked up: what was opened there is not for the next job.
        let passing = outbound.config.connection_pool.mx_rollup && matches!(next_hop, NextHop::Mx(..));
        let worn = open.take_if(|open| passing || !open.may_continue(outbound.config));
        for done in attempted.spare.drain(..).chain(worn) {
            shared.spawn(done.quit());
        }
        attempted
    }

    fn observe(&mut self, job: &Job, started: Instant) {
        let domain = job.domain().unwrap_or(&self.shared.hostname);
        let seconds = started.elapsed().as_secs_f64();
        match &self.duration {
            Some((last, duration)) if last == domain => duration.observe(seconds),
            _ => {
                let duration = self.shared.metrics.duration.with(domain.as_str());
                duration.observe(seconds);
                self.duration = Some((domain.clone(), duration));
            }
        }
    }

    /// Waits for the next job as long as the connection is worth it.
    async fn idle(&mut self) -> Option<Assigned> {
        let Self { shared, live, open, jobs, commits, .. } = self;
        if let Some(open) = open {
            let mut changes = shared.live.subscribe();
            let idle_timeout = sleep(live.delivery.connection_pool.idle_timeout);
            let outdated = changes.wait_for(|new| new.epoch != live.epoch);
            tokio::pin!(outdated);
            tokio::pin!(idle_timeout);
            loop {
                tokio::select! {
                    // `None`: the queue has given our place to another destination.
                    job = jobs.recv() => return job,
                    () = open.closed() => break,
                    () = &mut idle_timeout => break,
                    _ = &mut outdated => break,
                    () = commits.settled(shared), if !commits.is_empty() => {}
                    () = shared.stopping.cancelled() => break,
                }
            }
        }
        if shared.leave(self.id) { None } else { jobs.recv().await }
    }
}

async fn file(live: &Live, template: &Path, job: &Job, content: &Content) -> Attempted {
    let started = Instant::now();
    let mut attempted = Attempted::new(job);
    attempted.outcome = Outcome::Good;
    for recipient in &job.recipients {
        let Some(path) = job.envelope.recipients().get(recipient.index as usize) else {
            continue;
        };
        let directory = maildir::directory(template, path, &live.postmaster_domain);
        let name = (job.id, recipient.index);
        let content = Outgoing::new(job.id, content);
        let filed = maildir::deliver(directory, name, &job.envelope.reverse_path, content).await;
        attempted.results.push(Tried {
            recipient: *recipient,
            result: filed
                .map_err(|failure| Failure::from(&failure))
                .map(|()| Reply::new(250, (2, 0, 0), "stored in the Maildir")),
            peer: None,
            arrived: Some(Arrived::Delivered),
        });
    }
    attempted.transfer = started.elapsed();
    attempted
}
