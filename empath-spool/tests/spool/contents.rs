//! What is written down about sealed segments is an aid and never a truth of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    failing::Failing,
    support::{
        accepted, assert_whole, commit, config, contents, deferred, everything, forget_contents, id, metrics,
        open, segments,
    },
};
use empath_spool::{Batch, Entry, FileSpool, Spool, verify};

/// Messages in several segments, some with progress, some gone.
async fn fill(directory: &Path) -> FileSpool {
    let (spool, _) = open(directory);
    for number in 0..40 {
        commit(&spool, accepted(number, 12_000)).await;
        commit(&spool, deferred(number / 2, 1, 1)).await;
    }
    for number in (0..40).step_by(4) {
        commit(&spool, Entry::Removed(id(number))).await;
    }
    spool
}

async fn written_down(directory: &Path, count: usize) {
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let written = async {
        let written = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 0);
        while contents(directory).iter().filter(|path| written(path)).count() < count {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), written).await.expect("the contents are written down");
}

#[tokio::test]
async fn a_start_finds_the_same_with_and_without_them() {
    let directory = tempfile::tempdir().unwrap();
    let spool = fill(directory.path()).await;
    let sealed = segments(directory.path()).len() - 1;
    written_down(directory.path(), sealed).await;
    let before = format!("{:?}", everything(&spool).await);
    spool.close().await;
    drop(spool);
    let damaged = |how: fn(&Path)| contents(directory.path()).iter().for_each(|path| how(path));
    let ways: [fn(&Path); 5] = [
        |_| {},
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| {
            let mut octets = fs::read(path).unwrap();
            let middle = octets.len() / 2;
            octets[middle] ^= 1;
            fs::write(path, octets).unwrap();
        },
        |path| {
            let octets = fs::read(path).unwrap();
            fs::write(path, &octets[..octets.len() - 36]).unwrap();
        },
    ];
    for (number, way) in ways.into_iter().enumerate() {
        damaged(way);
        let (spool, report) = open(directory.path());
        assert!(report.damaged.is_empty(), "way {number}: {report:?}");
        assert_eq!(before, format!("{:?}", everything(&spool).await), "way {number}");
        // Each start begins a segment, and seals the one before.
        written_down(directory.path(), sealed + 1).await;
    }
}

#[tokio::test]
async fn a_start_does_not_read_content_and_a_check_does() {
    let directory = tempfile::tempdir().unwrap();
    let spool = fill(directory.path()).await;
    written_down(directory.path(), segments(directory.path()).len() - 1).await;
    spool.close().await;
    drop(spool);
    let first = &segments(directory.path())[0];
    let mut octets = fs::read(first).unwrap();
    let at = octets.windows(10).position(|part| part == b"Subject: 1").unwrap();
    octets[at + 100] ^= 1;
    fs::write(first, octets).unwrap();

    let (spool, report) = open(directory.path());
    assert!(report.damaged.is_empty(), "{report:?}");
    assert!(spool.load(id(1)).await.is_ok());
    assert!(spool.content(id(1)).await.unwrap_err().to_string().contains("damaged on disk"));
    assert_whole(&spool, 2, 12_000).await;
    let found = spool.verify().await;
    assert_eq!(found.damaged.len(), 1, "{found:?}");
    assert_eq!(found.damaged[0].ids, [id(1)]);
    assert!(!found.is_clean());
    let refusal = verify(&directory.path().join("spool")).unwrap_err();
    assert!(refusal.to_string().contains("in use"), "{refusal}");
    spool.close().await;
    drop(spool);
    let at_rest = verify(&directory.path().join("spool")).unwrap();
    assert_eq!(at_rest.damaged, found.damaged);

    forget_contents(directory.path());
    let (spool, report) = open(directory.path());
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(!spool.ids().contains(&id(1)));
}

#[tokio::test]
async fn those_of_another_segment_or_another_state_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let spool = fill(directory.path()).await;
    written_down(directory.path(), segments(directory.path()).len() - 1).await;
    let before = format!("{:?}", everything(&spool).await);
    spool.close().await;
    drop(spool);
    let all = contents(directory.path());
    let first = fs::read(&all[0]).unwrap();
    for other in &all[1..] {
        fs::write(other, &first).unwrap();
    }
    let (spool, report) = open(directory.path());
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!(before, format!("{:?}", everything(&spool).await));
}

#[tokio::test]
async fn one_that_is_too_long_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let spool = fill(directory.path()).await;
    let sealed = segments(directory.path()).len() - 1;
    written_down(directory.path(), sealed).await;
    spool.close().await;
    drop(spool);
    let first = &contents(directory.path())[0];
    let length = fs::metadata(first).unwrap().len();
    fs::OpenOptions::new().write(true).open(first).unwrap().set_len(length + (1 << 40)).unwrap();
    let (_spool, report) = open(directory.path());
    assert!(report.damaged.is_empty(), "{report:?}");
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let anew = async {
        while fs::metadata(first).map(|found| found.len()).ok() != Some(length) {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), anew).await.expect("it is made anew");
}

#[tokio::test]
async fn one_that_cannot_be_read_to_the_end_does_not_count_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(0, 100)).await;
    commit(&spool, deferred(0, 1, 1)).await;
    // A segment with more records than are read at a time, and content enough not to be compacted.
    let mut entries = vec![accepted(1, 1_000_000), deferred(0, 1, 2), deferred(1, 1, 1)];
    entries.extend((10..10_000).map(|number| Entry::Removed(id(number))));
    entries.push(deferred(0, 1, 3));
    spool.commit(Batch(entries)).await.unwrap();
    commit(&spool, accepted(2, 60_000)).await;
    written_down(directory.path(), 2).await;
    let before = format!("{:?}", everything(&spool).await);
    spool.close().await;
    drop(spool);
    let kept = tempfile::tempdir().unwrap();
    for reads in 0..9 {
        let again = kept.path().join(reads.to_string());
        crate::support::copy(directory.path(), &again);
        let files = Failing::default();
        files.fail_reads("00000002.contents", reads);
        let (metrics, config) = (metrics(), config(&again));
        let (spool, report) =
            FileSpool::open_on(std::sync::Arc::new(files), &config, metrics.clone()).unwrap();
        assert!(report.damaged.is_empty(), "{reads} reads: {report:?}");
        assert_eq!(before, format!("{:?}", everything(&spool).await), "{reads} reads");
        assert_eq!(metrics.usage().live, live(&again), "{reads} reads");
    }
}

/// What a spool that is read from its segments alone has live.
fn live(directory: &Path) -> u64 {
    let other = tempfile::tempdir().unwrap();
    crate::support::copy(directory, other.path());
    forget_contents(other.path());
    let metrics = metrics();
    let _spool = FileSpool::open(&config(other.path()), metrics.clone()).unwrap();
    metrics.usage().live
}

#[tokio::test]
async fn a_damaged_outcome_does_not_hide_those_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 100)).await;
    for recipient in 0..3 {
        commit(&spool, deferred(1, recipient, 1)).await;
    }
    // Behind it, what does not verify is damage and no unfinished write.
    commit(&spool, accepted(2, 100)).await;
    spool.close().await;
    drop(spool);
    let (spool, _) = open(directory.path());
    written_down(directory.path(), 1).await;
    spool.close().await;
    drop(spool);
    let segment = &segments(directory.path())[0];
    let mut octets = fs::read(segment).unwrap();
    let second = octets.windows(5).enumerate().filter(|(_, window)| window == b"later").nth(2).unwrap().0;
    octets[second] ^= 1;
    fs::write(segment, octets).unwrap();
    for forgotten in [false, true] {
        if forgotten {
            forget_contents(directory.path());
        }
        let (spool, _) = open(directory.path());
        let attempts: Vec<_> =
            spool.load(id(1)).await.unwrap().recipients.iter().map(|recipient| recipient.attempts).collect();
        assert_eq!(attempts, [1, 0, 1], "without the contents: {forgotten}");
    }
}
