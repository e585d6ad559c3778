use std::{
    collections::BTreeSet,
    io::{ErrorKind, IoSlice},
};

use super::*;
use crate::faults::content::SECTOR;

const OLD: &[u8] = b"old";

/// A disk with the synced directory `/d` and in it the synced file `/d/a`.
fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write(&disk, "/d/a", OLD).unwrap().sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk
}

fn write(disk: &SimDisk, path: &str, octets: &[u8]) -> io::Result<Box<dyn File>> {
    let file = disk.open(Path::new(path)).or_else(|_| disk.create(Path::new(path)))?;
    let written = file.write_at(&[IoSlice::new(octets)], 0)?;
    if written < octets.len() { Err(ErrorKind::WriteZero.into()) } else { Ok(file) }
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let mut octets = vec![0; 10_000];
    let length = disk.open(Path::new(path)).ok()?.read_at(&mut octets, 0).unwrap();
    octets.truncate(length);
    Some(octets)
}

/// How many of many power failures leave a file with this content.
fn left(disk: &SimDisk, path: &str, octets: &[u8]) -> usize {
    let lost = (0..100).map(|seed| disk.power_loss(&mut Rng::with_seed(seed)));
    lost.filter(|disk| read(disk, path).is_some_and(|found| found == octets)).count()
}

#[test]
fn a_killed_process_loses_nothing_but_its_locks() {
    let disk = disk();
    write(&disk, "/d/a", b"new").unwrap();
    let lock = |disk: &SimDisk| disk.lock(Path::new("/d"), Share::Nobody);
    let _lock = lock(&disk).unwrap();
    assert!(matches!(lock(&disk), Err(LockError::Held(None))));
    let disk = disk.kill();
    assert!(lock(&disk).is_ok());
    assert_eq!(read(&disk, "/d/a").unwrap(), b"new");
    // Nor does it sync anything.
    assert!((1..100).contains(&left(&disk, "/d/a", OLD)));
}

#[test]
fn a_power_failure_loses_what_was_not_synced_or_has_no_synced_name() {
    let disk = disk();
    assert_eq!(left(&disk, "/d/a", OLD), 100);
    write(&disk, "/d/b", b"new").unwrap().sync().unwrap();
    assert!((1..100).contains(&left(&disk, "/d/b", b"new")));
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(left(&disk, "/d/b", b"new"), 100);
    disk.remove(Path::new("/d/b")).unwrap();
    assert!((1..100).contains(&left(&disk, "/d/b", b"new")));
}

#[test]
fn a_machine_that_stopped_does_nothing_more() {
    let mut torn = BTreeSet::new();
    for seed in 0..20 {
        let disk = disk();
        disk.state().fates.rng = Rng::with_seed(seed);
        // It is opened, then written.
        disk.crash_at(disk.operations() + 2);
        assert!(write(&disk, "/d/a", &[b'n'; 2 * SECTOR]).is_err());
        assert!(disk.has_crashed() && read(&disk, "/d/a").is_none());
        torn.insert(read(&disk.kill(), "/d/a").unwrap());
    }
    assert_eq!(torn, [OLD.to_vec(), vec![b'n'; SECTOR], vec![b'n'; 2 * SECTOR]].into());
}

#[test]
fn what_a_killed_process_removed_comes_back_after_a_power_failure() {
    let disk = disk();
    disk.remove(Path::new("/d/a")).unwrap();
    assert!((1..100).contains(&left(&disk.kill(), "/d/a", OLD)));
}

#[test]
fn one_operation_fails_and_those_around_it_do_not() {
    let disk = disk();
    disk.fail_at(disk.operations() + 2, Errno::DQUOT);
    let kind = write(&disk, "/d/a", b"new").map(drop).map_err(|failure| failure.kind());
    assert_eq!(kind, Err(ErrorKind::QuotaExceeded));
    assert!(write(&disk, "/d/a", b"new").is_ok());
}

#[test]
fn a_full_disk_takes_what_fits_until_an_unnamed_file_is_closed() {
    let disk = disk();
    disk.limit(disk.used().0 + 1024, usize::MAX);
    let b = write(&disk, "/d/b", &[1; 1024]).unwrap();
    assert_eq!(disk.free(Path::new("/d")).unwrap().octets, 0);
    assert_eq!(write(&disk, "/d/c", b"more").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(b.allocate(1025).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove(Path::new("/d/b")).unwrap();
    assert!(write(&disk, "/d/c", b"more").is_err());
    drop(b);
    assert!(write(&disk, "/d/c", b"more").is_ok());
    disk.limit(usize::MAX, disk.used().1);
    assert_eq!(write(&disk, "/d/e", b"").unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let disk = disk();
        disk.keep_trace(100);
        disk.storm(Some(Storm { chance: 128, errors: &[Errno::IO, Errno::NOSPC], reading: true }));
        disk.state().fates.rng = Rng::with_seed(seed);
        for octet in 0..50 {
            let _ = write(&disk, "/d/a", &[octet; 3000]).and_then(|file| file.sync());
        }
        let trace = disk.trace();
        disk.storm(None);
        (trace, read(&disk.power_loss(&mut Rng::with_seed(seed)), "/d/a"))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
