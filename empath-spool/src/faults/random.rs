//! Runs that are made from a seed in every respect.

use fastrand::Rng;
use rustix::io::Errno;

use super::{
    fate::Storm,
    runs::{
        Counts,
        End::{self, Crashed, Reached},
        Outcome, Run,
    },
};

/// Failures that come together.
const ERRORS: [&[Errno]; 6] = [
    &[Errno::NOSPC],
    &[Errno::DQUOT],
    &[Errno::ROFS],
    &[Errno::IO],
    &[Errno::ACCESS, Errno::MFILE],
    &[Errno::IO, Errno::NOSPC, Errno::NOMEM],
];

/// How many operations a trace shows.
const TRACED: usize = 400;

/// The run of a seed: what happened in it, and its last operations if they are to be traced.
pub(super) fn run(seed: u64, trace: bool) -> (Outcome<Counts>, Vec<String>) {
    let mut rng = Rng::with_seed(seed);
    let segment_size = [8 << 10, 12 << 10, 16 << 10][rng.usize(..3)];
    let mut run = Run::new(rng.u64(..), segment_size);
    if trace {
        run.disk.keep_trace(TRACED);
    }
    let plan = Plan {
        crashes: rng.u8(..4) > 0,
        storm: (rng.u8(..3) == 0).then(|| Storm {
            chance: [4, 40, 255][rng.usize(..3)],
            errors: ERRORS[rng.usize(..ERRORS.len())],
            reading: rng.u8(..3) == 0,
        }),
        full: rng.u8(..6) == 0,
    };
    if rng.u8(..3) == 0 {
        run.disk.dawdle();
    }
    let outcome = run.random(plan);
    let outcome = outcome.map(|()| run.counts).map_err(|failure| format!("{failure} ({plan:?})"));
    (outcome, run.disk.trace())
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    crashes: bool,
    storm: Option<Storm>,
    full: bool,
}

impl Run {
    fn random(&mut self, plan: Plan) -> Outcome<()> {
        self.weather = plan.storm;
        if self.open()? == Crashed {
            return Err("a stop that nobody ordered".to_owned());
        }
        for _ in 0..self.rng.usize(1..4) {
            if plan.crashes {
                self.disk.crash_at(self.disk.operations() + self.rng.u64(1..400));
            }
            if self.life(plan)? == Crashed {
                self.recover()?;
            }
        }
        while self.finish()? == Crashed {
            self.recover()?;
        }
        Ok(())
    }

    /// Some steps of any kind.
    fn life(&mut self, plan: Plan) -> Outcome {
        for _ in 0..self.rng.usize(1..40) {
            let end = match self.rng.u8(..32) {
                0..20 => self.work()?,
                20..26 => {
                    let tasks = self.rng.usize(..4);
                    self.tidy(tasks)?
                }
                26 => self.rest()?,
                31 if self.rng.bool() => self.idle()?,
                27 if !self.troubled => self.check()?,
                28 => self.reopen()?,
                29 => self.kill()?,
                30 if plan.full => self.fill(),
                _ => self.turn_weather(plan),
            };
            if end == Crashed {
                return Ok(Crashed);
            }
        }
        Ok(Reached)
    }

    /// Leaves a little space.
    fn fill(&mut self) -> End {
        let (some, few) = (self.rng.usize(..40_000), self.rng.usize(..3));
        let few = if self.rng.bool() { few } else { usize::MAX };
        self.leave(some, few);
        Reached
    }

    fn turn_weather(&mut self, plan: Plan) -> End {
        let storm = plan.storm.filter(|_| self.rng.bool());
        self.disk.storm(storm);
        self.troubled |= storm.is_some();
        Reached
    }
}
