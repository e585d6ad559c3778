//! Damage that cannot be copied, and other trouble at the same time.

use std::{
    io::IoSlice,
    path::{Path, PathBuf},
};

use empath_common::ByteSize;
use rustix::io::Errno;

use super::{
    fate::Storm,
    machine::{Machine, PATH},
    model::Change,
    runs::{Outcome, Run},
};
use crate::files::Files as _;

/// Octets that copies of damage may come to.
const MOST: u64 = 10_000;

/// A segment of which nothing but damage is left stays while what says so may not be durable, and goes when it is.
pub(super) fn copied_unsettled() -> Outcome<()> {
    let mut run = Run::new(0, 8 << 10);
    run.config.max_damaged = ByteSize(MOST);
    run.open()?;
    let letters = [run.workload.letter(), run.workload.letter()].concat();
    for letter in &letters {
        run.commit([vec![letter.clone()]])?;
    }
    run.disk = run.disk.kill();
    run.abandon();
    let first = first();
    let hoard = Path::new(PATH).join("damaged/hoard.octets");
    let written = |path: &Path, octets: &[u8], at| {
        let file = run.disk.open(path).or_else(|_| run.disk.create(path))?;
        file.write_all_at(&mut [IoSlice::new(octets)], at)
    };
    written(&first, b"flipped", 600).and_then(|()| written(&hoard, &[0; 10_000], 0)).map_err(text)?;

    let (mut machine, report) = Machine::open(&run.disk, &run.config).map_err(text)?;
    if report.damaged.len() != 1 || report.messages != 1 {
        return Err(format!("not what was damaged: {report:?}"));
    }
    let ended = letters.iter().filter_map(|letter| match letter {
        Change::Accepted(id, _) => Some(Change::Removed(*id)),
        _ => None,
    });
    machine.ask(ended.collect());
    machine.turn();

    let disk = run.disk.kill();
    drop(machine);
    disk.storm(Some(Storm { chance: 255, errors: &[Errno::IO], reading: false }));
    let (mut machine, _) = Machine::open(&disk, &run.config).map_err(text)?;
    disk.storm(None);
    disk.remove(&hoard).map_err(text)?;
    while machine.tidy() {}
    if machine.is_settled() || disk.kind(&first).is_err() {
        return Err(format!("settled: {}, {:?}", machine.is_settled(), machine.files("journal")));
    }
    if machine.files("damaged").is_empty() {
        return Err("the damage was not copied".to_owned());
    }
    machine.retry();
    while machine.tidy() {}
    if disk.kind(&first).is_ok() {
        return Err(format!("the segment stays: {:?}", machine.files("journal")));
    }
    Ok(())
}

/// A long history is damaged while the spool is in use. What a start finds behind the damage it finds as well when the rest of
/// the history was to be condensed meanwhile.
pub(super) fn condensed() -> Outcome<()> {
    let mut run = Run::new(0, 64 << 10);
    run.open()?;
    let letter = run.workload.letter();
    run.commit([letter])?;
    let mut batches = run.workload.attempts();
    // Behind it, what does not verify is damage and no unfinished write.
    batches.push(run.workload.letter());
    let machine = run.machine.as_mut().ok_or("no spool")?;
    for batch in batches {
        machine.ask(batch);
        machine.turn();
    }
    let mut octets = vec![0; 64 << 10];
    let segment = run.disk.open(&first()).map_err(text)?;
    segment.read_all_at(&mut octets, 0).map_err(text)?;
    let detail = b"attempt ";
    let places: Vec<_> = memchr::memmem::find_iter(&octets, detail).collect();
    let at = places[places.len() - 5];
    segment.write_all_at(&mut [IoSlice::new(b"flipped")], at as u64).map_err(text)?;
    drop(segment);
    let before = run.disk.kill();
    run.rest()?;
    let found = [before, run.disk.kill()].map(|disk| {
        let (machine, report) = Machine::open(&disk, &run.config).map_err(text)?;
        let recipients = machine.messages()?.into_values().map(|message| message.recipients);
        Ok::<_, String>((report.damaged.len(), recipients.collect::<Vec<_>>()))
    });
    let [before, after] = found;
    let (before, after) = (before?, after?);
    if before.0 != 1 || before != after {
        return Err(format!("{before:?}\n{after:?}"));
    }
    Ok(())
}

fn first() -> PathBuf {
    Path::new(PATH).join("journal/00000001.seg")
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err takes")]
fn text(failure: impl ToString) -> String {
    failure.to_string()
}
