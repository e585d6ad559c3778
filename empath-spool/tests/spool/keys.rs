//! What the keys of the configuration change.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    failing::Failing,
    support::{accepted, commit, config, id, metrics, open},
};
use empath_metrics::Registry;
use empath_spool::{Config, Entry, FileSpool, Metrics, Spool, Sync};

fn open_with(config: &Config, files: &Failing) -> FileSpool {
    FileSpool::open_on(Arc::new(files.clone()), config, metrics()).unwrap().0
}

#[tokio::test]
async fn sync_chooses_how_a_commit_becomes_durable() {
    for (sync, data, all) in [(Sync::Data, 1, 0), (Sync::All, 1, 1), (Sync::Never, 0, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let files = Failing::default();
        let spool = open_with(&Config { sync, ..config(directory.path()) }, &files);
        let before = files.synced();
        commit(&spool, accepted(1, 100)).await;
        let after = files.synced();
        // The wrapper does one with the other.
        assert_eq!([after[0] - before[0], after[1] - before[1]], [data, all], "{sync:?}");
        drop(spool);
        assert_eq!(open(directory.path()).0.ids(), [id(1)], "{sync:?}");
    }
}

#[tokio::test]
async fn preallocate_fills_segments_before_their_use() {
    for (preallocate, filled) in [(true, true), (false, false)] {
        let directory = tempfile::tempdir().unwrap();
        let files = Failing::default();
        let spool = open_with(&Config { preallocate, ..config(directory.path()) }, &files);
        assert_eq!(files.written() >= 64 << 10, filled, "{} octets", files.written());
        commit(&spool, accepted(1, 100)).await;
        drop(spool);
        assert_eq!(open(directory.path()).0.ids(), [id(1)]);
    }
}

async fn until(context: &str, reached: impl Fn() -> bool) {
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        while !reached() {
            polls.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), waited).await.is_ok(), "{context}");
}

fn value(registry: &Registry, name: &str) -> f64 {
    let page = registry.encode();
    let line = page.lines().find(|line| line.starts_with(name) && !line.starts_with('#')).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn large_files(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("spool/large")).unwrap().count()
}

#[tokio::test]
async fn a_file_that_cannot_be_deleted_is_tried_again_counted_and_in_the_end_alarming() {
    let directory = tempfile::tempdir().unwrap();
    let (files, registry) = (Failing::default(), Registry::default());
    let config = Config {
        cleanup_interval: Duration::from_millis(30),
        max_cleanup_attempts: 3,
        ..config(directory.path())
    };
    let (spool, _) = FileSpool::open_on(Arc::new(files.clone()), &config, Metrics::new(&registry)).unwrap();
    let mut draft = spool.draft(id(1)).await.unwrap();
    draft.write(b"Subject: large\r\n").await.unwrap();
    let content = draft.finish().await.unwrap();
    let envelope = Arc::new(crate::support::envelope(1));
    commit(&spool, Entry::Accepted { id: id(1), envelope, content }).await;
    files.refuse_removal(true);
    commit(&spool, Entry::Removed(id(1))).await;
    until("it is alarming", || value(&registry, "empath_spool_undeleted_files") > 0.0).await;
    assert!(value(&registry, "empath_spool_deletion_failures_total") >= 3.0);
    assert_eq!(large_files(directory.path()), 1);
    commit(&spool, accepted(2, 100)).await;
    files.refuse_removal(false);
    until("it is deleted in the end", || large_files(directory.path()) == 0).await;
    until("the alarm ends", || value(&registry, "empath_spool_undeleted_files") == 0.0).await;
}
