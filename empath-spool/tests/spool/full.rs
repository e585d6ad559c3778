//! A full disk: messages are refused, and what frees space is not.

use std::{path::Path, sync::Arc, time::Duration};

use crate::failing::Failing;
use crate::support::{accepted, assert_whole, commit, config, deferred, id, metrics, open, segments};
use empath_spool::{CommitError, Entry, FileSpool, Report, Spool};

const SEGMENT: u64 = 64 << 10;

fn open_failing(directory: &Path, files: &Failing) -> (FileSpool, Report) {
    FileSpool::open_on(Arc::new(files.clone()), &config(directory), metrics()).unwrap()
}

/// Commits messages until the disk has no space for another; returns how many there are.
async fn fill(spool: &FileSpool, files: &Failing) -> u64 {
    files.refuse_size(SEGMENT);
    let mut number = 0;
    while spool.commit(accepted(number, 12_000).into()).await.is_ok() {
        number += 1;
    }
    number
}

async fn assert_full(spool: &FileSpool, size: usize) {
    let refusal = spool.commit(accepted(1000, size).into()).await;
    assert!(matches!(refusal, Err(CommitError::Full(_))), "{refusal:?}");
    assert!(!spool.is_healthy());
}

/// Far more outcomes than what is left of a segment can hold.
async fn defer_often(spool: &FileSpool, number: u64) {
    for attempt in 1..=150 {
        commit(spool, deferred(number, 0, attempt)).await;
        assert!(!spool.is_healthy(), "messages are still refused");
    }
}

#[tokio::test]
async fn a_full_disk_takes_outcomes_until_they_have_freed_it() {
    let directory = tempfile::tempdir().unwrap();
    let files = Failing::default();
    let (spool, _) = open_failing(directory.path(), &files);
    let count = fill(&spool, &files).await;
    assert!(count > 0);
    assert_full(&spool, 12_000).await;
    let last = count - 1;
    defer_often(&spool, last).await;
    let small = segments(directory.path()).pop().unwrap();
    assert!(small.metadata().unwrap().len() < SEGMENT);
    // Not even a message that would fit into a small segment.
    assert_full(&spool, 10).await;
    assert_eq!(spool.len() as u64, count);
    drop(spool);

    let (spool, report) = open_failing(directory.path(), &files);
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!(spool.ids(), (0..count).map(id).collect::<Vec<_>>());
    assert_eq!(spool.load(id(last)).await.unwrap().recipients[0].attempts, 150);
    for number in 0..count {
        assert_whole(&spool, number, 12_000).await;
        commit(&spool, Entry::Removed(id(number))).await;
    }
    // The first segment is given up and becomes the spare that messages need.
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let freed = async {
        while spool.commit(accepted(2000, 12_000).into()).await.is_err() {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), freed).await.expect("space comes back");
    assert!(spool.is_healthy());
    drop(spool);
    let (spool, report) = open(directory.path());
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!(spool.ids(), [id(2000)]);
    assert_whole(&spool, 2000, 12_000).await;
}

#[tokio::test]
async fn a_spool_that_starts_on_a_full_disk_recovers_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 100)).await;
    commit(&spool, accepted(2, 100)).await;
    drop(spool);
    for spare in std::fs::read_dir(directory.path().join("spool/journal")).unwrap() {
        let spare = spare.unwrap().path();
        if spare.extension().is_some_and(|kind| kind == "spare") {
            std::fs::remove_file(spare).unwrap();
        }
    }
    let files = Failing::default();
    files.refuse_size(SEGMENT);
    let (spool, report) = open_failing(directory.path(), &files);
    assert_eq!(report.messages, 2);
    assert_full(&spool, 100).await;
    commit(&spool, Entry::Removed(id(1))).await;
    assert_whole(&spool, 2, 100).await;
    files.refuse_size(0);
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let recovered = async {
        while !spool.is_healthy() {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), recovered).await.expect("the spool recovers");
    commit(&spool, accepted(3, 100)).await;
    drop(spool);
    assert_eq!(open(directory.path()).0.ids(), [id(2), id(3)]);
}

#[tokio::test]
async fn a_refused_message_does_not_take_the_outcomes_beside_it_along() {
    let directory = tempfile::tempdir().unwrap();
    let files = Failing::default();
    let (spool, _) = open_failing(directory.path(), &files);
    fill(&spool, &files).await;
    let answers = [accepted(1000, 12_000), Entry::Removed(id(0)), accepted(1001, 12_000), deferred(1, 0, 1)]
        .map(|entry| spool.commit(entry.into()));
    let mut accepted = Vec::new();
    for answer in answers {
        accepted.push(answer.await.is_ok());
    }
    assert_eq!(accepted, [false, true, false, true]);
}

#[tokio::test]
async fn a_message_too_large_for_the_disk_does_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let files = Failing::default();
    let (spool, _) = open_failing(directory.path(), &files);
    files.refuse_size(1 << 20);
    let refusal = spool.commit(accepted(1, 1 << 20).into()).await;
    assert!(matches!(refusal, Err(CommitError::Full(_))), "{refusal:?}");
    assert!(spool.is_healthy());
    commit(&spool, accepted(2, 100)).await;
    assert_eq!(segments(directory.path()).len(), 1, "the segment goes on");
}
