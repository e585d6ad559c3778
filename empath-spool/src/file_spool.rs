use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use empath_common::MessageId;
use tokio::sync::{oneshot, watch};

use crate::{
    Batch, CommitError, Committed, Config, Entry, LoadError, Loading, Metrics, Report, Spool, Stored,
    backlog::{Backlog, Pending},
    committer::{Committer, Shared},
    config::{PathProblem, check},
    encoding,
    files::{Disk, Files, Lock, LockError},
    index::Effect,
    keeper::Keeper,
    reader,
    recovery::{Recovered, recover},
    segment::Journal,
    spool::Closing,
};

/// The journal: messages in segment files, made durable by one committer that writes and syncs what waits at one go.
///
/// The directory has `LOCK`, `journal/NNNNNNNN.seg` and `damaged/`; `docs/spool-format.md` describes every octet.
pub struct FileSpool {
    shared: Arc<Shared>,
    done: watch::Receiver<bool>,
    threads: Vec<JoinHandle<()>>,
    path: PathBuf,
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
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source} (the daemon's user must own it, the disk must have space)")]
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

/// Largest batch in octets. Larger content has its own file some day, long before this.
const MAX_BATCH: u64 = 256 << 20;

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
        let path = prepare(&*files, &config.path)?;
        let lock = files.lock(&path.join("LOCK")).map_err(|failure| match failure {
            LockError::Held(pid) => OpenError::InUse { path: path.clone(), pid },
            LockError::Io(source) => OpenError::Io { operation: "lock", path: path.join("LOCK"), source },
        })?;
        let directory = path.join("journal");
        let journal = Journal { files, directory, segment_size: config.segment_size.0 };
        let failed = |operation| {
            let path = journal.directory.clone();
            move |source| OpenError::Io { operation, path, source }
        };
        let Recovered { index, mut report, previous, next, spares } =
            recover(&journal, &path.join("damaged")).map_err(failed("read"))?;
        report.messages = index.len();
        metrics.damaged.add(report.damaged.len() as u64);
        metrics.messages.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
        let shared = Arc::new(Shared {
            journal: journal.clone(),
            backlog: Backlog::default(),
            index: index.into(),
            healthy: AtomicBool::new(true),
            metrics,
        });
        let keeper = Keeper::new(journal.clone(), &spares);
        let (sender, done) = watch::channel(false);
        let mut committer = Committer {
            shared: Arc::clone(&shared),
            keeper: Arc::clone(&keeper),
            current: None,
            previous,
            next,
            starved: false,
            done: sender,
        };
        // A small segment will do: the queue must go out for space to come back.
        committer.begin(0, false).map_err(failed("write to"))?;
        if let Some(previous) = previous {
            // The rest was never written, or is not valid: the new segment says so.
            let cut = journal
                .files
                .open(&journal.segment(previous.segment))
                .and_then(|file| file.truncate(previous.end));
            if let Err(failure) = cut {
                tracing::warn!(segment = previous.segment, error = %failure, "a segment could not be cut to its length");
            }
        }
        keeper.bury(shared.index().take_dead());
        let mut threads = vec![keeper.start().map_err(failed("start a thread for"))?];
        let thread = std::thread::Builder::new().name("spool-committer".into());
        threads.push(thread.spawn(move || committer.run()).map_err(failed("start a thread for"))?);
        Ok((Self { shared, done, threads, path, _lock: lock }, report))
    }

    /// Octets that can still be written to the file system of the spool.
    pub fn free_space(&self) -> io::Result<u64> {
        self.shared.journal.files.free_space(&self.path)
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

/// Creates the directories and checks the rules; returns the path without symbolic links.
fn prepare(files: &dyn Files, configured: &Path) -> Result<PathBuf, OpenError> {
    let rule =
        |path: &Path| check(path).map_err(|problem| OpenError::Path { path: path.to_owned(), problem });
    rule(configured)?;
    create(files, configured)?;
    let path = files.resolve(configured).map_err(failed("resolve", configured))?;
    let (owner, user) = (files.owner(&path).map_err(failed("look at", &path))?, files.user());
    if owner != user {
        return Err(OpenError::Owner { path, owner, user });
    }
    for directory in [path.clone(), path.join("journal"), path.join("damaged")] {
        files.create_dir(&directory).map_err(failed("create", &directory))?;
    }
    files.sync_dir(&path).map_err(failed("sync", &path))?;
    Ok(path)
}

fn rule(path: &Path) -> Result<(), OpenError> {
    check(path).map_err(|problem| OpenError::Path { path: path.to_owned(), problem })
}

/// Creates a directory and those above it, each durable; what exists stays as it is. A symbolic link does not lead
/// around the rules.
fn create(files: &dyn Files, path: &Path) -> Result<(), OpenError> {
    if let Ok(existing) = files.resolve(path) {
        return rule(&existing);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create(files, parent)?;
    files.create_dir(path).map_err(failed("create", path))?;
    files.sync_dir(parent).map_err(failed("sync", parent))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { operation, path, source }
}

impl Spool for FileSpool {
    fn commit(&self, batch: Batch) -> Committed {
        let entries = batch.0;
        if entries.is_empty() {
            return Committed::answered(Ok(()));
        }
        let content = |entry: &Entry| match entry {
            Entry::Accepted { content, .. } => content.len() as u64,
            Entry::Progress(_) | Entry::Removed(_) => 0,
        };
        let octets: u64 = entries.iter().map(content).sum();
        if octets > MAX_BATCH {
            return Committed::answered(Err(CommitError::TooLarge(octets)));
        }
        let has_content = entries.iter().any(|entry| matches!(entry, Entry::Accepted { .. }));
        let count = entries.len();
        let records: Vec<_> = (0..)
            .zip(entries)
            .map(|(place, entry)| {
                let effect = match &entry {
                    Entry::Accepted { id, .. } => Effect::Accepted(*id),
                    Entry::Progress(progress) => Effect::Progress(progress.id),
                    Entry::Removed(id) => Effect::Removed(*id),
                };
                (encoding::encode(entry, place).last(crate::record::size(place) + 1 == count), effect)
            })
            .collect();
        let octets = records.iter().map(|(record, _)| record.len()).sum();
        if octets > 2 * MAX_BATCH {
            return Committed::answered(Err(CommitError::TooLarge(octets)));
        }
        let (answer, committed) = oneshot::channel();
        match self.shared.backlog.push(Pending { records, octets, content: has_content, answer }) {
            Ok(()) => Committed(committed),
            Err(refusal) => Committed::answered(Err(refusal)),
        }
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

    fn content(&self, id: MessageId) -> Loading<'_, Bytes> {
        self.read(id, reader::content)
    }

    fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Relaxed) && !*self.done.borrow()
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
