//! Which directories may be a spool.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use crate::failing::Failing;
use crate::support::{accepted, assert_whole, commit, config, id, metrics, open, segments};
use empath_spool::{Backend, Config, DamageReason, Entry, FileSpool, OpenError, PathProblem, Spool};

fn refused(config: &Config) -> OpenError {
    FileSpool::open(config, metrics()).err().unwrap()
}

#[test]
fn a_second_daemon_is_told_who_has_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let failure = refused(&config(directory.path()));
    let expected = format!("is in use by process {}", std::process::id());
    assert!(failure.to_string().contains(&expected), "{failure}");
    drop(spool);
    open(directory.path());
}

#[test]
fn a_link_into_the_system_is_refused_and_nothing_is_created_there() {
    let directory = tempfile::tempdir().unwrap();
    symlink("/dev/shm", directory.path().join("spool")).unwrap();
    symlink("/dev/shm", directory.path().join("up")).unwrap();
    for path in ["spool", "up/empath-spool-test"] {
        let config = Config { path: directory.path().join(path), ..config(directory.path()) };
        let failure = refused(&config);
        assert!(matches!(failure, OpenError::Path { problem: PathProblem::System("/dev"), .. }), "{failure}");
    }
    assert!(!fs::exists("/dev/shm/journal").unwrap() && !fs::exists("/dev/shm/empath-spool-test").unwrap());
}

#[test]
fn a_path_that_goes_up_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let failure = refused(&Config { path: directory.path().join("../x"), ..config(directory.path()) });
    assert!(matches!(failure, OpenError::Path { problem: PathProblem::Parent, .. }), "{failure}");
}

#[tokio::test]
async fn directories_above_the_spool_are_created() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { path: directory.path().join("a/b/c"), ..config(directory.path()) };
    let (spool, _) = FileSpool::open(&config, metrics()).unwrap();
    commit(&spool, accepted(1, 1)).await;
    let free = spool.free().unwrap();
    assert!(free.octets > 0 && free.inodes > 0);
}

#[tokio::test]
async fn the_backend_decides_whether_mail_survives() {
    let directory = tempfile::tempdir().unwrap();
    for (backend, survives) in [(Backend::Memory, false), (Backend::File, true)] {
        let config = Config { backend, ..config(directory.path()) };
        let (spool, _) = empath_spool::open(&config, metrics()).unwrap();
        commit(&*spool, accepted(1, 1)).await;
        drop(spool);
        let (spool, report) = empath_spool::open(&config, metrics()).unwrap();
        assert_eq!((spool.len(), report.messages), (usize::from(survives), usize::from(survives)));
    }
}

#[tokio::test]
async fn a_directory_with_a_segments_name_is_reported_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 100)).await;
    drop(spool);
    let stray = directory.path().join("spool/journal/00000099.seg");
    fs::create_dir(&stray).unwrap();
    let (spool, report) = open(directory.path());
    let [damage] = &report.damaged[..] else { panic!("{report:?}") };
    assert_eq!((damage.segment, damage.reason, &damage.copy), (99, DamageReason::Unreadable, &None));
    commit(&spool, accepted(2, 100)).await;
    commit(&spool, Entry::Removed(id(1))).await;
    drop(spool);
    assert!(stray.is_dir());
    let newest = segments(directory.path()).pop().unwrap();
    assert!(newest.ends_with("00000100.seg"), "{newest:?}");
    let (spool, _) = open(directory.path());
    assert_eq!(spool.ids(), [id(2)]);
    commit(&spool, Entry::Removed(id(2))).await;
    drop(spool);
    assert!(open(directory.path()).0.is_empty());
    assert!(
        segments(directory.path()).len() <= 3,
        "it does not keep the others: {:?}",
        segments(directory.path())
    );
    assert!(stray.is_dir());
}

#[tokio::test]
async fn a_segment_that_cannot_be_opened_counts_again_once_it_can() {
    for (which, lost) in (0..3).enumerate() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..3 {
            let (spool, _) = open(directory.path());
            commit(&spool, accepted(number, 100)).await;
        }
        let path = segments(directory.path()).remove(which);
        let files = Failing::default();
        files.refuse_open(path.file_name().unwrap().to_str());
        let mut rest: Vec<_> = (0..3).map(id).filter(|other| *other != id(lost)).collect();
        for start in 0..2 {
            let (spool, report) =
                FileSpool::open_on(Arc::new(files.clone()), &config(directory.path()), metrics()).unwrap();
            let [damage] = &report.damaged[..] else { panic!("{report:?}") };
            assert_eq!((damage.reason, &damage.copy), (DamageReason::Unreadable, &None));
            assert_eq!(spool.ids(), rest, "segment {which}");
            commit(&spool, accepted(10 + start, 100)).await;
            rest.push(id(10 + start));
        }
        let (spool, report) = open(directory.path());
        assert!(report.damaged.is_empty(), "{report:?}");
        assert_eq!(spool.len(), 5);
        assert_whole(&spool, lost, 100).await;
    }
}
