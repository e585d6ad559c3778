//! A start on a disk that fails.

use std::{io, path::Path, sync::Arc, time::Duration};

use crate::failing::Failing;
use crate::support::{accepted, assert_whole, commit, config, id, metrics, open};
use empath_spool::{CommitError, FileSpool, OpenError, Spool};

fn open_on(files: &Failing, directory: &Path) -> FileSpool {
    FileSpool::open_on(Arc::new(files.clone()), &config(directory), metrics()).unwrap().0
}

async fn recovers(spool: &FileSpool) {
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let recovered = async {
        while !spool.is_healthy() {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), recovered).await.expect("the spool recovers");
}

#[tokio::test]
async fn a_start_that_cannot_write_reads_refuses_and_recovers_by_itself() {
    type Fault = fn(&Failing, bool);
    let faults: [(&str, Fault); 4] = [
        ("cannot write", |files, on| files.fail_writes(on.then_some(io::ErrorKind::Other))),
        ("cannot write", |files, on| files.fail_writes(on.then_some(io::ErrorKind::ReadOnlyFilesystem))),
        ("cannot write", |files, on| files.fail_syncs(if on { u32::MAX } else { 0 })),
        ("cannot sync", |files, on| files.fail_directory_syncs(on)),
    ];
    for (operation, fault) in faults {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        commit(&spool, accepted(1, 100)).await;
        drop(spool);
        let files = Failing::default();
        fault(&files, true);
        let spool = open_on(&files, directory.path());
        assert!(!spool.is_healthy());
        assert_whole(&spool, 1, 100).await;
        let refusal = spool.commit(accepted(2, 100).into()).await.unwrap_err().to_string();
        assert!(refusal.contains(operation) && refusal.contains("/spool"), "{refusal}");
        fault(&files, false);
        recovers(&spool).await;
        commit(&spool, accepted(3, 100)).await;
        drop(spool);
        let (spool, report) = open(directory.path());
        assert_eq!(spool.ids(), [id(1), id(3)]);
        assert!(report.damaged.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn the_first_start_of_all_on_a_disk_that_cannot_write_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let files = Failing::default();
    files.fail_writes(Some(io::ErrorKind::Other));
    let spool = open_on(&files, directory.path());
    assert!(!spool.is_healthy());
    let refusal = spool.commit(accepted(1, 100).into()).await;
    assert!(matches!(refusal, Err(CommitError::Io(_))), "{refusal:?}");
    files.fail_writes(None);
    recovers(&spool).await;
    commit(&spool, accepted(2, 100)).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_listed_is_not_taken_for_an_empty_one() {
    for name in ["journal", "large"] {
        let directory = tempfile::tempdir().unwrap();
        commit(&open(directory.path()).0, accepted(1, 100)).await;
        let files = Failing::default();
        files.refuse_list(Some(name));
        let failure =
            FileSpool::open_on(Arc::new(files), &config(directory.path()), metrics()).err().unwrap();
        let OpenError::Io { path, operation: "list", .. } = &failure else { panic!("{failure}") };
        assert!(path.ends_with(name), "{failure}");
        assert!(failure.to_string().contains("os error 5"), "{failure}");
        assert_eq!(open(directory.path()).0.ids(), [id(1)]);
    }
}
