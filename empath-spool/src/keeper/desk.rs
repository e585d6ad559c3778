//! What the keeper has and is to do, and what of it comes first.

use std::{collections::VecDeque, mem, time::Duration};

use empath_common::MessageId;
use tokio::time::Instant;

use super::Spare;
use crate::{
    compaction::Compaction,
    deletions::{Deletions, Schedule},
    segment::Previous,
};

/// Notes of what the keeper has, and what it is to do.
pub(super) struct Desk {
    pub(super) spare: Option<Spare>,
    /// What outcomes take when the disk is full to the last block.
    pub(super) reserve: Reserve,
    pub(super) next_spare: u32,
    pub(super) preparing: Preparing,
    /// After a file could not be prepared: when the next is tried.
    pub(super) not_before: Option<Instant>,
    /// Segments without messages, oldest first: the next goes only when the one before is gone.
    pub(super) dead: Deletions<u32>,
    /// Files of messages that have ended or were never committed.
    pub(super) large: Deletions<MessageId>,
    /// Segments that stay, to be tried again.
    pub(super) kept: Deletions<u32>,
    /// Segments to write down the contents of, which are read where they are not known.
    pub(super) sealed: VecDeque<(Previous, Option<Vec<u8>>)>,
    /// Messages of the oldest segment on their way into the youngest. Taken out while the thread is at it.
    pub(super) compaction: Compaction,
    pub(super) compact: bool,
    pub(super) stop: bool,
}

/// How long after a failure no file is prepared in advance: every commit asks for one.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Most segments that wait to be written down: what is left out is read at the next start.
pub(super) const MAX_SEALED: usize = 1024;
/// Most of which the contents wait in memory.
pub(super) const MAX_KNOWN: usize = 4;

/// How far a spare file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preparing {
    Not,
    Wanted,
    Going,
}

#[derive(Debug)]
pub(super) enum Reserve {
    Missing,
    /// Being prepared, or there was no space for it: the next time that a spare is wanted, it is tried again.
    Absent,
    Ready(Spare),
}

impl Reserve {
    /// Takes it for `size` octets, if it is there and has that many. Where it is too small it stays for who needs less.
    pub(super) fn take(&mut self, size: u64, octets: u64) -> Option<Spare> {
        match mem::replace(self, Self::Absent) {
            Self::Ready(spare) if size <= octets => Some(spare),
            other => {
                *self = other;
                None
            }
        }
    }
}

pub(super) enum Task {
    Remove(u32),
    RemoveLarge(MessageId),
    Release(u32),
    Prepare(u32),
    PrepareReserve(u32),
    WriteDown(Previous, Option<Vec<u8>>),
    Compact(Compaction),
}

pub(super) enum Next {
    Task(Task),
    Wait(Option<Instant>),
    Stop,
}

impl Desk {
    pub(super) fn new(schedule: Schedule, next_spare: u32) -> Self {
        Self {
            spare: None,
            reserve: Reserve::Absent,
            next_spare,
            preparing: Preparing::Not,
            not_before: None,
            dead: Deletions::new(schedule, true),
            large: Deletions::new(schedule, false),
            kept: Deletions::new(schedule, false),
            sealed: VecDeque::new(),
            compaction: Compaction::default(),
            compact: true,
            stop: false,
        }
    }

    /// The next thing to do.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if let Some(segment) = self.dead.next(now, self.stop) {
            return Next::Task(Task::Remove(segment));
        }
        if let Some(id) = self.large.next(now, self.stop) {
            return Next::Task(Task::RemoveLarge(id));
        }
        if self.stop {
            return Next::Stop;
        }
        if matches!(self.reserve, Reserve::Missing) {
            self.reserve = Reserve::Absent;
            return Next::Task(Task::PrepareReserve(self.take_number()));
        }
        if self.preparing == Preparing::Wanted && self.spare.is_some() {
            self.preparing = Preparing::Not;
        }
        if self.preparing == Preparing::Wanted {
            self.preparing = Preparing::Going;
            return Next::Task(Task::Prepare(self.take_number()));
        }
        if let Some((segment, items)) = self.sealed.pop_front() {
            return Next::Task(Task::WriteDown(segment, items));
        }
        if let Some(segment) = self.kept.next(now, false) {
            return Next::Task(Task::Release(segment));
        }
        if self.compaction.due().is_some_and(|due| due <= now) {
            self.compaction.begin(now);
            self.compact = true;
        }
        let dues = [self.dead.due(), self.large.due(), self.kept.due(), self.compaction.due()];
        let wait = dues.into_iter().flatten().min();
        if mem::take(&mut self.compact) {
            return Next::Task(Task::Compact(mem::take(&mut self.compaction)));
        }
        Next::Wait(wait)
    }

    pub(super) fn take_number(&mut self) -> u32 {
        let number = self.next_spare;
        self.next_spare = number.wrapping_add(1);
        number
    }
}
