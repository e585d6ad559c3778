//! What the runs found, each on its own.

use rustix::io::Errno;

use super::{
    disk::SimDisk,
    fate::Storm,
    machine::{Answer, Machine, config},
    workload::Workload,
};
use crate::{CommitError, Config};

const SEGMENT_SIZE: usize = 8 << 10;

#[test]
fn a_spool_may_lie_in_the_root() {
    let config = Config { path: "/spool".into(), ..config(SEGMENT_SIZE) };
    assert!(Machine::open(&SimDisk::new(0), &config).is_ok());
}

#[test]
fn a_path_that_cannot_be_looked_at_is_an_error_and_not_a_new_directory() {
    let disk = SimDisk::new(0);
    disk.fail_at(1, Errno::ACCESS);
    let config = Config { path: "/spool".into(), ..config(SEGMENT_SIZE) };
    assert!(Machine::open(&disk, &config).is_err());
    assert!(disk.changes().is_empty());
}

#[test]
fn large_content_stays_while_its_record_may_appear_after_a_crash() {
    let disk = SimDisk::new(0);
    let (mut machine, _) = Machine::open(&disk, &config(SEGMENT_SIZE)).unwrap();
    machine.ask(Workload::new(0, SEGMENT_SIZE).large());
    disk.storm(Some(Storm { chance: 255, errors: &[Errno::IO], reading: false }));
    let answers = machine.turn();
    assert!(matches!(answers[..], [(_, Answer::Refused(CommitError::Unsettled(_)))]));
    disk.storm(None);
    while machine.tidy() {}
    assert_eq!(machine.files("large").len(), 1);
}
