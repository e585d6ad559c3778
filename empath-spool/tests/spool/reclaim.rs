//! Disk space comes back, and nothing that ended comes back with it.

use std::{fs, path::Path};

use crate::support::{accepted, assert_whole, commit, id, open, segments};
use empath_spool::{Batch, Entry, Spool};

/// Octets of the journal's files.
fn disk_use(directory: &Path) -> u64 {
    let files = fs::read_dir(directory.join("spool/journal")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_hundred_generations_of_mail_take_the_space_of_a_few() {
    let directory = tempfile::tempdir().unwrap();
    for restart in 0..5 {
        let (spool, _) = open(directory.path());
        for generation in 0..20 {
            let numbers = (restart * 20 + generation) * 20..(restart * 20 + generation + 1) * 20;
            let accepted = numbers.clone().map(|number| accepted(number, 3000)).collect();
            spool.commit(Batch(accepted)).await.unwrap();
            let removed = numbers.map(|number| Entry::Removed(id(number))).collect();
            spool.commit(Batch(removed)).await.unwrap();
        }
        spool.close().await;
        drop(spool);
        // One that is written, one spare, and those that a last batch kept.
        assert!(disk_use(directory.path()) <= 5 * (64 << 10), "{}", disk_use(directory.path()));
    }
    assert!(open(directory.path()).0.is_empty());
}

#[tokio::test]
async fn a_removed_message_stays_removed_while_its_segment_is_kept_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 1000)).await;
    commit(&spool, accepted(2, 1000)).await;
    let traffic = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            commit(&spool, accepted(number, 30_000)).await;
            commit(&spool, Entry::Removed(id(number))).await;
        }
    };
    traffic(10..20).await;
    commit(&spool, Entry::Removed(id(2))).await;
    traffic(20..30).await;
    drop(spool);
    let (spool, _) = open(directory.path());
    assert_eq!(spool.ids(), [id(1)]);
    assert_whole(&spool, 1, 1000).await;
    commit(&spool, Entry::Removed(id(1))).await;
    spool.close().await;
    drop(spool);
    assert!(segments(directory.path()).len() <= 2, "{:?}", segments(directory.path()));
    assert!(open(directory.path()).0.is_empty());
}

#[tokio::test]
async fn a_message_larger_than_a_segment_gets_one_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for (number, size) in [(1, 60_000), (2, 1 << 20), (3, 10), (4, 2 << 20)] {
        commit(&spool, accepted(number, size)).await;
    }
    drop(spool);
    let (spool, report) = open(directory.path());
    assert_eq!(report.damaged, []);
    for (number, size) in [(1, 60_000), (2, 1 << 20), (3, 10), (4, 2 << 20)] {
        assert_whole(&spool, number, size).await;
        commit(&spool, Entry::Removed(id(number))).await;
    }
    drop(spool);
    assert!(disk_use(directory.path()) <= 3 * (64 << 10));
}

#[tokio::test]
async fn restarts_without_mail_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        open(directory.path()).0.close().await;
    }
    assert!(disk_use(directory.path()) <= 3 * (64 << 10), "{:?}", segments(directory.path()));
}

#[tokio::test]
async fn messages_outlive_many_segments_and_keep_their_progress() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 0..100 {
        commit(&spool, accepted(number, 5000)).await;
        for attempt in 1..=(number % 4) {
            commit(&spool, crate::support::deferred(number, 1, u32::try_from(attempt).unwrap())).await;
        }
    }
    for number in (0..100).filter(|number| number % 10 != 0) {
        commit(&spool, Entry::Removed(id(number))).await;
    }
    drop(spool);
    let (spool, _) = open(directory.path());
    assert_eq!(spool.len(), 10);
    for number in (0..100).step_by(10) {
        assert_whole(&spool, number, 5000).await;
        let recipients = spool.load(id(number)).await.expect("it is there").recipients;
        assert_eq!(u64::from(recipients[1].attempts), number % 4);
    }
}
