//! What is kept of damage, and what stays because nothing could be kept of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use empath_common::ByteSize;
use empath_metrics::Registry;
use empath_spool::{Batch, Config, Entry, FileSpool, KeptReason, Metrics, Report, Spool};

use crate::{
    failing::Failing,
    support::{accepted, assert_whole, commit, config, forget_contents, id, open, segments},
};

/// A spool that tries again soon, and its metrics.
fn eager(directory: &Path, files: &Failing) -> (FileSpool, Report, Registry) {
    let registry = Registry::default();
    let config = Config {
        cleanup_interval: Duration::from_millis(1),
        max_damaged: ByteSize(1 << 20),
        ..config(directory)
    };
    let (spool, report) =
        FileSpool::open_on(Arc::new(files.clone()), &config, Metrics::new(&registry)).unwrap();
    (spool, report, registry)
}

/// A closed spool of two messages, the first of which is damaged; and its segment.
async fn with_damage(directory: &Path) -> PathBuf {
    let (spool, _) = open(directory);
    commit(&spool, accepted(1, 100)).await;
    commit(&spool, accepted(2, 100)).await;
    spool.close().await;
    drop(spool);
    let segment = segments(directory).remove(0);
    flip(&segment, b"bob1");
    forget_contents(directory);
    segment
}

/// Flips an octet where this stands.
fn flip(segment: &Path, octets: &[u8]) {
    let mut content = fs::read(segment).unwrap();
    let at = content.windows(octets.len()).position(|part| part == octets).unwrap();
    *content.get_mut(at + octets.len() - 1).unwrap() ^= 1;
    fs::write(segment, content).unwrap();
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    let waited = async {
        while !condition() {
            polls.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), waited).await.is_ok(), "{what}");
}

fn sample(registry: &Registry, name: &str) -> String {
    let page = registry.encode();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().to_owned()
}

#[tokio::test]
async fn a_segment_whose_damage_finds_no_room_stays_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let segment = with_damage(directory.path()).await;
    let hoard = directory.path().join("spool/damaged/00000009-0000000000-0000000001-0000000000000000.octets");
    fs::write(&hoard, vec![0; 1 << 20]).unwrap();
    let (spool, report, registry) = eager(directory.path(), &Failing::default());
    assert_eq!((report.damaged.len(), report.damaged[0].copy.as_ref()), (1, None));
    let kept = spool.kept();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].segment, kept[0].reason), (1, KeptReason::NotCopied));
    assert_eq!(kept[0].path, segment.canonicalize().unwrap());
    assert_eq!(sample(&registry, "empath_spool_kept_segments"), "1");
    assert_eq!(sample(&registry, "empath_spool_damaged_bytes"), (1 << 20).to_string());
    assert_eq!(spool.verify().await.kept, kept);
    assert!(!spool.verify().await.is_clean());

    commit(&spool, Entry::Removed(id(2))).await;
    fs::remove_file(hoard).unwrap();
    until("the damage is copied and the segment goes", || spool.kept().is_empty() && !segment.exists()).await;
    assert_eq!(sample(&registry, "empath_spool_kept_segments"), "0");
    let listed = spool.quarantine().unwrap().list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].messages[..], listed[0].octets), (&[id(1)][..], report.damaged[0].length));
    assert!(spool.verify().await.is_clean());
}

#[tokio::test]
async fn a_damaged_message_that_finds_no_room_holds_up_compaction_and_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("spool/damaged")).unwrap();
    fs::write(directory.path().join("spool/damaged/hoard.octets"), vec![0; 1 << 20]).unwrap();
    let (spool, _, registry) = eager(directory.path(), &Failing::default());
    commit(&spool, accepted(1, 3000)).await;
    commit(&spool, accepted(2, 3000)).await;
    let oldest = segments(directory.path()).remove(0);
    flip(&oldest, b"bob1");
    let mut number = 3;
    while spool.kept().is_empty() && number < 2000 {
        commit(&spool, accepted(number, 3000)).await;
        commit(&spool, Entry::Removed(id(number))).await;
        number += 1;
    }
    let kept = spool.kept();
    assert_eq!(
        kept.iter().map(|kept| (kept.segment, kept.reason)).collect::<Vec<_>>(),
        [(1, KeptReason::Stuck)]
    );
    assert_eq!(sample(&registry, "empath_spool_kept_segments"), "1");
    assert_eq!(spool.ids(), [id(1), id(2)]);
    assert!(oldest.exists());
    assert_whole(&spool, 2, 3000).await;
}

#[tokio::test]
async fn a_segment_that_cannot_be_opened_is_reported_and_comes_back_with_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    commit(&spool, accepted(1, 100)).await;
    spool.close().await;
    drop(spool);
    let files = Failing::default();
    files.refuse_open(Some("00000001.seg"));
    let (spool, _, registry) = eager(directory.path(), &files);
    assert_eq!(spool.ids(), []);
    let found = spool.verify().await;
    assert_eq!(found.kept.len(), 1);
    assert_eq!((found.kept[0].segment, found.kept[0].reason), (1, KeptReason::Unreadable));
    assert_eq!(sample(&registry, "empath_spool_kept_segments"), "1");
    files.refuse_open(None);
    until("it can be read", || spool.kept()[0].reason == KeptReason::ReadableAgain).await;
    spool.close().await;
    drop(spool);
    let (spool, _) = open(directory.path());
    assert_whole(&spool, 1, 100).await;
    assert_eq!(spool.kept(), []);
}

#[tokio::test]
async fn strays_among_the_damage_are_shown_as_such_and_hide_nothing() {
    let directory = tempfile::tempdir().unwrap();
    with_damage(directory.path()).await;
    let (spool, _) = open(directory.path());
    let damaged = directory.path().join("spool/damaged");
    let long = "00000009-0000000000-0000000001-0000000000000000";
    fs::create_dir(damaged.join("a-directory.report")).unwrap();
    fs::create_dir(damaged.join("b.content")).unwrap();
    fs::write(damaged.join("core"), b"dump").unwrap();
    fs::write(damaged.join("half.octets"), b"some").unwrap();
    fs::write(damaged.join(long).with_extension("octets"), b"x").unwrap();
    let ids = format!("message: {}\n", id(1)).repeat(4000);
    fs::write(damaged.join(long).with_extension("report"), format!("reason: many\n{ids}")).unwrap();

    let quarantine = spool.quarantine().unwrap();
    let listed = quarantine.list().unwrap();
    let problem = |name: &str| {
        let kept =
            listed.iter().find(|kept| kept.name == name).unwrap_or_else(|| panic!("{name}: {listed:?}"));
        kept.problem.clone().unwrap_or_default()
    };
    assert_eq!(listed.len(), 6);
    assert!(problem("a-directory.octets").contains("cannot be read"));
    assert!(problem("b.content").contains("cannot be read"));
    assert!(problem("core").contains("none of the spool's"));
    assert!(problem("half.octets").contains("no report"));
    assert!(problem(&format!("{long}.octets")).contains("longer than 64 KiB"));
    let whole: Vec<_> = listed.iter().filter(|kept| kept.problem.is_none()).collect();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].messages, [id(1)]);
    assert!(listed[0].octets > 0 && quarantine.octets().unwrap() > ids.len() as u64);
    quarantine.discard("half.octets").unwrap();
    assert_eq!(quarantine.list().unwrap().len(), 5);
}

#[tokio::test]
async fn a_report_of_very_many_messages_names_some_and_counts_all() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    // One batch: damage in it takes all of it along.
    spool.commit(Batch((0..5000).map(|number| accepted(number, 0)).collect())).await.unwrap();
    spool.close().await;
    drop(spool);
    let segment = segments(directory.path()).remove(0);
    flip(&segment, b"bob0@");
    forget_contents(directory.path());
    let (spool, report) = open(directory.path());
    let more = report.damaged[0].more_ids;
    assert!(more > 3000, "{more}");
    let kept = spool.quarantine().unwrap().list().unwrap().remove(0);
    assert_eq!((kept.problem, kept.messages.len()), (None, 1000));
    let number = ("more messages".to_owned(), more.to_string());
    assert!(kept.report.contains(&number), "{:?}", kept.report);
}
