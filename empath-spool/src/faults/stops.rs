//! A fixed course of work, with a stop or a failure at every operation in turn.

use fastrand::Rng;
use rustix::io::Errno;

use super::{
    fate::Storm,
    runs::{
        End::{Crashed, Reached},
        Outcome, Run,
    },
};

const SEED: u64 = 4;
const SEGMENT_SIZE: usize = 8 << 10;

type Step = fn(&mut Run) -> Outcome;

/// Commits of all kinds, large content, new segments, compaction, contents, deletions, and starts after each kind of
/// end.
fn course(run: &mut Run) -> Outcome {
    let steps: [(usize, Step); 19] = [
        (1, Run::open),
        (8, Run::work),
        (1, |run| run.tidy(2)),
        (6, Run::work),
        (1, Run::reopen),
        (4, Run::work),
        (1, Run::attempt),
        (1, |run| run.tidy(1)),
        (1, Run::rest),
        (1, Run::kill),
        (8, |run| Ok(run.work()?.max(run.tidy(1)?))),
        (1, |run| run.remove(2)),
        (6, Run::work),
        (1, Run::rest),
        (1, |run| run.remove(2)),
        (1, Run::rest),
        (6, Run::work),
        (1, Run::attempt),
        (1, Run::rest),
    ];
    for (times, step) in steps {
        for _ in 0..times {
            if step(run)? == Crashed {
                return Ok(Crashed);
            }
        }
    }
    run.check()
}

/// The operations at which the course can be stopped, all that were done, and how many messages were compacted and
/// how many had their `Progress` condensed.
pub(super) fn points() -> Outcome<(Vec<u64>, Vec<String>, [u64; 2])> {
    let mut run = Run::new(SEED, SEGMENT_SIZE);
    run.disk.keep_trace(usize::MAX);
    let before = run.disk.operations();
    match course(&mut run)? {
        Reached => {
            let points = run.disk.changes().into_iter().filter(|number| *number > before);
            Ok((points.collect(), run.disk.trace(), [run.compacted(), run.condensed()]))
        }
        Crashed => Err("a stop that nobody ordered".to_owned()),
    }
}

/// Stops at an operation, and after each of some losses starts again, which is stopped at every `stride`th of its own
/// operations first. Returns how many starts there were.
pub(super) fn at(point: u64, losses: u64, stride: usize) -> Outcome<u64> {
    let mut run = Run::new(SEED, SEGMENT_SIZE);
    run.disk.crash_at(point);
    if course(&mut run)? == Reached {
        return Err("the course was not stopped".to_owned());
    }
    run.abandon();
    let mut starts = 0;
    for loss in 0..losses {
        let left = || match loss {
            0 => run.disk.kill(),
            _ => run.disk.power_loss(&mut Rng::with_seed(loss)),
        };
        let mut after = run.on(left(), loss);
        after.open()?;
        let points = after.disk.changes();
        let recovery = points.into_iter().filter(|number| *number > run.disk.operations());
        after.finish().map_err(|failure| format!("loss {loss}: {failure}"))?;
        starts += 2;
        let offset = usize::try_from(point + loss).unwrap_or(0) % stride;
        for second in recovery.skip(offset).step_by(stride) {
            let mut again = run.on(left(), loss);
            again.disk.crash_at(second);
            if again.open()? == Crashed {
                again.disk = again.disk.power_loss(&mut Rng::with_seed(second));
                again.abandon();
                again
                    .open()
                    .map_err(|failure| format!("loss {loss}, then stopped at {second}: {failure}"))?;
                starts += 2;
            }
        }
    }
    Ok(starts)
}

/// Lets an operation fail once. The spool refuses what it must, and goes on.
pub(super) fn failing(point: u64) -> Outcome<()> {
    const ERRORS: [Errno; 5] = [Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::ACCESS];
    let mut run = Run::new(SEED, SEGMENT_SIZE);
    run.troubled = true;
    run.disk.fail_at(point, ERRORS[usize::try_from(point).unwrap_or(0) % ERRORS.len()]);
    course(&mut run)?;
    run.finish().map(drop)
}

/// Ends a large message, dies before that is durable, starts while some operations fail, and loses power: what is removed
/// meanwhile must not be missing then. Returns whether such a start could not settle what it found.
pub(super) fn removing(seed: u64) -> Outcome<bool> {
    let mut run = Run::new(seed, SEGMENT_SIZE);
    run.open()?;
    let large = run.workload.large();
    run.commit([large])?;
    run.resume();
    // It is written, and then synced.
    run.disk.crash_at(run.disk.operations() + 2);
    if run.remove(0)? == Reached {
        return Err("the removal was not stopped".to_owned());
    }
    run.disk = run.disk.kill();
    run.abandon();
    run.troubled = true;
    run.disk.storm(Some(Storm { chance: 128, errors: &[Errno::IO], reading: false }));
    run.open()?;
    let settled = run.counts.unsettled_starts == 0;
    run.rest()?;
    run.disk = run.disk.power_loss(&mut Rng::with_seed(seed));
    run.abandon();
    run.open()?;
    run.finish()?;
    Ok(!settled)
}

/// Dies while a message is made durable, and starts on a disk that takes nothing and forgets what it was given: what such a
/// start shows can be read. Returns whether it could not settle what it found.
pub(super) fn reading(seed: u64) -> Outcome<bool> {
    let mut run = Run::new(seed, SEGMENT_SIZE);
    run.open()?;
    let letter = run.workload.letter();
    // It is written, and then synced.
    run.disk.crash_at(run.disk.operations() + 2);
    if run.commit([letter])? == Reached {
        return Err("the commit was not stopped".to_owned());
    }
    run.disk = run.disk.kill();
    run.abandon();
    run.troubled = true;
    run.disk.storm(Some(Storm { chance: 128, errors: &[Errno::IO], reading: false }));
    run.open()?;
    let settled = run.counts.unsettled_starts == 0;
    run.check()?;
    run.finish()?;
    Ok(!settled)
}
