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
mod live;
mod outcome;
mod overrides;
mod reach;
mod recover;
mod report;
mod rollup;
mod senders;
mod stored;
#[cfg(test)]
mod trial;
mod untaken;
mod view;
mod why;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use empath_common::{Clock, Domain, Envelope, MessageId};
use empath_smtp::client::{Dial, Tls};
use empath_spool::{Content, Spool};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, DsnConfig, Metrics, Resolver,
    health::Health,
    lane, log,
    open::Network,
    queue::{Action, ConnectionId, Job, Next, Outcome, Queue, Queued},
};

pub(crate) use commits::Commits;
pub use control::{Filter, Touched};
use duplicates::Deliveries;
use live::Fixed;
pub(crate) use live::Live;
pub use live::Reload;
use untaken::Untaken;
pub use view::{HistoryView, MessageView, RecipientView, ReplyView, Stats};
pub use why::{Because, WhyView};

/// How long results that are known may take to be recorded after transactions were given up.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Most jobs at a time that fail without a place: each reads its message.
const MAX_FAILING: usize = 64;

/// How a processor works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `delivery:` table. The paths in it are absolute.
    pub delivery: Config,
    /// The `dsn:` table.
    pub dsn: DsnConfig,
    /// The name of this host: in EHLO, in reports, and the domain of the bare `<Postmaster>` if mail for it is delivered
    /// here; otherwise that is the first of `own_names` which is.
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
    /// Connects to their hosts.
    pub dial: Arc<dyn Dial>,
    /// Encrypts the connections: [`Config::tls`].
    pub tls: Tls,
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
    /// [`Settings::hostname`].
    pub(crate) hostname: Domain,
    fixed: Fixed,
    /// What a reload changes; only with the queue locked.
    pub(crate) live: watch::Sender<Arc<Live>>,
    pub(crate) spool: Arc<dyn Spool>,
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
    deliveries: Mutex<Option<Deliveries>>,
    health: Mutex<Health>,
    /// Connections that wait for name servers.
    resolving: Mutex<HashSet<ConnectionId>>,
    /// The turns of jobs that fail without a place.
    pub(crate) failing: Arc<Semaphore>,
    /// Where frozen domains are kept; whoever changes them holds it.
    frozen_file: tokio::sync::Mutex<Option<PathBuf>>,
    rng: Mutex<fastrand::Rng>,
    timer: Notify,
    expired: Notify,
    /// The spool did not take an outcome.
    refused: Notify,
    /// Mail may have other routes by its senders.
    senders: Notify,
    /// [`Queue::is_pressed`].
    pressed: watch::Sender<bool>,
    /// Messages of the spool that are not in the queue yet.
    unread: watch::Sender<usize>,
}

struct State {
    queue: Queue,
    /// How idle connections get their next job.
    connections: HashMap<ConnectionId, mpsc::Sender<Assigned>>,
    untaken: Untaken,
}

/// A job, and the configuration that it was routed by.
pub(crate) type Assigned = (Queued, Arc<Live>);

impl Processor {
    /// Starts with an empty queue; see [`recover`](Self::recover).
    pub fn start(settings: Settings, parts: Parts) -> Self {
        let Parts { spool, resolver, dial, tls, clock, metrics, rng } = parts;
        let (routes, limits) = live::routes_and_limits(&settings);
        let network = Network::new(dial, tls, metrics.clone());
        let live = Live::new(&settings, &routes, resolver, network);
        let shared = Arc::new(Shared {
            deliveries: Mutex::new(Deliveries::new(&settings.delivery.deduplication)),
            hostname: settings.hostname,
            fixed: Fixed { own_addresses: settings.own_addresses, content_memory: settings.content_memory },
            live: watch::Sender::new(Arc::new(live)),
            spool,
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
            health: Mutex::default(),
            resolving: Mutex::default(),
            failing: Arc::new(Semaphore::new(MAX_FAILING)),
            frozen_file: tokio::sync::Mutex::default(),
            rng: Mutex::new(rng),
            timer: Notify::new(),
            expired: Notify::new(),
            refused: Notify::new(),
            senders: Notify::new(),
            pressed: watch::Sender::new(false),
            unread: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&shared);
        shared.metrics.watch_oldest(Arc::clone(&shared.clock), move || {
            weak.upgrade().and_then(|shared| shared.lock().queue.oldest())
        });
        shared.spawn(keep_time(Arc::clone(&shared)));
        for _ in 0..expiry::AT_ONCE {
            shared.spawn(expiry::run(Arc::clone(&shared)));
        }
        shared.spawn(untaken::run(Arc::clone(&shared)));
        shared.spawn(senders::run(Arc::clone(&shared)));
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

    /// Starts nothing more, waits until the transactions in flight are finished, and gives them up after `patience`, and
    /// connecting and finding out whereto after a moment; those are tried again after a restart, for the recipients whose
    /// results are not known, as if they had not begun. True if no transaction had to be given up.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        let shared = &self.0;
        let now = shared.now();
        shared.update(|queue| queue.stop(now));
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
        let pressed = state.queue.is_pressed();
        self.pressed.send_if_modified(|before| std::mem::replace(before, pressed) != pressed);
        let actions = state.queue.take_actions();
        let events = state.queue.take_events();
        for event in &events {
            self.metrics.happened(event);
        }
        self.metrics.show(&state.queue);
        self.metrics.removed.add(state.queue.take_removed());
        for action in actions {
            self.perform(action, &mut state.connections);
        }
        drop(state);
        events.iter().for_each(log::happened);
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
        connections: &mut HashMap<ConnectionId, mpsc::Sender<Assigned>>,
    ) {
        match action {
            Action::Open { connection, next_hop, job } => {
                let (sender, jobs) = mpsc::channel(1);
                connections.insert(connection, sender);
                self.spawn(lane::run(Arc::clone(self), connection, next_hop, (job, self.live()), jobs));
            }
            Action::Resume { connection, job } => {
                // An idle connection's channel is empty, and it lives until it has left the queue.
                if let Some(sender) = connections.get(&connection) {
                    let _ = sender.try_send((job, self.live()));
                }
            }
            Action::Close { connection } => {
                connections.remove(&connection);
            }
        }
    }

    /// What a connection does after its job, which was for `domain` and says this about the destination.
    pub(crate) fn next(
        self: &Arc<Self>,
        connection: ConnectionId,
        outcome: Outcome,
        domain: Option<&Domain>,
    ) -> (Next, Arc<Live>) {
        let now = self.now();
        let next = self.update(|queue| {
            queue.report(connection, outcome, domain, now);
            (queue.next(connection, now), self.live())
        });
        if matches!(next.0, Next::Close) {
            self.lock().connections.remove(&connection);
        }
        next
    }

    /// Gives a job back that did not get to its transaction. True if it is tried over another connection; this one has been
    /// taken out of the queue then.
    pub(crate) fn put_back(self: &Arc<Self>, connection: ConnectionId, job: &Job) -> bool {
        let now = self.now();
        let back = self.update(|queue| queue.put_back(connection, job.id, &job.recipients, now));
        if back {
            self.lock().connections.remove(&connection);
        }
        back
    }

    /// Whether an idle connection may go; false if it was given a job in the meantime.
    pub(crate) fn leave(self: &Arc<Self>, connection: ConnectionId) -> bool {
        let now = self.now();
        let gone = self.update(|queue| queue.leave(connection, now));
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
