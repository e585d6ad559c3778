//! What becomes of each operation: it is counted, and may fail or be the one at which the machine stops.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
    io,
};

use fastrand::Rng;
use rustix::io::Errno;

/// Decides for every operation of a disk.
#[derive(Debug, Clone)]
pub(super) struct Fates {
    pub(super) rng: Rng,
    pub(super) count: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) fail_at: BTreeMap<u64, Errno>,
    pub(super) storm: Option<Storm>,
    /// Whether the system does less than it was asked for, as it may.
    pub(super) dawdles: bool,
    /// The operations that were to change something.
    pub(super) changes: Vec<u64>,
    /// The last operations, at most so many.
    pub(super) trace: Option<VecDeque<String>>,
    pub(super) traced: usize,
}

/// Failures at random.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    /// Of 256 operations, how many fail.
    pub(crate) chance: u8,
    pub(crate) errors: &'static [Errno],
    /// Whether those that change nothing fail too.
    pub(crate) reading: bool,
}

/// What becomes of an operation.
#[derive(Debug)]
pub(super) enum Fate {
    Done,
    /// It fails, and so much of it happens all the same.
    Fails(io::Error, Part),
}

/// How much of an operation happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Nothing,
    Some,
    All,
}

impl Fates {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            count: 0,
            crash_at: None,
            crashed: false,
            fail_at: BTreeMap::new(),
            storm: None,
            dawdles: false,
            changes: Vec::new(),
            trace: None,
            traced: 0,
        }
    }

    /// The same after a restart of the process or the machine.
    pub(super) fn after(&self) -> Self {
        let crash_at = self.crash_at.filter(|_| !self.crashed);
        Self { crash_at, crashed: false, storm: None, ..self.clone() }
    }

    /// Shows what happened between operations.
    pub(super) fn note(&mut self, event: &str) {
        self.trace.iter_mut().for_each(|trace| trace.push_back(format!("----- {event}")));
    }

    /// Decides about the next operation.
    pub(super) fn next(&mut self, changes: bool, operation: fmt::Arguments<'_>) -> Fate {
        self.count += 1;
        if changes && !self.crashed {
            self.changes.push(self.count);
        }
        let fate = self.decide(changes);
        if let Some(trace) = &mut self.trace {
            if trace.len() >= self.traced {
                trace.pop_front();
            }
            let mut line = format!("{:5} {operation}", self.count);
            if let Fate::Fails(error, part) = &fate {
                // Writing to a string can't fail.
                let _ = write!(line, ": {error}, {part:?} done");
            }
            trace.push_back(line);
        }
        fate
    }

    fn decide(&mut self, changes: bool) -> Fate {
        if self.crashed {
            return Fate::Fails(io::Error::other("the machine has stopped"), Part::Nothing);
        }
        let part = [Part::Nothing, Part::Some, Part::All][self.rng.usize(..3)];
        if self.crash_at == Some(self.count) {
            self.crashed = true;
            return Fate::Fails(io::Error::other("the machine stops"), part);
        }
        let storm = self.storm.filter(|storm| (changes || storm.reading) && self.rng.u8(..) < storm.chance);
        let chosen = self.fail_at.get(&self.count).copied();
        match chosen.or(storm.map(|storm| storm.errors[self.rng.usize(..storm.errors.len())])) {
            Some(error) => Fate::Fails(error.into(), part),
            None => Fate::Done,
        }
    }

    /// How many of so many octets are read or written at one go.
    pub(super) fn some(&mut self, octets: usize) -> usize {
        if self.dawdles && octets > 0 && self.rng.u8(..8) == 0 { self.rng.usize(1..=octets) } else { octets }
    }
}
