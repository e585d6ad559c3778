//! Drives a spool through work, failures, stops and restarts, and compares it with the model all the way.

use std::{ops::Add, path::Path};

use fastrand::Rng;

use super::{
    disk::SimDisk,
    fate::Storm,
    machine::{Answer, Machine, config},
    model::{Changes, Model},
    workload::Workload,
};
use crate::{CommitError, Config, files::Files as _};

/// More turns than the keeper ever needs.
const MANY: usize = 500;

pub(super) struct Run {
    pub(super) rng: Rng,
    pub(super) disk: SimDisk,
    pub(super) model: Model,
    /// What the spool shows while that may not be durable.
    shown: Option<Model>,
    pub(super) workload: Workload,
    pub(super) config: Config,
    pub(super) machine: Option<Machine>,
    /// Whether there was a start that made the spool.
    made: bool,
    /// Failures that a start may meet.
    pub(super) weather: Option<Storm>,
    /// Whether operations fail without a stop.
    pub(super) troubled: bool,
    pub(super) counts: Counts,
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) starts: u64,
    pub(super) stops: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unsettled: u64,
    pub(super) unsettled_starts: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            starts: self.starts + other.starts,
            stops: self.stops + other.stops,
            acknowledged: self.acknowledged + other.acknowledged,
            refused: self.refused + other.refused,
            unsettled: self.unsettled + other.unsettled,
            unsettled_starts: self.unsettled_starts + other.unsettled_starts,
        }
    }
}

/// Whether the machine stopped meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Reached,
    Crashed,
}

use End::{Crashed, Reached};

pub(super) type Outcome<T = End> = Result<T, String>;

impl Run {
    pub(super) fn new(seed: u64, segment_size: usize) -> Self {
        let disk = SimDisk::new(seed);
        // A directory of the system, there before the spool.
        disk.create_dir(Path::new("/mail")).expect("a directory");
        disk.sync_dir(Path::new("/")).expect("a sync");
        Self {
            rng: Rng::with_seed(seed),
            disk,
            model: Model::default(),
            shown: None,
            workload: Workload::new(seed, segment_size),
            config: config(segment_size),
            machine: None,
            made: false,
            weather: None,
            troubled: false,
            counts: Counts::default(),
        }
    }

    /// The same model on another disk.
    pub(super) fn on(&self, disk: SimDisk, seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            disk,
            model: self.model.clone(),
            shown: None,
            workload: self.workload.clone(),
            config: self.config.clone(),
            machine: None,
            made: self.made,
            weather: self.weather,
            troubled: false,
            counts: Counts::default(),
        }
    }

    fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("the spool is open")
    }

    fn end(&self) -> End {
        if self.disk.has_crashed() { Crashed } else { Reached }
    }

    /// Starts the spool and finds out what there is.
    pub(super) fn open(&mut self) -> Outcome {
        self.counts.starts += 1;
        (self.machine, self.shown) = (None, None);
        let opened = Machine::open(&self.disk, &self.config);
        if self.disk.has_crashed() {
            return Ok(Crashed);
        }
        let (machine, report) = match opened {
            Err(_) if self.troubled && !self.made => {
                // There is nothing to lose yet, and an operator sees to it.
                self.disk.storm(None);
                self.disk.limit(usize::MAX, usize::MAX);
                return self.open();
            }
            opened => opened.map_err(|failure| format!("the spool does not open: {failure}"))?,
        };
        self.made = true;
        if !report.damaged.is_empty() {
            return Err(format!("damage on a sound disk: {:?}", report.damaged));
        }
        let (found, settled) = (machine.messages(), machine.is_settled());
        self.machine = Some(machine);
        if self.disk.has_crashed() {
            return Ok(Crashed);
        }
        let mut model = self.model.clone();
        model.recover(&found?)?;
        if settled {
            self.model = model;
        } else if self.troubled {
            self.counts.unsettled_starts += 1;
            self.shown = Some(model);
        } else {
            return Err("a start on a sound disk settles nothing".to_owned());
        }
        self.resume();
        Ok(Reached)
    }

    /// Has the next start meet failures of writing, or none at all.
    fn turn_weather_for_start(&mut self) {
        let weather = self.weather.filter(|_| self.rng.bool());
        self.disk.storm(weather.map(|storm| Storm { reading: false, ..storm }));
        self.troubled |= weather.is_some();
    }

    /// Limits what is left of the disk.
    pub(super) fn leave(&mut self, octets: usize, inodes: usize) {
        let used = self.disk.used();
        self.disk.limit(used.0.saturating_add(octets), used.1.saturating_add(inodes));
        self.troubled = true;
    }

    /// Forgets what was asked for in vain.
    pub(super) fn resume(&mut self) {
        self.workload.resume(&self.shown.as_ref().unwrap_or(&self.model).messages);
    }

    pub(super) fn compacted(&mut self) -> u64 {
        self.machine().compacted()
    }

    pub(super) fn condensed(&mut self) -> u64 {
        self.machine().condensed()
    }

    pub(super) fn files(&mut self) -> Vec<(String, usize)> {
        self.machine().files("journal")
    }

    /// Commits batches at one go.
    pub(super) fn commit(&mut self, batches: impl IntoIterator<Item = Changes>) -> Outcome {
        for changes in batches.into_iter().filter(|changes| !changes.is_empty()) {
            self.machine().ask(changes);
            if self.rng.u8(..4) == 0 {
                // The keeper is at work meanwhile.
                self.machine().tidy();
            }
        }
        let answers = self.machine().turn();
        self.take(answers)
    }

    /// Commits some batches of the workload.
    pub(super) fn work(&mut self) -> Outcome {
        let count = self.rng.usize(1..=4);
        let batches: Vec<_> = (0..count).map(|_| self.workload.batch()).collect();
        self.commit(batches)
    }

    /// Tries the oldest message in vain for long.
    pub(super) fn attempt(&mut self) -> Outcome {
        let attempts = self.workload.attempts();
        self.commit(attempts)
    }

    /// Ends all messages but some.
    pub(super) fn remove(&mut self, but: usize) -> Outcome {
        let removals = self.workload.removals(but);
        self.commit(removals)
    }

    fn take(&mut self, answers: Vec<(Changes, Answer)>) -> Outcome {
        let crashed = self.disk.has_crashed();
        if self.machine().is_settled()
            && let Some(shown) = self.shown.take()
        {
            self.model = shown;
        }
        for (changes, answer) in answers {
            match answer {
                Answer::Acknowledged => {
                    self.counts.acknowledged += 1;
                    self.model.acknowledged(&changes);
                }
                Answer::Refused(_) | Answer::None if crashed => self.model.open(changes, self.troubled),
                Answer::Refused(CommitError::Unsettled(_)) if self.troubled => {
                    self.counts.unsettled += 1;
                    self.model.open(changes, true);
                }
                // Nothing of it may ever appear.
                Answer::Refused(CommitError::Full(_) | CommitError::Io(_)) if self.troubled => {
                    self.counts.refused += 1;
                }
                Answer::Refused(refusal) => return Err(format!("refused without need: {refusal}")),
                Answer::None => return Err("a batch lost its answer".to_owned()),
            }
        }
        if !crashed && self.machine().is_healthy() {
            if self.machine().waiting() > 0 {
                return Err("a batch has no answer from a healthy spool".to_owned());
            }
            self.model.settle();
        }
        Ok(self.end())
    }

    /// Lets a second pass in which nothing is asked for.
    pub(super) fn idle(&mut self) -> Outcome {
        let answers = self.machine().retry();
        self.take(answers)
    }

    /// Lets the keeper do up to so many things. What it hands to the committer may wait until more comes.
    pub(super) fn tidy(&mut self, tasks: usize) -> Outcome {
        for _ in 0..tasks {
            if !self.machine().tidy() {
                break;
            }
            if self.rng.bool() {
                self.commit([])?;
            }
        }
        Ok(self.end())
    }

    /// Lets the keeper do all that there is to do.
    pub(super) fn rest(&mut self) -> Outcome {
        for _ in 0..MANY {
            let more = self.machine().tidy();
            if self.commit([])? == Crashed || !more {
                return Ok(self.end());
            }
        }
        if self.troubled { Ok(Reached) } else { Err("the keeper finds no end".to_owned()) }
    }

    pub(super) fn check(&mut self) -> Outcome {
        let found = self.machine().messages();
        if self.disk.has_crashed() {
            return Ok(Crashed);
        }
        self.shown.as_ref().unwrap_or(&self.model).check(&found?)?;
        Ok(Reached)
    }

    /// Ends in order and starts again.
    pub(super) fn reopen(&mut self) -> Outcome {
        if let Some(machine) = self.machine.take() {
            machine.close();
        }
        if self.disk.has_crashed() {
            return Ok(Crashed);
        }
        self.turn_weather_for_start();
        self.open()
    }

    /// Kills the process and starts it again.
    pub(super) fn kill(&mut self) -> Outcome {
        self.disk = self.disk.kill();
        self.abandon();
        self.turn_weather_for_start();
        self.open()
    }

    /// Nobody will answer what waits.
    pub(super) fn abandon(&mut self) {
        for changes in self.machine.take().into_iter().flat_map(Machine::abandon) {
            self.model.open(changes, true);
        }
    }

    /// Lets the power fail, or the process die, and starts again, until that succeeds.
    pub(super) fn recover(&mut self) -> Outcome<()> {
        loop {
            self.counts.stops += 1;
            let powered = self.rng.u8(..4) == 0;
            self.disk = if powered { self.disk.kill() } else { self.disk.power_loss(&mut self.rng) };
            self.abandon();
            self.turn_weather_for_start();
            if self.rng.u8(..3) == 0 {
                self.disk.crash_at(self.disk.operations() + self.rng.u64(1..60));
            }
            if self.open()? == Reached {
                return Ok(());
            }
        }
    }

    /// What a healthy disk must bring back: acceptance, a keeper at rest, all messages, before and after a restart.
    pub(super) fn finish(&mut self) -> Outcome {
        self.weather = None;
        self.disk.storm(None);
        self.disk.limit(usize::MAX, usize::MAX);
        if self.idle()? == Crashed {
            return Ok(Crashed);
        }
        self.troubled = false;
        if !self.machine().is_healthy() {
            return Err("the spool does not recover by itself".to_owned());
        }
        for step in [Self::work, Self::rest, Self::check, Self::reopen, Self::rest, Self::bounds] {
            if step(self)? == Crashed {
                return Ok(Crashed);
            }
        }
        self.check()
    }

    /// Disk use stays below 2 × live content + 4 segments, and large files belong to messages.
    fn bounds(&mut self) -> Outcome {
        let (live, long) = self.machine().live();
        let most = self.model.live();
        if live > most || long > 0 {
            return Err(format!("{live} octets live, {most} at most; {long} histories too long"));
        }
        let used = self.machine().journal();
        let segment = usize::try_from(self.config.segment_size.0).unwrap_or(usize::MAX);
        let most = 2 * live + 4 * segment;
        if used > most {
            let files = self.machine().files("journal");
            return Err(format!("{used} octets on disk for {live} that live, {most} at most: {files:?}"));
        }
        let large = self.machine().files("large").into_iter().map(|(name, _)| name);
        let messages = self.model.messages.iter().filter(|(_, message)| message.is_large());
        let (large, messages): (Vec<_>, Vec<_>) =
            (large.collect(), messages.map(|(id, _)| id.to_string()).collect());
        if large != messages {
            return Err(format!("large files {large:?} for {messages:?}"));
        }
        Ok(self.end())
    }
}
