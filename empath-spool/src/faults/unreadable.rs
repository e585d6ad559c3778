//! Blocks that cannot be read at one start and can at a later one.

use std::path::Path;

use super::{
    machine::{Machine, PATH},
    runs::{Outcome, Run},
};
use crate::segment::Name;

/// Works, stops, starts with bad blocks, perhaps works on, and starts without them.
pub(super) fn run(seed: u64) -> Outcome<()> {
    let mut run = Run::new(seed, 8 << 10);
    run.open()?;
    for _ in 0..run.rng.usize(1..30) {
        run.work()?;
        let tasks = run.rng.usize(..3);
        run.tidy(tasks)?;
    }
    run.stop();
    for _ in 0..run.rng.usize(1..3) {
        run.spoil();
        run.start()?;
        if run.rng.bool() {
            for _ in 0..run.rng.usize(1..8) {
                let letter = run.workload.letter();
                run.commit([letter])?;
                let tasks = run.rng.usize(..4);
                run.tidy(tasks)?;
            }
        }
        run.stop();
        run.disk.mend();
        run.start()?;
        let found = run.machine.as_ref().ok_or("no spool")?.messages()?;
        run.model.nothing_lost(&found)?;
        run.stop();
    }
    Ok(())
}

impl Run {
    /// The process dies, or the power fails.
    fn stop(&mut self) {
        self.disk = if self.rng.bool() { self.disk.kill() } else { self.disk.power_loss(&mut self.rng) };
        self.abandon();
    }

    /// Some sectors of a segment go bad, its first and its last record more often than others.
    fn spoil(&mut self) {
        let journal = Path::new(PATH).join("journal");
        let segments: Vec<_> = self
            .disk
            .files(&journal)
            .into_iter()
            .filter(|(name, _)| matches!(Name::parse(name), Some(Name::Segment(_))))
            .collect();
        let (name, length) = &segments[self.rng.usize(..segments.len())];
        let sectors = length.div_ceil(512).max(1);
        let first = if self.rng.u8(..4) == 0 { 0 } else { self.rng.usize(..sectors) };
        for sector in first..first + self.rng.usize(1..6) {
            self.disk.spoil(&journal.join(name), sector);
        }
    }

    /// Starts on a disk of which damage may be found.
    fn start(&mut self) -> Outcome<()> {
        let opened = Machine::open(&self.disk, &self.config);
        let (machine, _) = opened.map_err(|failure| format!("the spool does not open: {failure}"))?;
        self.machine = Some(machine);
        Ok(())
    }
}
