//! Refuses mail before the disk of the spool is full.

use std::{
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use empath_common::{Answer, Asked, Hook, Query, Reply, Verdict};
use empath_metrics::{Counter, Gauge, Registry};
use empath_smtp::server::Limits;
use empath_spool::{Spool, files::Free};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

/// How old an answer of the file system may be.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How long a client waits for an answer of the file system; then the one before counts.
const PATIENCE: Duration = Duration::from_secs(5);

const INSUFFICIENT_STORAGE: Reply =
    Reply::new(452, (4, 3, 1), "Insufficient system storage; try again later");

/// Answers MAIL with 452 while less is free than `min_free_space` and `min_free_inodes` ask for: the first of the hooks.
///
/// The file system is asked when somebody wants to know, at most once a second, in a thread of its own.
#[derive(Clone)]
pub struct FreeSpace(Arc<Shared>);

type Storage = dyn Fn() -> io::Result<Free> + Send + Sync;

struct Shared {
    floor: Free,
    storage: Box<Storage>,
    state: Mutex<State>,
    /// 1 while mail is refused.
    short: Gauge,
    refused: Counter,
}

struct State {
    level: Level,
    looked: Option<Instant>,
    /// One thread at a time waits for a file system that does not answer.
    looking: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Enough,
    Short,
    /// It can't be found out: the commit decides, as it does without a floor.
    Unknown,
}

impl FreeSpace {
    /// Keeps the floors of `limits` in the file system of `spool`; `None` if there are none.
    pub fn new(limits: &Limits, spool: Arc<dyn Spool>, registry: &Registry) -> Option<Self> {
        Self::on(limits, Box::new(move || spool.free()), registry)
    }

    fn on(limits: &Limits, storage: Box<Storage>, registry: &Registry) -> Option<Self> {
        let floor = Free { octets: limits.min_free_space.0, inodes: limits.min_free_inodes };
        if floor == (Free { octets: 0, inodes: 0 }) {
            return None;
        }
        let state = State { level: Level::Enough, looked: None, looking: false };
        let short = registry.gauge(
            "empath_smtp_short_of_space",
            "1 while MAIL is refused because min_free_space or min_free_inodes is not free, else 0.",
        );
        let refused = registry.counter(
            "empath_smtp_short_of_space_refusals_total",
            "MAIL commands refused because min_free_space or min_free_inodes was not free.",
        );
        Some(Self(Arc::new(Shared { floor, storage, state: state.into(), short, refused })))
    }

    /// Asks the file system if the last answer is old, and waits for it within reason.
    pub async fn look(&self) {
        if let Some(looking) = self.begin() {
            // A file system that takes longer is still asked; until it answers, what it said last counts.
            let _ = timeout(PATIENCE, looking).await;
        }
    }

    /// Whether mail is refused, by the last answer of the file system. An old one is made new for those who ask again.
    pub fn is_short(&self) -> bool {
        let short = self.0.state().level == Level::Short;
        drop(self.begin());
        short
    }

    fn begin(&self) -> Option<JoinHandle<()>> {
        self.0.begin().then(|| {
            let shared = Arc::clone(&self.0);
            spawn_blocking(move || shared.look())
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for whoever is to ask the file system.
    fn begin(&self) -> bool {
        let mut state = self.state();
        let due = state.looked.is_none_or(|looked| looked.elapsed() >= MAX_AGE);
        due && !mem::replace(&mut state.looking, true)
    }

    fn look(&self) {
        let free = (self.storage)();
        let level = match &free {
            Ok(free) if free.octets < self.floor.octets || free.inodes < self.floor.inodes => Level::Short,
            Ok(_) => Level::Enough,
            Err(_) => Level::Unknown,
        };
        let mut state = self.state();
        state.looked = Some(Instant::now());
        state.looking = false;
        let before = mem::replace(&mut state.level, level);
        // The lock keeps what is said about two changes in order.
        if before != level {
            self.short.set(i64::from(level == Level::Short));
            self.say(before, free);
        }
    }

    fn say(&self, before: Level, free: io::Result<Free>) {
        let Free { octets: min_free_space, inodes: min_free_inodes } = self.floor;
        match free {
            Err(error) => warn!(%error, "the free space of the spool is unknown: no mail is refused for it"),
            Ok(Free { octets, inodes }) if octets < min_free_space || inodes < min_free_inodes => error!(
                free_octets = octets,
                free_inodes = inodes,
                min_free_space,
                min_free_inodes,
                "mail is refused at MAIL: the file system of the spool is short of space"
            ),
            Ok(Free { octets, inodes }) if before == Level::Short => info!(
                free_octets = octets,
                free_inodes = inodes,
                "mail is accepted again: the file system of the spool has space"
            ),
            Ok(_) => info!("the free space of the spool is known again"),
        }
    }

    fn verdict(&self) -> Answer {
        if self.state().level != Level::Short {
            return Verdict::Accept.into();
        }
        self.refused.increment();
        Verdict::Refuse(INSUFFICIENT_STORAGE).into()
    }
}

impl Hook for FreeSpace {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        if !matches!(query, Query::MailFrom(..)) {
            return Asked::Now(Verdict::Accept.into());
        }
        match self.begin() {
            None => Asked::Now(self.0.verdict()),
            Some(looking) => Asked::Later(Box::pin(async move {
                let _ = timeout(PATIENCE, looking).await;
                self.0.verdict()
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{
            Barrier,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
    };

    use empath_common::{ByteSize, Client, ReversePath};
    use tokio::time::advance;

    use super::*;

    /// A file system where this much is free; with no octets at all it does not say.
    #[derive(Default)]
    struct Fake {
        octets: AtomicU64,
        inodes: AtomicU64,
        asked: AtomicU64,
    }

    fn limits(min_free_space: u64, min_free_inodes: u64) -> Limits {
        Limits { min_free_space: ByteSize(min_free_space), min_free_inodes, ..Limits::default() }
    }

    /// Hundred octets and ten files have to be free.
    fn space() -> (Arc<Fake>, FreeSpace) {
        let fake = Arc::new(Fake::default());
        fake.set(100, 10);
        let storage = Arc::clone(&fake);
        let look = move || {
            storage.asked.fetch_add(1, Relaxed);
            let free = Free { octets: storage.octets.load(Relaxed), inodes: storage.inodes.load(Relaxed) };
            if free.octets == 0 { Err(io::ErrorKind::Other.into()) } else { Ok(free) }
        };
        (fake, FreeSpace::on(&limits(100, 10), Box::new(look), &Registry::default()).unwrap())
    }

    impl Fake {
        fn set(&self, octets: u64, inodes: u64) {
            self.octets.store(octets, Relaxed);
            self.inodes.store(inodes, Relaxed);
        }
    }

    fn client() -> Client {
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        Client::new(address, address)
    }

    async fn accepts(space: &FreeSpace) -> bool {
        let (client, path) = (client(), ReversePath::Null);
        let answer = match space.ask(Query::MailFrom(&client, &path)) {
            Asked::Now(answer) => answer,
            Asked::Later(answer) => answer.await,
        };
        match answer.verdict {
            Verdict::Accept => true,
            Verdict::Refuse(reply) => {
                assert_eq!(reply, INSUFFICIENT_STORAGE);
                false
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mail_is_refused_while_octets_or_files_are_below_their_floor() {
        let (fake, space) = space();
        let mut refused = 0;
        for (octets, inodes, accepted) in [
            (100, 10, true),
            (99, 10, false),
            (100, 10, true),
            (100, 9, false),
            (1, 0, false),
            // The file system does not say.
            (0, 0, true),
            (1 << 40, u64::MAX, true),
        ] {
            fake.set(octets, inodes);
            advance(MAX_AGE).await;
            assert_eq!(accepts(&space).await, accepted, "{octets} {inodes}");
            refused += u64::from(!accepted);
            assert_eq!((space.0.short.get(), space.0.refused.get()), (i64::from(!accepted), refused));
            assert_eq!(space.is_short(), !accepted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_system_is_asked_once_a_second_at_most_and_never_without_need() {
        let (fake, space) = space();
        for second in 1..4 {
            for _ in 0..10 {
                assert!(accepts(&space).await);
                assert!(!space.is_short());
                advance(MAX_AGE / 20).await;
            }
            assert_eq!(fake.asked.load(Relaxed), second);
            advance(MAX_AGE * 100).await;
            assert_eq!(fake.asked.load(Relaxed), second);
        }
        assert!(
            matches!(space.ask(Query::Connect(&client())), Asked::Now(answer) if answer.verdict == Verdict::Accept)
        );
        assert_eq!(fake.asked.load(Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_does_not_answer_holds_up_who_asked_first_and_nobody_else() {
        let answers = Arc::new(Barrier::new(2));
        let answer = Arc::clone(&answers);
        let look = move || {
            answers.wait();
            Ok(Free { octets: 99, inodes: 0 })
        };
        let space = FreeSpace::on(&limits(100, 0), Box::new(look), &Registry::default()).unwrap();
        let (client, path) = (client(), ReversePath::Null);
        let Asked::Later(first) = space.ask(Query::MailFrom(&client, &path)) else {
            panic!("nobody has asked before");
        };
        assert!(accepts(&space).await);
        assert!(!space.is_short());
        answer.wait();
        assert_ne!(first.await.verdict, Verdict::Accept);
        assert!(space.is_short());
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_finds_out_that_there_is_space_again_without_any_mail() {
        let (fake, space) = space();
        fake.set(99, 10);
        space.look().await;
        fake.set(100, 10);
        advance(MAX_AGE).await;
        while space.is_short() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn without_floors_nobody_asks() {
        let storage = || Box::new(|| Err(io::ErrorKind::Other.into()));
        assert!(FreeSpace::on(&limits(0, 0), storage(), &Registry::default()).is_none());
        assert!(FreeSpace::on(&limits(1, 0), storage(), &Registry::default()).is_some());
        assert!(FreeSpace::on(&limits(0, 1), storage(), &Registry::default()).is_some());
    }
}
