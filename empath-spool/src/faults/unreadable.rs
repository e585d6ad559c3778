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

/// The oldest segment cannot be read to write its message again, and later it can, with nothing else happening.
pub(super) fn compacted_later() -> Outcome<()> {
    let mut run = Run::new(0, 8 << 10);
    run.open()?;
    for _ in 0..40 {
        let letter = run.workload.letter();
        run.commit([letter])?;
    }
    run.remove(1)?;
    let first = Path::new(PATH).join("journal/00000001.seg");
    (0..16).for_each(|sector| run.disk.spoil(&first, sector));
    let machine = run.machine.as_mut().ok_or("no spool")?;
    while machine.tidy() {}
    if machine.compacted() > 0 {
        return Err("what cannot be read was written again".to_owned());
    }
    run.disk.mend();
    while machine.tidy_a_day_later() {}
    machine.turn();
    if machine.compacted() == 0 {
        return Err(format!("nothing was written again: {:?}", machine.files("journal")));
    }
    Ok(())
}
