//! Which directories may be a spool.

use std::{fs, os::unix::fs::symlink};

use crate::support::{accepted, commit, config, metrics, open};
use empath_spool::{Backend, Config, FileSpool, OpenError, PathProblem};

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
    assert!(spool.free_space().unwrap() > 0);
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
