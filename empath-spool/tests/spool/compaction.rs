//! Space comes back although messages stay, and they stay whole.

use std::{fs, os::unix::fs::FileExt as _, path::Path, time::Duration};

use crate::support::{accepted, assert_whole, commit, config, deferred, id, metrics, open, segments};
use empath_spool::{Batch, Entry, FileSpool, LoadError, Spool, Status};

const SEGMENT: u64 = 64 << 10;
const SIZE: usize = 3000;

/// Octets of the journal's files.
fn disk_use(directory: &Path) -> u64 {
    let files = fs::read_dir(directory.join("spool/journal")).unwrap();
    files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum()
}

/// Waits until the journal is no larger than the bound for so many messages.
async fn shrunk(directory: &Path, messages: u64, context: &str) {
    let most = 2 * messages * (SIZE as u64 + 600) + 4 * SEGMENT;
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        while disk_use(directory) > most {
            polls.tick().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_mins(1), waited).await;
    assert!(found.is_ok(), "{context}: {} octets, {most} at most", disk_use(directory));
}

async fn assert_kept(spool: &FileSpool, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        assert_whole(spool, number, SIZE).await;
        let recipient = spool.load(id(number)).await.unwrap().recipients.swap_remove(1);
        assert_eq!((recipient.attempts, recipient.history.len()), (2, 2), "message {number}");
    }
}

/// One message of each generation stays for the next ten.
#[tokio::test]
async fn a_hundred_generations_that_each_leave_something_take_twice_what_they_leave() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    let first = |generation: u64| generation * 100;
    for generation in 0..100 {
        let numbers = first(generation)..first(generation) + 20;
        spool.commit(Batch(numbers.clone().map(|number| accepted(number, SIZE)).collect())).await.unwrap();
        for attempt in 1..=2 {
            commit(&spool, deferred(first(generation), 1, attempt)).await;
        }
        let ended = numbers.skip(1).chain(generation.checked_sub(10).map(first));
        spool.commit(Batch(ended.map(|number| Entry::Removed(id(number))).collect())).await.unwrap();
        if generation % 9 == 8 {
            shrunk(directory.path(), 11, &format!("generation {generation}")).await;
            spool.close().await;
            drop(spool);
            let (again, report) = open(directory.path());
            assert!(report.damaged.is_empty(), "{report:?}");
            spool = again;
        }
        let left = generation.saturating_sub(9)..=generation;
        assert_eq!(spool.ids(), left.clone().map(first).map(id).collect::<Vec<_>>());
        if generation % 10 == 0 {
            assert_kept(&spool, left.map(first)).await;
        }
    }
}

#[tokio::test]
async fn one_old_message_keeps_no_more_than_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(0, SIZE)).await;
    for attempt in 1..=2 {
        commit(&spool, deferred(0, 1, attempt)).await;
    }
    for number in 1..500 {
        let entries = vec![accepted(number, SIZE)];
        spool.commit(Batch(entries)).await.unwrap();
        commit(&spool, Entry::Removed(id(number))).await;
    }
    shrunk(directory.path(), 1, "one message").await;
    assert_kept(&spool, 0..1).await;
    // What is read while it moves is whole too.
    spool.close().await;
    drop(spool);
    let (spool, _) = open(directory.path());
    assert_eq!(spool.ids(), [id(0)]);
    assert_kept(&spool, 0..1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_are_read_changed_and_ended_while_they_move() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let spool = std::sync::Arc::new(spool);
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..8_u64 {
        let spool = std::sync::Arc::clone(&spool);
        workers.spawn(async move {
            let first = worker * 10_000;
            for number in first..first + 150 {
                commit(&*spool, accepted(number, SIZE)).await;
                commit(&*spool, deferred(number, 1, 1)).await;
                // Every tenth stays a while; the others go at once.
                if number % 10 != 0 {
                    commit(&*spool, Entry::Removed(id(number))).await;
                }
                if number >= first + 50 && number % 10 == 0 {
                    let old = number - 50;
                    commit(&*spool, deferred(old, 1, 2)).await;
                    assert_whole(&*spool, old, SIZE).await;
                    assert_eq!(spool.load(id(old)).await.unwrap().recipients[1].history.len(), 2);
                    commit(&*spool, Entry::Removed(id(old))).await;
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no worker fails");
    }
    let left: Vec<_> = (0..8)
        .flat_map(|worker| (worker * 10_000 + 100..worker * 10_000 + 150).step_by(10))
        .map(id)
        .collect();
    assert_eq!(spool.ids(), left);
    shrunk(directory.path(), left.len() as u64, "at the end").await;
    let found = spool.verify().await;
    assert!(found.is_clean() && found.records > 0, "{found:?}");
}

#[tokio::test]
async fn a_damaged_message_in_the_oldest_segment_is_set_aside_and_keeps_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 0..2 {
        commit(&spool, accepted(number, SIZE)).await;
        for attempt in 1..=2 {
            commit(&spool, deferred(number, 1, attempt)).await;
        }
    }
    let oldest = &segments(directory.path())[0];
    let at = fs::read(oldest).unwrap().windows(4).position(|part| part == b"bob0").unwrap() as u64;
    fs::OpenOptions::new().write(true).open(oldest).unwrap().write_all_at(b"X", at).unwrap();
    for number in 2..500 {
        commit(&spool, accepted(number, SIZE)).await;
        commit(&spool, Entry::Removed(id(number))).await;
    }
    shrunk(directory.path(), 1, "one message that can be read").await;
    assert_eq!(spool.ids(), [id(1)]);
    assert_kept(&spool, 1..2).await;
    let kept = spool.quarantine().unwrap().list().unwrap();
    assert_eq!(kept.iter().flat_map(|kept| &kept.messages).collect::<Vec<_>>(), [&id(0)]);
}

/// Its sender is still to be told.
#[tokio::test]
async fn of_a_message_whose_content_is_damaged_the_envelope_and_the_history_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    commit(&spool, accepted(0, SIZE)).await;
    commit(&spool, deferred(0, 1, 1)).await;
    let before = spool.load(id(0)).await.unwrap();
    let oldest = segments(directory.path()).remove(0);
    let head = fs::read(&oldest).unwrap().windows(4).position(|part| part == b"bob0").unwrap() as u64;
    fs::OpenOptions::new().write(true).open(&oldest).unwrap().write_all_at(&[0], head + 1500).unwrap();
    for number in 1..500 {
        commit(&spool, accepted(number, SIZE)).await;
        commit(&spool, Entry::Removed(id(number))).await;
    }
    shrunk(directory.path(), 1, "one message of which the envelope can be read").await;
    assert!(!oldest.exists());
    for start in 0..2 {
        let after = spool.load(id(0)).await.unwrap();
        assert_eq!((&after.envelope, &after.recipients), (&before.envelope, &before.recipients), "{start}");
        let content = spool.content(id(0)).await;
        assert!(matches!(content, Err(LoadError::Damaged { .. })), "{start}: {content:?}");
        // It was set aside when it was found, once and for all.
        spool.set_aside(id(0)).await.unwrap();
        let kept = spool.quarantine().unwrap().list().unwrap();
        assert_eq!(kept.iter().flat_map(|kept| &kept.messages).collect::<Vec<_>>(), [&id(0)]);
        spool.close().await;
        drop(spool);
        let report;
        (spool, report) = open(directory.path());
        assert_eq!((report.messages, report.damaged), (1, vec![]));
    }
}

#[tokio::test]
async fn the_history_of_a_message_does_not_grow_with_its_attempts() {
    let directory = tempfile::tempdir().unwrap();
    let metrics = metrics();
    let (spool, _) = FileSpool::open(&config(directory.path()), metrics.clone()).unwrap();
    commit(&spool, accepted(0, SIZE)).await;
    commit(&spool, Entry::Held { id: id(0), held: true }).await;
    let accepted = metrics.usage().live;
    commit(&spool, deferred(0, 1, 1)).await;
    let one = metrics.usage().live - accepted;
    for attempt in 2..=1000 {
        commit(&spool, deferred(0, 1, attempt)).await;
    }
    // A message is left alone with 16 records; one of them may stand for eight attempts.
    let most = accepted + 24 * one;
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let condensed = async {
        while metrics.usage().live > most {
            polls.tick().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_mins(1), condensed).await;
    assert!(found.is_ok(), "{} octets, {most} at most", metrics.usage().live);
    let check = async |spool: &FileSpool| {
        assert_whole(spool, 0, SIZE).await;
        let mut stored = spool.load(id(0)).await.unwrap();
        assert!(stored.held, "that is not lost on the way");
        let recipient = stored.recipients.swap_remove(1);
        let kept: Vec<_> = recipient.history.iter().map(|one| one.at.as_second() - 1_700_000_000).collect();
        assert_eq!(kept, [1, 994, 995, 996, 997, 998, 999, 1000]);
        assert_eq!((recipient.attempts, recipient.status), (1000, Status::Deferred));
    };
    check(&spool).await;
    spool.close().await;
    drop(spool);
    let (spool, report) = open(directory.path());
    assert!(report.damaged.is_empty(), "{report:?}");
    check(&spool).await;
}

#[tokio::test]
async fn a_copy_of_a_damaged_message_has_no_octets_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(0, SIZE)).await;
    commit(&spool, deferred(0, 1, 1)).await;
    commit(&spool, accepted(1, SIZE)).await;
    let segment = &segments(directory.path())[0];
    let octets = fs::read(segment).unwrap();
    let mut records = octets.windows(4).enumerate().filter(|(_, part)| part == b"EMPR").map(|(at, _)| at);
    let (from, to) = (records.nth(1).unwrap(), records.next().unwrap());
    // The length of its content.
    let length = (from + 30) as u64;
    fs::OpenOptions::new().write(true).open(segment).unwrap().write_all_at(&[9], length).unwrap();
    spool.set_aside(id(0)).await.unwrap();
    let kept = spool.quarantine().unwrap().list().unwrap();
    assert_eq!(kept.iter().map(|kept| kept.octets).collect::<Vec<_>>(), [(to - from) as u64]);
}
