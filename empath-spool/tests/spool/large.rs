//! Content in files of its own.

use std::{fs, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::support::{accepted, commit, content, envelope, id, octets, open};
use empath_spool::{Content, Entry, FileSpool, Spool, verify};

const SIZE: usize = 700_000;

async fn draft(spool: &dyn Spool, number: u64) -> Content {
    let mut draft = spool.draft(id(number)).await.unwrap();
    for piece in content(number, SIZE).chunks(100_000) {
        draft.write(piece).await.unwrap();
    }
    draft.finish().await.unwrap()
}

fn entry(number: u64, content: Content) -> Entry {
    Entry::Accepted { id: id(number), envelope: Arc::new(envelope(number)), content }
}

fn files(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory.join("spool/large")).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn until_files_are(directory: &Path, expected: &[u64]) {
    let expected: Vec<_> = expected.iter().map(|number| id(*number).to_string()).collect();
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        while files(directory) != expected {
            polls.tick().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_mins(1), waited).await;
    assert!(found.is_ok(), "{:?} instead of {expected:?}", files(directory));
}

async fn assert_large(spool: &dyn Spool, number: u64) {
    let found = spool.content(id(number)).await.unwrap();
    assert!(found.in_memory().is_none());
    let (mut all, mut reader, mut largest) = (Vec::new(), found.reader(), 0);
    while let Some(piece) = reader.next().await.unwrap() {
        largest = largest.max(piece.len());
        all.extend_from_slice(&piece);
    }
    assert_eq!(Bytes::from(all), content(number, SIZE));
    assert!(largest <= 64 << 10, "a piece of {largest} octets");
    let stored = spool.load(id(number)).await.unwrap();
    assert_eq!((stored.size, &*stored.envelope), (content(number, SIZE).len() as u64, &envelope(number)));
}

#[tokio::test]
async fn it_survives_restarts_and_goes_with_its_message() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 1..=3 {
        let content = draft(&spool, number).await;
        commit(&spool, entry(number, content)).await;
        assert_large(&spool, number).await;
    }
    commit(&spool, Entry::Removed(id(2))).await;
    until_files_are(directory.path(), &[1, 3]).await;
    drop(spool);
    for _ in 0..2 {
        let (spool, report) = open(directory.path());
        assert!(report.damaged.is_empty(), "{report:?}");
        assert_large(&spool, 1).await;
        assert_large(&spool, 3).await;
        let found = spool.verify().await;
        assert!(found.is_clean() && found.large == 2, "{found:?}");
        spool.close().await;
        drop(spool);
        let found = verify(&directory.path().join("spool")).unwrap();
        assert!(found.is_clean() && found.large == 2, "{found:?}");
    }
}

#[tokio::test]
async fn a_draft_that_comes_to_nothing_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut unfinished = spool.draft(id(1)).await.unwrap();
    unfinished.write(&vec![b'x'; 300_000]).await.unwrap();
    let uncommitted = draft(&spool, 2).await;
    assert_eq!(files(directory.path()).len(), 2);
    drop(unfinished);
    drop(uncommitted);
    until_files_are(directory.path(), &[]).await;
    let refused = draft(&spool, 3).await;
    spool.close().await;
    spool.commit(entry(3, refused).into()).await.unwrap_err();
}

#[tokio::test]
async fn a_start_removes_orphans_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let content = draft(&spool, 1).await;
    commit(&spool, entry(1, content)).await;
    spool.close().await;
    drop(spool);
    let large = directory.path().join("spool/large");
    fs::write(large.join(id(7).to_string()), b"never committed").unwrap();
    fs::write(large.join("README"), b"somebody's").unwrap();
    let (spool, _) = open(directory.path());
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let gone = async {
        while files(directory.path()).len() > 2 {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.unwrap();
    assert_eq!(files(directory.path()), [id(1).to_string(), "README".to_owned()]);
    assert_large(&spool, 1).await;
}

#[tokio::test]
async fn content_that_has_lost_its_record_is_kept_beside_the_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let drafted = draft(&spool, 1).await;
    commit(&spool, entry(1, drafted)).await;
    commit(&spool, accepted(2, 100)).await;
    spool.close().await;
    drop(spool);
    let segment = &crate::support::segments(directory.path())[0];
    let mut octets = fs::read(segment).unwrap();
    let at = octets.windows(4).position(|part| part == b"bob1").unwrap();
    octets[at] ^= 1;
    fs::write(segment, octets).unwrap();
    crate::support::forget_contents(directory.path());
    let (spool, report) = open(directory.path());
    assert_eq!((spool.ids(), report.damaged.len()), (vec![id(2)], 1));
    assert!(files(directory.path()).is_empty());
    let quarantine = spool.quarantine().unwrap();
    let kept = quarantine.list().unwrap();
    let [content_kept, range] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((&content_kept.messages[..], &range.messages[..]), (&[id(1)][..], &[id(1)][..]));
    assert_eq!(content_kept.octets, content(1, SIZE).len() as u64);
    let piece = quarantine.piece(&content_kept.name, 300_000).unwrap();
    assert_eq!(piece, content(1, SIZE)[300_000..300_000 + (64 << 10)]);
    for kept in &kept {
        quarantine.discard(&kept.name).unwrap();
    }
    assert!(quarantine.list().unwrap().is_empty());
    for name in ["../journal/00000001.seg", "LOCK", ".octets", "x.report", "a/b.octets"] {
        assert!(quarantine.piece(name, 0).is_err() && quarantine.discard(name).is_err(), "{name}");
    }
}

/// What seemed lost at one start, and is there again at the next, is whole.
#[tokio::test]
async fn content_comes_back_with_its_record_if_it_is_what_the_record_says() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in [1, 2] {
        let drafted = draft(&spool, number).await;
        commit(&spool, entry(number, drafted)).await;
    }
    commit(&spool, accepted(3, 100)).await;
    spool.close().await;
    drop(spool);
    let segment = &crate::support::segments(directory.path())[0];
    let whole = fs::read(segment).unwrap();
    let mut octets = whole.clone();
    for name in [b"bob1", b"bob2"] {
        let at = octets.windows(4).position(|part| part == name).unwrap();
        octets[at] ^= 1;
    }
    fs::write(segment, octets).unwrap();
    crate::support::forget_contents(directory.path());
    let (spool, _) = open(directory.path());
    assert_eq!((spool.ids(), files(directory.path())), (vec![id(3)], vec![]));
    spool.close().await;
    drop(spool);

    fs::write(segment, whole).unwrap();
    let set_aside = |number| directory.path().join("spool/damaged").join(format!("{}.content", id(number)));
    let mut other = fs::read(set_aside(2)).unwrap();
    other[300_000] ^= 1;
    fs::write(set_aside(2), other).unwrap();
    crate::support::forget_contents(directory.path());
    let (spool, report) = open(directory.path());
    assert_eq!((spool.ids(), report.damaged), (vec![id(1), id(2), id(3)], vec![]));
    assert_large(&spool, 1).await;
    assert_eq!(files(directory.path()), [id(1).to_string()]);
    assert!(!set_aside(1).exists() && set_aside(2).exists(), "what is damaged stays where it is");
    // And it goes with its message.
    commit(&spool, Entry::Removed(id(1))).await;
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let gone = async {
        while !files(directory.path()).is_empty() {
            polls.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.unwrap();
}

#[tokio::test]
async fn damage_in_it_shows_before_its_end_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let content = draft(&spool, 1).await;
    commit(&spool, entry(1, content)).await;
    let path = directory.path().join("spool/large").join(id(1).to_string());
    let mut changed = fs::read(&path).unwrap();
    changed[500_000] ^= 1;
    fs::write(&path, changed).unwrap();
    let mut reader = spool.content(id(1)).await.unwrap().reader();
    let failure = loop {
        match reader.next().await {
            Ok(piece) => assert!(piece.is_some(), "the end was reached"),
            Err(failure) => break failure,
        }
    };
    assert!(failure.to_string().contains("damaged"), "{failure}");
    let found = spool.verify().await;
    assert_eq!(found.unreadable.len(), 1, "{found:?}");
    fs::remove_file(&path).unwrap();
    let failure = spool.content(id(1)).await.unwrap_err();
    assert!(failure.to_string().contains("missing"), "{failure}");
}

#[tokio::test]
async fn small_content_can_be_a_draft_too() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for (number, size) in [(1, 0), (2, 1)] {
        let mut draft = spool.draft(id(number)).await.unwrap();
        draft.write(&vec![b'x'; size]).await.unwrap();
        let content = draft.finish().await.unwrap();
        commit(&spool, entry(number, content)).await;
        assert_eq!(octets(&spool.content(id(number)).await.unwrap()).await.len(), size);
    }
}

#[tokio::test]
async fn the_content_of_a_message_whose_record_is_damaged_is_kept_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let drafted = draft(&spool, 1).await;
    commit(&spool, entry(1, drafted)).await;
    let oldest = &crate::support::segments(directory.path())[0];
    let at = fs::read(oldest).unwrap().windows(4).position(|part| part == b"bob1").unwrap() as u64;
    fs::OpenOptions::new().write(true).open(oldest).unwrap().write_all_at(b"X", at).unwrap();
    assert!(spool.load(id(1)).await.unwrap_err().to_string().contains("damaged"));
    // Traffic lets compaction find it.
    for number in 2..200 {
        commit(&spool, accepted(number, 3000)).await;
        commit(&spool, Entry::Removed(id(number))).await;
    }
    until_files_are(directory.path(), &[]).await;
    let kept = spool.quarantine().unwrap().list().unwrap();
    let octets: Vec<_> = kept.iter().map(|kept| (kept.octets, &kept.messages[..])).collect();
    assert!(octets.contains(&(content(1, SIZE).len() as u64, &[id(1)])), "{kept:?}");
    assert_eq!(octets.len(), 2, "the record as well: {kept:?}");
}

#[tokio::test]
async fn it_stays_while_the_segment_that_names_it_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let drafted = draft(&spool, 1).await;
    commit(&spool, entry(1, drafted)).await;
    drop(spool);
    let files = crate::failing::Failing::default();
    files.refuse_open(Some("00000001.seg"));
    let config = crate::support::config(directory.path());
    let (spool, report) = FileSpool::open_on(Arc::new(files), &config, crate::support::metrics()).unwrap();
    assert_eq!((spool.len(), report.damaged.len()), (0, 1));
    drop(spool);
    let (spool, report) = open(directory.path());
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_large(&spool, 1).await;
}
