//! Joins queue, lanes and spool.
//!
//! The queue decides under a lock that is held for moments only; the tasks here do what it says. Every task is
//! owned by one tracker.

mod commits;
mod control;
mod delay;
mod duplicates;
mod envelope;
mod expiry;
mod freeze;
mod hold;
mod outcome;
mod recover;
mod untaken;
mod view;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use empath_common::{Clock, Domain, Envelope, MessageId};
use empath_smtp::client::Timeouts;
use empath_spool::{Content, Spool};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, DsnConfig, Metrics, Resolver,
    hosts::Own,
    lane,
    queue::{Action, ConnectionId, Limits, Next, Queue, Queued},
    route::Routes,
};

pub(crate) use commits::Commits;
pub use control::{Filter, Touched};
use duplicates::Deliveries;
use untaken::Untaken;
pub use view::{HistoryView, MessageView, RecipientView, ReplyView, Stats};

/// How long results that are known may take to be recorded after transactions were given up.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a processor works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `delivery:` table. The paths in it are absolute.
    pub delivery: Config,
    /// The `dsn:` table.
    pub dsn: DsnConfig,
    /// The name of this host: in EHLO, in reports, and the domain of the bare `<Postmaster>`.
    pub hostname: Domain,
    /// Names of this host: an MX list ends where one of them stands. `hostname` is one without being listed.
    pub own_names: Vec<Domain>,
    /// Addresses and ports of this host: mail is never sent there.
    pub own_addresses: Vec<SocketAddr>,
    /// Most octets of envelopes and content that are kept in memory for first attempts; the rest is read back from the
    /// spool.
    pub content_memory: usize,
}

/// What a processor works with.
pub struct Parts {
    /// Where messages and their progress are durable.
    pub spool: Arc<dyn Spool>,
    /// Looks next hops up.
    pub resolver: Arc<Resolver>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
    /// Jitter, the order of equal MX hosts, and ids of reports.
    pub rng: fastrand::Rng,
}

/// Delivers messages. Cloning shares it.
#[derive(Clone)]
pub struct Processor(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) timeouts: Arc<Timeouts>,
    pub(crate) own: Own,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    tasks: TaskTracker,
    /// No new work starts.
    pub(crate) stopping: CancellationToken,
    /// What is in flight is given up.
    pub(crate) aborting: CancellationToken,
    /// And nobody is waited for any more.
    ended: CancellationToken,
    state: Mutex<State>,
    deliveries: Option<Mutex<Deliveries>>,
    /// Where frozen domains are kept; whoever changes them holds it.
    frozen_file: tokio::sync::Mutex<Option<PathBuf>>,
    rng: Mutex<fastrand::Rng>,
    timer: Notify,
    expired: Notify,
    /// The spool did not take an outcome.
    refused: Notify,
    /// Messages of the spool that are not in the queue yet.
    unread: watch::Sender<usize>,
}

struct State {
    queue: Queue,
    /// How idle connections get their next job.
    connections: HashMap<ConnectionId, mpsc::Sender<Queued>>,
    untaken: Untaken,
}

impl Processor {
    /// Starts with an empty queue; see [`recover`](Self::recover).
    pub fn start(settings: Settings, parts: Parts) -> Self {
        let Parts { spool, resolver, clock, metrics, rng } = parts;
        let limits = Limits {
            max_concurrent: settings.delivery.max_concurrent,
            content_memory: settings.content_memory,
            expire_after: settings.delivery.retry.expire_after,
            delay_after: settings.dsn.delay_after.filter(|_| settings.dsn.enabled),
        };
        let routes = Routes::new(&settings.delivery, settings.hostname.clone());
        let mut own = Own { names: settings.own_names.clone(), addresses: settings.own_addresses.clone() };
        own.names.push(settings.hostname.clone());
        let shared = Arc::new(Shared {
            timeouts: Arc::new(settings.delivery.smtp_timeouts.clone()),
            own,
            deliveries: Deliveries::new(&settings.delivery.deduplication).map(Mutex::new),
            settings,
            spool,
            resolver,
            clock,
            metrics,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            ended: CancellationToken::new(),
            state: Mutex::new(State {
                queue: Queue::new(routes, limits),
                connections: HashMap::new(),
                untaken: Untaken::default(),
            }),
            frozen_file: tokio::sync::Mutex::default(),
            rng: Mutex::new(rng),
            timer: Notify::new(),
            expired: Notify::new(),
            refused: Notify::new(),
            unread: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&shared);
        shared.metrics.watch_oldest(Arc::clone(&shared.clock), move || {
            weak.upgrade().and_then(|shared| shared.lock().queue.oldest())
        });
        shared.spawn(keep_time(Arc::clone(&shared)));
        shared.spawn(expiry::run(Arc::clone(&shared)));
        shared.spawn(untaken::run(Arc::clone(&shared)));
        Self(shared)
    }

    /// Takes over a message that is durable. Its first attempt starts at once if a connection is free.
    pub fn accepted(&self, id: MessageId, envelope: Arc<Envelope>, content: &Content) {
        self.0.accepted(id, envelope, content);
    }

    /// How many messages have not ended, those not yet recovered among them.
    pub fn queue_len(&self) -> usize {
        self.0.lock().queue.len() + self.unread() + self.unreadable()
    }

    /// Outgoing connections, idle ones included.
    pub fn connections(&self) -> usize {
        self.0.lock().queue.connections()
    }

    /// Starts nothing more, waits until the transactions in flight are finished, and gives them up after `patience`;
    /// those are tried again after a restart, for the recipients whose results are not known, as if they had not begun. True
    /// if nothing had to be given up.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        let shared = &self.0;
        shared.update(Queue::stop);
        shared.stopping.cancel();
        shared.tasks.close();
        let finished = timeout(patience, shared.tasks.wait()).await.is_ok();
        if !finished {
            shared.aborting.cancel();
            if timeout(LAST_WORDS, shared.tasks.wait()).await.is_err() {
                shared.ended.cancel();
                shared.tasks.wait().await;
            }
        }
        // The last chance.
        shared.repeat().await;
        finished
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_rng<T>(&self, with: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        with(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs a task that ends at the latest when nobody is waited for any more.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            let _ = ended.run_until_cancelled(task).await;
        });
    }

    pub(crate) fn accepted(self: &Arc<Self>, id: MessageId, envelope: Arc<Envelope>, content: &Content) {
        let now = self.now();
        self.update(|queue| queue.accept(id, envelope, content, now));
    }

    /// Changes the queue and does what follows from it.
    fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut state = self.lock();
        let outcome = change(&mut state.queue);
        let wake = state.queue.take_wake();
        let expired = state.queue.has_expired();
        let actions = state.queue.take_actions();
        self.metrics.show(&state.queue);
        self.metrics.removed.add(state.queue.take_removed());
        for action in actions {
            self.perform(action, &mut state.connections);
        }
        drop(state);
        if wake {
            self.timer.notify_one();
        }
        if expired {
            self.expired.notify_one();
        }
        outcome
    }

    fn perform(
        self: &Arc<Self>,
        action: Action,
        connections: &mut HashMap<ConnectionId, mpsc::Sender<Queued>>,
    ) {
        match action {
            Action::Open { connection, next_hop, job } => {
                let (sender, jobs) = mpsc::channel(1);
                connections.insert(connection, sender);
                self.spawn(lane::run(Arc::clone(self), connection, next_hop, job, jobs));
            }
            Action::Resume { connection, job } => {
                // An idle connection's channel is empty, and it lives until it has left the queue.
                if let Some(sender) = connections.get(&connection) {
                    let _ = sender.try_send(job);
                }
            }
            Action::Close { connection } => {
                connections.remove(&connection);
            }
        }
    }

    /// What a connection does after its job.
    pub(crate) fn next(self: &Arc<Self>, connection: ConnectionId) -> Next {
        let next = self.update(|queue| queue.next(connection));
        if matches!(next, Next::Close) {
            self.lock().connections.remove(&connection);
        }
        next
    }

    /// Whether an idle connection may go; false if it was given a job in the meantime.
    pub(crate) fn leave(self: &Arc<Self>, connection: ConnectionId) -> bool {
        let gone = self.update(|queue| queue.leave(connection));
        if gone {
            self.lock().connections.remove(&connection);
        }
        gone
    }
}

/// Calls the queue when something is due.
async fn keep_time(shared: Arc<Shared>) {
    while !shared.stopping.is_cancelled() {
        let now = shared.now();
        let due = shared.update(|queue| queue.poll(now));
        if due <= now {
            // More than one batch: others have their turn in between.
            tokio::task::yield_now().await;
            continue;
        }
        // A wake-up once an hour at most makes up for a wall clock that was set.
        let pause =
            Duration::try_from(due.duration_since(now)).unwrap_or_default().min(Duration::from_hours(1));
        tokio::select! {
            () = sleep(pause), if due < Timestamp::MAX => {}
            () = shared.timer.notified() => {}
            () = shared.stopping.cancelled() => {}
        }
    }
}
