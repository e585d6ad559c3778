//! A spool on a simulated disk, stepped by a test.

use std::{io, mem, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use empath_common::{ByteSize, MessageId};
use empath_metrics::Registry;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot::error::TryRecvError,
    time::Instant,
};

use super::{
    disk::SimDisk,
    model::{Change, Changes, Message, Messages},
};
use crate::{
    Batch, CommitError, Committed, Config, Content, Draft as _, Entry, Metrics, OpenError, Report,
    engine::Engine, large::LargeDraft, reader,
};

pub(super) const PATH: &str = "/mail/spool";

/// Content of more octets goes through a draft.
const LARGE: u64 = 6 << 10;

/// A running spool. Nothing happens unless it is told to.
pub(super) struct Machine {
    disk: SimDisk,
    engine: Engine,
    waiting: Vec<(Changes, Committed)>,
}

/// What became of a batch.
pub(super) enum Answer {
    Acknowledged,
    Refused(CommitError),
    None,
}

pub(super) fn config(segment_size: usize) -> Config {
    Config {
        path: PATH.into(),
        segment_size: ByteSize(segment_size as u64),
        large_threshold: ByteSize(LARGE),
        ..Config::default()
    }
}

thread_local! {
    /// Drafts are written asynchronously.
    static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
}

impl Machine {
    pub(super) fn open(disk: &SimDisk, config: &Config) -> Result<(Self, Report), OpenError> {
        let metrics = Metrics::new(&Registry::default());
        let (engine, report) = Engine::open(Arc::new(disk.clone()), config, metrics)?;
        Ok((Self { disk: disk.clone(), engine, waiting: Vec::new() }, report))
    }

    /// Commits a batch; the answer comes later.
    pub(super) fn ask(&mut self, changes: Changes) {
        let entries: Result<Vec<_>, _> = changes.iter().map(|change| self.entry(change)).collect();
        let committed = match entries {
            Ok(entries) => self.engine.shared.commit(Batch(entries)),
            Err(refusal) => Committed::answered(Err(refusal)),
        };
        self.waiting.push((changes, committed));
    }

    fn entry(&self, change: &Change) -> Result<Entry, CommitError> {
        Ok(match change {
            Change::Accepted(id, message) => Entry::Accepted {
                id: *id,
                envelope: Arc::clone(&message.envelope),
                content: if message.is_large() {
                    self.draft(*id, &message.content)?
                } else {
                    message.content.clone().into()
                },
            },
            Change::Progress(progress) => Entry::Progress(progress.clone()),
            Change::Held(id, held) => Entry::Held { id: *id, held: *held },
            Change::Removed(id) => Entry::Removed(*id),
        })
    }

    /// Writes large content.
    pub(super) fn draft(&self, id: MessageId, content: &[u8]) -> Result<Content, CommitError> {
        let Engine { shared, keeper, .. } = &self.engine;
        let mut draft = LargeDraft::create(shared.journal.clone(), Arc::clone(keeper), id).map(Box::new)?;
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                for piece in content.chunks(5000) {
                    draft.write(piece).await?;
                }
                draft.finish().await
            })
        })
    }

    /// Lets the committer handle all that waits; returns the answers that there are.
    pub(super) fn turn(&mut self) -> Vec<(Changes, Answer)> {
        self.engine.committer.turn();
        self.answers()
    }

    /// Lets the committer try whether the disk works again, as it does once a second if it did not.
    pub(super) fn retry(&mut self) -> Vec<(Changes, Answer)> {
        if self.engine.committer.current.is_none() || self.engine.shared.is_starved() {
            self.engine.committer.retry();
        }
        self.answers()
    }

    fn answers(&mut self) -> Vec<(Changes, Answer)> {
        let mut answers = Vec::new();
        for (changes, mut committed) in mem::take(&mut self.waiting) {
            match committed.0.try_recv() {
                Ok(Ok(())) => answers.push((changes, Answer::Acknowledged)),
                Ok(Err(refusal)) => answers.push((changes, Answer::Refused(refusal))),
                Err(TryRecvError::Empty) if !self.disk.has_crashed() => {
                    self.waiting.push((changes, committed));
                }
                Err(_) => answers.push((changes, Answer::None)),
            }
        }
        answers
    }

    /// How many batches still have no answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Ends without a word; returns what has no answer.
    pub(super) fn abandon(self) -> impl Iterator<Item = Changes> {
        self.waiting.into_iter().map(|(changes, _)| changes)
    }

    /// Lets the keeper do one thing; false if there was none.
    pub(super) fn tidy(&self) -> bool {
        // A day later, so that nothing waits for its next try.
        self.engine.keeper.turn(Instant::now() + Duration::from_hours(24))
    }

    /// The same after another day.
    pub(super) fn tidy_a_day_later(&self) -> bool {
        self.engine.keeper.turn(Instant::now() + Duration::from_hours(48))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.engine.shared.is_healthy()
    }

    /// Whether what the start has found is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.engine.committer.unsettled.is_none()
    }

    pub(super) fn messages(&self) -> Result<Messages, String> {
        let one = |id| {
            let stored = reader::load(&self.engine.shared, id).map_err(|failure| failure.to_string())?;
            let content = reader::content(&self.engine.shared, id).map_err(|failure| failure.to_string())?;
            let content = octets(&content).map_err(|failure| format!("content of {id}: {failure}"))?;
            if stored.size != content.len() as u64 {
                return Err(format!("{id} has {} octets, not {}", content.len(), stored.size));
            }
            Ok((
                id,
                Message {
                    envelope: stored.envelope,
                    content,
                    recipients: stored.recipients,
                    held: stored.held,
                },
            ))
        };
        let ids = self.engine.shared.index().ids();
        ids.into_iter().map(one).collect()
    }

    /// Ends in order.
    pub(super) fn close(self) {
        self.engine.committer.end();
    }

    /// How many messages were written again.
    pub(super) fn compacted(&self) -> u64 {
        self.engine.shared.metrics.compacted.get()
    }

    /// How many messages had their `Progress` condensed.
    pub(super) fn condensed(&self) -> u64 {
        self.engine.shared.metrics.condensed.get()
    }

    /// Octets of records that matter, and how many messages have too many `Progress`.
    pub(super) fn live(&self) -> (usize, usize) {
        let index = self.engine.shared.index();
        let messages = index.ids().into_iter().filter_map(|id| index.message(id));
        let long = messages.filter(crate::index::Message::is_long);
        (usize::try_from(index.octets().1).unwrap_or(usize::MAX), long.count())
    }

    /// Octets in the journal's directory.
    pub(super) fn journal(&self) -> usize {
        self.files("journal").iter().map(|(_, length)| length).sum()
    }

    /// The names in a directory of the spool, with their lengths.
    pub(super) fn files(&self, directory: &str) -> Vec<(String, usize)> {
        self.disk.files(&Path::new(PATH).join(directory))
    }
}

fn octets(content: &Content) -> io::Result<Bytes> {
    let Some(large) = content.as_large() else {
        return Ok(content.in_memory().cloned().unwrap_or_default());
    };
    let mut octets = Vec::new();
    while (octets.len() as u64) < large.length() {
        let at = octets.len() as u64;
        octets.extend(large.piece(at, large.buffer(at))?);
    }
    large.check()?;
    Ok(octets.into())
}

impl Message {
    /// Whether its content has a file of its own.
    pub(super) fn is_large(&self) -> bool {
        self.content.len() as u64 > LARGE
    }
}
