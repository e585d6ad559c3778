//! What the spool does when the disk refuses.

use std::{io, path::Path, sync::Arc, time::Duration};

use crate::failing::Failing;
use crate::support::{accepted, assert_whole, commit, config, id, metrics, open, segments};
use empath_spool::{CommitError, FileSpool, OpenError, Spool};

fn open_failing(directory: &Path) -> (FileSpool, Failing) {
    let files = Failing::default();
    let (spool, _) = FileSpool::open_on(Arc::new(files.clone()), &config(directory), metrics()).unwrap();
    (spool, files)
}

#[tokio::test]
async fn a_failed_sync_refuses_the_batch_for_good_and_a_new_segment_goes_on() {
    // Whether the refused octets can be taken back or not.
    for stuck in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (spool, files) = open_failing(directory.path());
        commit(&spool, accepted(1, 100)).await;
        files.refuse_truncate(stuck);
        files.fail_syncs(1);
        let refusal = spool.commit(accepted(2, 100).into()).await;
        assert!(matches!(refusal, Err(CommitError::Io(_))), "{refusal:?}");
        assert!(spool.is_healthy(), "a new segment works");
        assert_eq!(segments(directory.path()).len(), 2);
        assert_eq!(spool.ids(), [id(1)]);
        commit(&spool, accepted(3, 100)).await;
        files.refuse_truncate(false);
        drop(spool);
        let (spool, report) = open(directory.path());
        assert_eq!(spool.ids(), [id(1), id(3)], "stuck: {stuck}");
        assert_eq!((report.unfinished, report.damaged.len()), (0, 0));
        assert_whole(&spool, 1, 100).await;
        assert_whole(&spool, 3, 100).await;
    }
}

#[tokio::test]
async fn a_disk_that_fails_longer_makes_the_spool_unhealthy_until_it_works() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    commit(&spool, accepted(1, 100)).await;
    files.fail_syncs(u32::MAX);
    let refusal = spool.commit(accepted(2, 100).into()).await;
    assert!(matches!(refusal, Err(CommitError::Unsettled(_))), "nor could it be taken back: {refusal:?}");
    for number in 3..6 {
        let refusal = spool.commit(accepted(number, 100).into()).await;
        assert!(matches!(refusal, Err(CommitError::Io(_))), "{refusal:?}");
        assert!(!spool.is_healthy());
    }
    files.fail_syncs(0);
    commit(&spool, accepted(6, 100)).await;
    assert!(spool.is_healthy());
    drop(spool);
    assert_eq!(open(directory.path()).0.ids(), [id(1), id(6)]);
}

#[tokio::test]
async fn a_refused_batch_does_not_appear_even_if_no_new_segment_could_be_begun() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    commit(&spool, accepted(1, 100)).await;
    files.fail_syncs(1);
    files.refuse_new_files(true);
    assert!(spool.commit(accepted(2, 100).into()).await.is_err());
    assert!(!spool.is_healthy());
    drop(spool);
    assert_eq!(open(directory.path()).0.ids(), [id(1)]);
}

#[tokio::test]
async fn a_full_disk_is_full_until_it_has_space() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    commit(&spool, accepted(1, 100)).await;
    files.fail_writes(Some(io::ErrorKind::StorageFull));
    for number in 2..5 {
        let refusal = spool.commit(accepted(number, 100).into()).await;
        assert!(matches!(refusal, Err(CommitError::Full(_))), "{refusal:?}");
    }
    assert!(!spool.is_healthy());
    assert_whole(&spool, 1, 100).await;
    files.fail_writes(None);
    commit(&spool, accepted(5, 100)).await;
    assert!(spool.is_healthy());
    drop(spool);
    assert_eq!(open(directory.path()).0.ids(), [id(1), id(5)]);
}

#[tokio::test]
async fn a_spool_recovers_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    files.fail_writes(Some(io::ErrorKind::Other));
    assert!(spool.commit(accepted(1, 100).into()).await.is_err());
    assert!(!spool.is_healthy());
    files.fail_writes(None);
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let recovered = async {
        while !spool.is_healthy() {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), recovered).await.expect("the spool recovers");
}

#[tokio::test]
async fn only_what_was_in_the_failed_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    let mut expected = Vec::new();
    for number in 0..300 {
        if number % 50 == 25 {
            files.fail_syncs(1);
        }
        let answers =
            [0, 1, 2].map(|more| (number * 3 + more, spool.commit(accepted(number * 3 + more, 900).into())));
        for (number, answer) in answers {
            if answer.await.is_ok() {
                expected.push(id(number));
            }
        }
    }
    // Six failures refuse one to three batches each; those that hit the preparation of a spare segment refuse none.
    assert!((882..900).contains(&expected.len()), "{}", expected.len());
    assert_eq!(spool.ids(), expected);
    drop(spool);
    let (spool, report) = open(directory.path());
    assert_eq!(spool.ids(), expected);
    assert!(report.damaged.is_empty(), "{report:?}");
}

#[tokio::test]
async fn writes_that_take_only_a_part_are_continued() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    files.write_short(true);
    let answers: Vec<_> = (0..20).map(|number| spool.commit(accepted(number, 2000).into())).collect();
    for answer in answers {
        answer.await.unwrap();
    }
    drop(spool);
    let (spool, _) = open(directory.path());
    for number in 0..20 {
        assert_whole(&spool, number, 2000).await;
    }
}

#[tokio::test]
async fn a_start_on_a_disk_without_any_space_reads_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, files) = open_failing(directory.path());
    commit(&spool, accepted(1, 100)).await;
    drop(spool);
    files.refuse_new_files(true);
    let (spool, report) =
        FileSpool::open_on(Arc::new(files.clone()), &config(directory.path()), metrics()).unwrap();
    assert_eq!(report.messages, 1);
    assert_whole(&spool, 1, 100).await;
    for entry in [accepted(2, 100), empath_spool::Entry::Removed(id(1))] {
        let refusal = spool.commit(entry.into()).await;
        assert!(matches!(refusal, Err(CommitError::Full(_))), "{refusal:?}");
    }
    assert!(!spool.is_healthy());
    files.refuse_new_files(false);
    commit(&spool, accepted(3, 100)).await;
    assert!(spool.is_healthy());
    drop(spool);
    assert_eq!(open(directory.path()).0.ids(), [id(1), id(3)]);
}

#[test]
fn a_spool_of_somebody_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let files = Failing::default();
    files.be_a_stranger();
    let failure = FileSpool::open_on(Arc::new(files), &config(directory.path()), metrics()).err().unwrap();
    assert!(matches!(failure, OpenError::Owner { owner, user, .. } if user == owner + 1), "{failure}");
}
