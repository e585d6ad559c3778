//! A disk that fills up and empties itself.

use super::runs::{Outcome, Run};

const SEGMENT_SIZE: usize = 8 << 10;

/// More messages than the disk has space for.
const MANY: usize = 200;

/// Commits messages until the disk has taken all that fits into a new spool and `space` octets; then the outcome
/// and end of each; then messages again.
pub(super) fn filled(space: usize) -> Outcome<()> {
    let mut run = Run::new(0, SEGMENT_SIZE);
    run.open()?;
    run.leave(space, usize::MAX);
    for _ in 0..MANY {
        let letter = run.workload.letter();
        run.commit([letter])?;
        run.tidy(1)?;
        if run.counts.refused > 0 {
            break;
        }
    }
    let (taken, refused) = (run.counts.acknowledged, run.counts.refused);
    if refused == 0 {
        return Err("the disk is never full".to_owned());
    }
    run.resume();
    for end in run.workload.ends() {
        run.commit([end])?;
        run.tidy(10)?;
    }
    if run.counts.refused > refused {
        return Err(format!("outcomes of {taken} messages are refused: {:?}", run.counts));
    }
    run.rest()?;
    run.idle()?;
    run.rest()?;
    let letter = run.workload.letter();
    run.commit([letter])?;
    if run.counts.refused > refused {
        return Err(format!("an empty spool takes no message: {:?}", run.files()));
    }
    run.check().map(drop)
}

/// Fills a segment on a disk that has no further block once a reserve is there; then the outcomes of `ended` messages,
/// before any space is freed.
pub(super) fn to_the_last_block(ended: usize) -> Outcome<()> {
    let mut run = Run::new(0, 16 * SEGMENT_SIZE);
    run.open()?;
    for _ in 0..MANY {
        let letter = run.workload.letter();
        run.commit([letter])?;
    }
    run.tidy(3)?;
    run.leave(0, usize::MAX);
    while run.counts.refused == 0 {
        let letter = run.workload.letter();
        run.commit([letter])?;
    }
    run.resume();
    let ends = run.workload.ends();
    // One batch of more than there is space for takes none of it away.
    run.commit([ends.concat()])?;
    for end in ends.into_iter().take(ended) {
        run.commit([end])?;
    }
    if run.counts.refused != 2 {
        return Err(format!("outcomes are refused: {:?}", run.counts));
    }
    run.check().map(drop)
}

/// Commits outcomes to the second half of a segment on a disk that has no space for the next: how often one is tried for.
pub(super) fn spares_in_vain() -> Outcome<usize> {
    let mut run = Run::new(0, 16 * SEGMENT_SIZE);
    run.open()?;
    run.leave(0, usize::MAX);
    run.disk.keep_trace(usize::MAX);
    for _ in 0..MANY / 3 {
        let letter = run.workload.letter();
        run.commit([letter])?;
    }
    run.resume();
    for end in run.workload.ends().into_iter().take(20) {
        run.commit([end])?;
        run.tidy(3)?;
    }
    if run.counts.refused > 0 {
        return Err(format!("there is too little space: {:?}", run.counts));
    }
    Ok(run
        .disk
        .trace()
        .iter()
        .filter(|operation| operation.starts_with("create ") || operation.contains(" create "))
        .count())
}
