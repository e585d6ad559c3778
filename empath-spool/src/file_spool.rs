use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle};

use empath_common::MessageId;
use tokio::sync::watch;

use crate::{
    Batch, CommitError, Committed, Config, Content, Draft, KeptSegment, LoadError, Loading, Metrics,
    Quarantine, Report, Spool, Stored, Writing, aside,
    committer::Shared,
    config::PathProblem,
    directory::failed,
    engine::Engine,
    files::{Disk, Files, Free, Kind, Lock},
    keeper::Keeper,
    kept,
    large::LargeDraft,
    reader,
    spool::{Closing, LoadingSome, Verifying},
    verify,
};

/// The journal: messages in segment files, made durable by one committer that writes and syncs what waits at one go.
///
/// The directory has `LOCK`, `journal/NNNNNNNN.seg`, `large/` and `damaged/`; `docs/spool-format.md` describes every octet.
pub struct FileSpool {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    done: watch::Receiver<bool>,
    threads: Vec<JoinHandle<()>>,
    _lock: Lock,
}

/// Why the spool can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path breaks a rule.
    #[error("the spool {path}: {problem}")]
    Path {
        /// The path as configured, or with symbolic links resolved where that matters.
        path: PathBuf,
        /// The rule.
        #[source]
        problem: PathProblem,
    },
    /// It belongs to somebody else.
    #[error(
        "the spool {path} belongs to user {owner}, the daemon runs as user {user}: chown it or name another"
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Another daemon uses it.
    #[error("the spool {path} is in use by {}: stop it or name another directory", holder(*.pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
    /// It is a directory for something else.
    #[error(
        "the directory {path} is not a spool, and there are other things in it ({name}): name an empty directory or one \
         that does not exist"
    )]
    NotASpool {
        /// The directory.
        path: PathBuf,
        /// Something in it that no spool has.
        name: String,
    },
    /// Something of it is not what it must be.
    #[error(
        "{path} is {found} and must be {expected} of the spool itself: move it away, or mount there what it is to be"
    )]
    Kind {
        /// The file or directory.
        path: PathBuf,
        /// What it is.
        found: Kind,
        /// What it must be.
        expected: Kind,
    },
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source}{}", remedy(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn remedy(failure: &io::Error) -> &'static str {
    match failure.kind() {
        io::ErrorKind::PermissionDenied => " (the user that runs this must have the rights to it)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (the disk must have space)",
        _ => "",
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl FileSpool {
    /// Opens the spool of a configuration on this machine's disk, reading everything that is in it. Blocks.
    pub fn open(config: &Config, metrics: Metrics) -> Result<(Self, Report), OpenError> {
        Self::open_on(Arc::new(Disk), config, metrics)
    }

    /// The same on other files.
    pub fn open_on(
        files: Arc<dyn Files>,
        config: &Config,
        metrics: Metrics,
    ) -> Result<(Self, Report), OpenError> {
        let (Engine { shared, keeper, committer, lock }, report) = Engine::open(files, config, metrics)?;
        let thread = || failed("start a thread for", &shared.journal.root);
        let done = committer.done.subscribe();
        let mut threads = vec![keeper.start().map_err(thread())?];
        let commit = std::thread::Builder::new().name("spool-committer".into());
        threads.push(commit.spawn(move || committer.run()).map_err(thread())?);
        Ok((Self { shared, keeper, done, threads, _lock: lock }, report))
    }

    fn read<T: Send + 'static>(
        &self,
        id: MessageId,
        read: fn(&Shared, MessageId) -> Result<T, LoadError>,
    ) -> Loading<'_, T> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let reading = tokio::task::spawn_blocking(move || read(&shared, id));
            reading
                .await
                .unwrap_or_else(|stopped| Err(LoadError::Io { id, source: io::Error::other(stopped) }))
        })
    }
}

impl Spool for FileSpool {
    fn commit(&self, batch: Batch) -> Committed {
        self.shared.commit(batch)
    }

    fn ids(&self) -> Vec<MessageId> {
        self.shared.index().ids()
    }

    fn len(&self) -> usize {
        self.shared.index().len()
    }

    fn load(&self, id: MessageId) -> Loading<'_, Stored> {
        self.read(id, reader::load)
    }

    fn load_some(&self, ids: Vec<MessageId>) -> LoadingSome<'_> {
        let shared = Arc::clone(&self.shared);
        let failed = |id| (id, Err(LoadError::Io { id, source: io::Error::other("the reader stopped") }));
        let none = ids.iter().copied().map(failed).collect();
        Box::pin(async move {
            let load = move |id| (id, reader::load(&shared, id));
            let reading = tokio::task::spawn_blocking(move || ids.into_iter().map(load).collect());
            reading.await.unwrap_or(none)
        })
    }

    fn content(&self, id: MessageId) -> Loading<'_, Content> {
        self.read(id, reader::content)
    }

    fn set_aside(&self, id: MessageId) -> Loading<'_, ()> {
        self.read(id, aside::set_aside)
    }

    fn draft(&self, id: MessageId) -> Writing<'_, Box<dyn Draft>> {
        let (journal, keeper) = (self.shared.journal.clone(), Arc::clone(&self.keeper));
        Box::pin(async move {
            let creating = tokio::task::spawn_blocking(move || LargeDraft::create(journal, keeper, id));
            let draft = creating.await.map_err(io::Error::other).flatten().map_err(CommitError::from)?;
            Ok(Box::new(draft) as Box<dyn Draft>)
        })
    }

    fn free(&self) -> io::Result<Free> {
        self.shared.journal.files.free(&self.shared.journal.root)
    }

    fn verify(&self) -> Verifying<'_> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || verify::running(&shared)).await.unwrap_or_default()
        })
    }

    fn quarantine(&self) -> Option<Quarantine> {
        Some(self.shared.journal.damaged.clone())
    }

    fn kept(&self) -> Vec<KeptSegment> {
        kept::segments(&self.shared)
    }

    fn is_healthy(&self) -> bool {
        self.shared.is_healthy() && !*self.done.borrow()
    }

    fn close(&self) -> Closing<'_> {
        self.shared.backlog.close();
        let mut done = self.done.clone();
        Box::pin(async move {
            // An error means that the committer is gone, which is what is waited for.
            let _ = done.wait_for(|done| *done).await;
        })
    }
}

impl Drop for FileSpool {
    fn drop(&mut self) {
        self.shared.backlog.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the spool ended in a panic");
            }
        }
    }
}
