//! Lookups under way: one for each question, whoever waits for it, each within its time.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use empath_common::Domain;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::{
    DnsConfig,
    cache::Cache,
    lookup::{Answer, Found, Lookup, LookupError, Question, RecordType, Records},
    metrics::Metrics,
};

/// Most lookups that ask at a time; others wait, and the wait is part of their time.
const MAX_ASKING: usize = 256;
/// A lookup that takes longer than this makes room for another, so that names that are never answered hold up nobody...
const QUICK: Duration = Duration::from_millis(100);
/// ...and goes on if it is one of at most this many.
const MAX_SLOW: usize = 256;
/// The others ask once more after this long: name servers that we do not listen to have gone on, and know it by then.
const AGAIN: Duration = Duration::from_secs(1);
/// Most lookups that ask or wait.
const MAX_FLIGHTS: usize = 32_768;
/// How long a failure to answer is remembered, whatever the configuration says of answers (RFC 9520 §3.2).
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// Between two questions to name servers that don't answer.
const PROBE_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Flights {
    lookup: Arc<dyn Lookup>,
    metrics: Metrics,
    min_ttl: Duration,
    max_ttl: Duration,
    /// Of a lookup as a whole.
    deadline: Duration,
    asking: Semaphore,
    slow: Semaphore,
    state: Mutex<State>,
    silent: AtomicBool,
    tasks: TaskTracker,
    /// The resolver is gone.
    pub(super) stop: CancellationToken,
}

struct State {
    cache: Cache,
    flights: HashMap<Question, watch::Receiver<Option<Answer>>>,
    /// The last lookup had no answer.
    unanswered: bool,
    probing: bool,
}

/// An answer that is there, or on its way.
pub(super) enum Asked {
    Known(Answer),
    Flying(watch::Receiver<Option<Answer>>),
}

impl Asked {
    pub(super) async fn answer(self) -> Answer {
        match self {
            Self::Known(answer) => answer,
            Self::Flying(mut flight) => match flight.wait_for(Option::is_some).await {
                Ok(landed) => landed.clone().unwrap_or(Err(LookupError::Failed)),
                // The daemon ends.
                Err(_) => Err(LookupError::Failed),
            },
        }
    }
}

impl Flights {
    pub(super) fn new(config: &DnsConfig, lookup: Arc<dyn Lookup>, metrics: Metrics) -> Self {
        let attempts = u32::try_from(config.attempts).unwrap_or(u32::MAX).max(1);
        Self {
            lookup,
            metrics,
            min_ttl: config.min_ttl,
            max_ttl: config.max_ttl.max(config.min_ttl),
            deadline: config.timeout.saturating_mul(attempts),
            asking: Semaphore::new(MAX_ASKING),
            slow: Semaphore::new(MAX_SLOW),
            state: Mutex::new(State {
                cache: Cache::new(usize::try_from(config.cache_size).unwrap_or(usize::MAX)),
                flights: HashMap::new(),
                unanswered: false,
                probing: false,
            }),
            silent: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Does something with the cache.
    pub(super) fn with_cache<T>(&self, with: impl FnOnce(&mut Cache, Instant) -> T) -> T {
        with(&mut self.state().cache, Instant::now())
    }

    /// Whether the name servers answer at all.
    pub(super) fn are_answered(&self) -> bool {
        !self.silent.load(Relaxed)
    }

    /// Answers from memory, or starts to ask; what has started goes on whether somebody waits for it or not.
    pub(super) fn ask(self: &Arc<Self>, question: Question) -> Asked {
        if let Some(answer) = special(&question) {
            return Asked::Known(answer);
        }
        let mut state = self.state();
        if let Some(answer) = state.cache.get(&question, Instant::now()) {
            self.metrics.hits.increment();
            return Asked::Known(answer);
        }
        self.metrics.misses.increment();
        if let Some(flight) = state.flights.get(&question) {
            return Asked::Flying(flight.clone());
        }
        if state.flights.len() >= MAX_FLIGHTS {
            self.metrics.failed(LookupError::Busy);
            return Asked::Known(Err(LookupError::Busy));
        }
        let (waiting, flight) = watch::channel(None);
        state.flights.insert(question.clone(), flight.clone());
        drop(state);
        let (flights, stop) = (Arc::clone(self), self.stop.clone());
        self.tasks.spawn(async move {
            let landing = Landing { flights, question, waiting };
            let _ = stop.run_until_cancelled(landing.fly()).await;
        });
        Asked::Flying(flight)
    }

    async fn look_up(&self, question: &Question) -> Answer {
        let started = Instant::now();
        let lookup = async {
            for pause in [AGAIN, Duration::ZERO] {
                // Never closed.
                let turn = self.asking.acquire().await;
                let mut lookup = self.lookup.look_up(question.clone());
                if let Ok(answer) = timeout(QUICK, lookup.as_mut()).await {
                    return answer;
                }
                drop(turn);
                if let Ok(_turn) = self.slow.try_acquire() {
                    return lookup.await;
                }
                drop(lookup);
                sleep(pause).await;
            }
            Err(LookupError::Timeout)
        };
        let answer = timeout(self.deadline, lookup).await.unwrap_or(Err(LookupError::Timeout));
        self.metrics.duration.observe(started.elapsed().as_secs_f64());
        if let Err(error) = answer {
            self.metrics.failed(error);
        }
        answer
    }

    fn ttl(&self, answer: &Answer) -> Duration {
        match answer {
            Ok(found) => found.ttl.clamp(self.min_ttl, self.max_ttl),
            Err(LookupError::NoSuchName(ttl) | LookupError::NoRecords(ttl)) => {
                ttl.unwrap_or_default().clamp(self.min_ttl, self.max_ttl)
            }
            Err(LookupError::Failed | LookupError::Refused | LookupError::Timeout) => {
                FAILURE_TTL.min(self.max_ttl)
            }
            Err(LookupError::Busy) => Duration::ZERO,
        }
    }

    fn remember(&self, question: &Question, answer: &Answer) -> bool {
        let mut state = self.state();
        state.flights.remove(question);
        state.cache.insert(question.clone(), answer.clone(), self.ttl(answer), Instant::now());
        self.metrics.evictions.add(state.cache.take_evicted());
        if *answer != Err(LookupError::Timeout) {
            state.unanswered = false;
            self.silent.store(false, Relaxed);
            return false;
        }
        state.unanswered = true;
        !std::mem::replace(&mut state.probing, true)
    }

    /// Finds out whether it is the name servers that don't answer, or those that they ask: every recursive server knows
    /// the answer to this question itself (RFC 6761 §6.3). Ends when they answer.
    async fn probe(&self) {
        let question = Question { name: Domain::localhost(), kind: RecordType::A };
        let answers = async || {
            let answer = timeout(self.deadline, self.lookup.look_up(question.clone())).await;
            answer.is_ok_and(|answer| answer != Err(LookupError::Timeout))
        };
        let mut told = false;
        // Somebody else may have got an answer in the meantime.
        while !answers().await && self.state().unanswered {
            self.silent.store(true, Relaxed);
            if !std::mem::replace(&mut told, true) {
                error!("the name servers don't answer: mail whose next hop must be looked up waits");
            }
            sleep(PROBE_PAUSE).await;
        }
        let mut state = self.state();
        (state.unanswered, state.probing) = (false, false);
        self.silent.store(false, Relaxed);
        if told {
            info!("the name servers answer again");
        }
    }
}

/// The end of a lookup: whatever happens to it, the next one for the question starts anew.
struct Landing {
    flights: Arc<Flights>,
    question: Question,
    waiting: watch::Sender<Option<Answer>>,
}

impl Landing {
    async fn fly(&self) {
        let answer = self.flights.look_up(&self.question).await;
        let suspicious = self.flights.remember(&self.question, &answer);
        self.waiting.send_replace(Some(answer));
        if suspicious {
            self.flights.probe().await;
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.waiting.borrow().is_none() {
            self.flights.state().flights.remove(&self.question);
        }
    }
}

/// Names that no server is asked for (RFC 6761 §6.3 and §6.4, RFC 7686 §2).
fn special(question: &Question) -> Option<Answer> {
    let name = question.name.as_str();
    let found = |address: IpAddr| Ok(Found { records: Records::addresses([address]), ttl: Duration::MAX });
    match (name.rsplit('.').next()?, question.kind) {
        ("localhost", RecordType::A) => Some(found(Ipv4Addr::LOCALHOST.into())),
        ("localhost", RecordType::Aaaa) => Some(found(Ipv6Addr::LOCALHOST.into())),
        ("localhost", RecordType::Mx) => Some(Err(LookupError::NoRecords(None))),
        ("invalid" | "onion", _) => Some(Err(LookupError::NoSuchName(None))),
        _ => None,
    }
}
