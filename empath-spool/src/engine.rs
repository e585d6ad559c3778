//! Everything of the journal but its threads: what they do can be done step by step as well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::{oneshot, watch};

use crate::{
    Batch, CommitError, Committed, Config, Entry, Metrics, OpenError, Quarantine, Report, aside,
    backlog::{Backlog, Class, Pending},
    committer::{Committer, Shared},
    deletions::Schedule,
    directory::{lock, prepare},
    encoding,
    files::{Files, Lock, Share},
    index::Effect,
    keeper::Keeper,
    reader::Open,
    recovery::recover,
    segment::{Journal, Previous},
};

/// The parts of an open journal.
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) committer: Committer,
    pub(crate) lock: Lock,
}

/// Largest batch in octets. Larger content has a file of its own long before this.
const MAX_BATCH: u64 = 256 << 20;

impl Engine {
    /// Locks the directory, reads what is in it and begins a new segment.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        config: &Config,
        metrics: Metrics,
    ) -> Result<(Self, Report), OpenError> {
        let root = prepare(&*files, &config.path)?;
        let lock = lock(&*files, &root, Share::Nobody)?;
        let (most, octets) = (config.max_damaged.0, metrics.damaged_octets.clone());
        let damaged = Quarantine { files: Arc::clone(&files), directory: root.join("damaged"), most, octets };
        // Where it fails, so will copies, and then it is found out again.
        let _ = damaged.octets();
        let journal = Journal {
            files,
            root,
            segment_size: config.segment_size.0,
            sync: config.sync,
            preallocate: config.preallocate,
            damaged,
        };
        let mut found = recover(&journal)?;
        let report = std::mem::take(&mut found.report);
        metrics.damaged.add(report.damaged.len() as u64);
        let shared = Arc::new(Shared {
            journal,
            backlog: Backlog::default(),
            index: std::mem::take(&mut found.index).into(),
            open: Open::new(found.unsettled.as_ref()),
            healthy: AtomicBool::new(true),
            starved: AtomicBool::new(false),
            metrics,
        });
        // A record that a power loss may still take away gives nothing its place again.
        if found.unsettled.is_none() {
            aside::give_back(&shared);
        }
        let _ = shared.journal.damaged.octets();
        shared.metrics.holds(&shared.index());
        let schedule =
            Schedule { interval: config.cleanup_interval, max_attempts: config.max_cleanup_attempts };
        let keeper = Keeper::new(Arc::clone(&shared), schedule, &found);
        let mut committer = Committer {
            shared: Arc::clone(&shared),
            keeper: Arc::clone(&keeper),
            current: None,
            previous: found.previous,
            next: found.next,
            unsettled: found.unsettled,
            orphans: found.orphans,
            done: watch::channel(false).0,
        };
        // A small segment will do: the queue must go out for space to come back. Should the disk not take even that, or
        // not work at all, it is reported, and the spool refuses everything until it does; what is there can be read.
        drop(committer.begin(0, Class::Outcome));
        for (number, used) in shared.index().segments() {
            let last = found.previous.is_some_and(|previous| previous.segment == number);
            if last || found.without_contents.contains(&number) {
                keeper.sealed(Previous { segment: number, epoch: used.epoch, end: used.end }, None);
            }
        }
        committer.give_up_dead();
        Ok((Self { shared, keeper, committer, lock }, report))
    }
}

impl Shared {
    /// Encodes a batch and hands it to the committer.
    pub(crate) fn commit(&self, batch: Batch) -> Committed {
        let entries = batch.0;
        if entries.is_empty() {
            return Committed::answered(Ok(()));
        }
        let content = |entry: &Entry| match entry {
            Entry::Accepted { content, .. } => content.in_memory().map_or(0, |content| content.len() as u64),
            Entry::Progress(_) | Entry::Held { .. } | Entry::Removed(_) => 0,
        };
        let octets: u64 = entries.iter().map(content).sum();
        if octets > MAX_BATCH {
            return Committed::answered(Err(CommitError::TooLarge(octets)));
        }
        let with_message = entries.iter().any(|entry| matches!(entry, Entry::Accepted { .. }));
        let class = if with_message { Class::Content } else { Class::Outcome };
        let (count, mut large) = (entries.len(), Vec::new());
        let mut record = |(place, entry): (u32, Entry)| {
            let effect = match &entry {
                Entry::Accepted { id, content, .. } => {
                    large.extend(content.as_large().cloned());
                    Effect::Accepted(*id)
                }
                Entry::Progress(progress) => Effect::Progress(progress.id),
                Entry::Held { id, .. } => Effect::Progress(*id),
                Entry::Removed(id) => Effect::Removed(*id),
            };
            (encoding::encode(entry, place).last(crate::record::size(place) + 1 == count), effect)
        };
        let records: Vec<_> = (0..).zip(entries).map(&mut record).collect();
        let octets = records.iter().map(|(record, _)| record.len()).sum();
        if octets > 2 * MAX_BATCH {
            return Committed::answered(Err(CommitError::TooLarge(octets)));
        }
        let (answer, committed) = oneshot::channel();
        match self.backlog.push(Pending { records, octets, class, large, answer }) {
            Ok(()) => Committed(committed),
            Err(refusal) => Committed::answered(Err(refusal)),
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }
}
