//! What every spool promises, run against each of them.

use std::{future::Future, path::Path, sync::Arc};

use crate::support::{accepted, assert_whole, commit, content, deferred, envelope, id, open};
use empath_spool::{Batch, CommitError, Entry, LoadError, MemorySpool, RecipientState, Spool, Status};

/// Runs a test against each implementation.
async fn for_each<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Spool>) -> F) {
    test(Arc::new(MemorySpool::new())).await;
    let directory = tempfile::tempdir().unwrap();
    test(Arc::new(open(directory.path()).0)).await;
}

#[tokio::test]
async fn what_was_committed_is_read_back_octet_for_octet() {
    for_each(|spool| async move {
        for (number, size) in [(1, 0), (2, 1), (3, 4096), (4, 65_536), (5, 300_000)] {
            commit(&*spool, accepted(number, size)).await;
            assert_whole(&*spool, number, size).await;
        }
        assert_eq!(spool.ids(), [id(1), id(2), id(3), id(4), id(5)]);
        assert_eq!(spool.len(), 5);
    })
    .await;
}

#[tokio::test]
async fn progress_adds_up_and_names_only_what_changed() {
    for_each(|spool| async move {
        commit(&*spool, accepted(1, 10)).await;
        assert_eq!(spool.load(id(1)).await.unwrap().recipients, vec![RecipientState::default(); 3]);
        commit(&*spool, deferred(1, 2, 1)).await;
        commit(&*spool, deferred(1, 2, 2)).await;
        // There is no such recipient.
        commit(&*spool, deferred(1, 3, 1)).await;
        let Entry::Progress(update) = deferred(1, 2, 2) else {
            return;
        };
        let recipients = spool.load(id(1)).await.unwrap().recipients;
        assert_eq!(recipients[..2], vec![RecipientState::default(); 2]);
        assert_eq!(recipients[2].status, Status::Deferred);
        assert_eq!(recipients[2].attempts, 2);
        assert_eq!(recipients[2].next_attempt_at, update.updates[0].next_attempt_at);
        assert_eq!(recipients[2].history.len(), 2);
        assert_eq!(recipients[2].history.last(), update.updates[0].attempt.as_ref());
    })
    .await;
}

#[tokio::test]
async fn a_message_is_held_until_the_contrary_is_said() {
    for_each(|spool| async move {
        commit(&*spool, accepted(1, 10)).await;
        for (entry, expected) in [
            (deferred(1, 0, 1), false),
            (Entry::Held { id: id(1), held: true }, true),
            (deferred(1, 0, 2), true),
            (Entry::Held { id: id(1), held: false }, false),
        ] {
            commit(&*spool, entry).await;
            let stored = spool.load(id(1)).await.unwrap();
            assert_eq!((stored.held, stored.recipients[1].status), (expected, Status::Pending));
        }
        commit(&*spool, Entry::Held { id: id(9), held: true }).await;
        assert_eq!(spool.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn removed_messages_are_unknown() {
    for_each(|spool| async move {
        commit(&*spool, accepted(1, 10)).await;
        commit(&*spool, accepted(2, 10)).await;
        commit(&*spool, Entry::Removed(id(1))).await;
        assert_eq!(spool.ids(), [id(2)]);
        assert!(matches!(spool.load(id(1)).await, Err(LoadError::Unknown(unknown)) if unknown == id(1)));
        assert!(matches!(spool.content(id(1)).await, Err(LoadError::Unknown(_))));
    })
    .await;
}

#[tokio::test]
async fn entries_about_unknown_messages_change_nothing() {
    for_each(|spool| async move {
        commit(&*spool, deferred(9, 0, 1)).await;
        commit(&*spool, Entry::Removed(id(9))).await;
        assert!(spool.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_batch_takes_effect_in_its_order() {
    for_each(|spool| async move {
        let batch = vec![accepted(1, 10), deferred(1, 0, 1), accepted(2, 10), Entry::Removed(id(1))];
        spool.commit(Batch(batch)).await.unwrap();
        spool.commit(Batch::default()).await.unwrap();
        assert_eq!(spool.ids(), [id(2)]);
    })
    .await;
}

#[tokio::test]
async fn batches_take_effect_in_the_order_of_the_calls_even_if_nobody_waits() {
    for_each(|spool| async move {
        for number in 0..500 {
            drop(spool.commit(accepted(number, 100).into()));
            drop(spool.commit(deferred(number, 0, 1).into()));
            drop(spool.commit(deferred(number, 0, 2).into()));
            if number.is_multiple_of(2) {
                drop(spool.commit(Entry::Removed(id(number)).into()));
            }
        }
        spool.close().await;
        assert_eq!(spool.ids(), (0..500).filter(|number| number % 2 == 1).map(id).collect::<Vec<_>>());
        let recipients = spool.load(id(499)).await.unwrap().recipients;
        assert_eq!((recipients[0].attempts, recipients[0].history.len()), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn a_closed_spool_refuses_commits_and_still_reads() {
    for_each(|spool| async move {
        let before = spool.commit(accepted(1, 10).into());
        spool.close().await;
        before.await.unwrap();
        let refusal = spool.commit(accepted(2, 10).into()).await;
        assert!(matches!(refusal, Err(CommitError::Closed)));
        assert!(!spool.is_healthy());
        assert_whole(&*spool, 1, 10).await;
        spool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_lose_nothing() {
    for_each(|spool| async move {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..20 {
            let spool = Arc::clone(&spool);
            writers.spawn(async move {
                for number in 0..50 {
                    let number = writer * 50 + number;
                    commit(&*spool, accepted(number, 500)).await;
                    assert_whole(&*spool, number, 500).await;
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.expect("no writer fails");
        }
        assert_eq!(spool.len(), 1000);
    })
    .await;
}

/// The contract speaks of restarts too; a spool in memory has none.
#[tokio::test]
async fn everything_survives_a_restart_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let reopen = |path: &Path| open(path).0;
    let spool = reopen(directory.path());
    for number in 0..200 {
        commit(&spool, accepted(number, 1000)).await;
        commit(&spool, deferred(number, 1, 1)).await;
    }
    commit(&spool, deferred(7, 0, 3)).await;
    commit(&spool, Entry::Removed(id(8))).await;
    let before = crate::support::everything(&spool).await;
    drop(spool);
    for _ in 0..3 {
        let after = crate::support::everything(&reopen(directory.path())).await;
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
    }
}

#[tokio::test]
async fn content_that_arrives_in_pieces_is_the_same_afterwards() {
    for_each(|spool| async move {
        let whole = content(1, 600_000);
        let mut draft = spool.draft(id(1)).await.unwrap();
        for piece in whole.chunks(77_777) {
            draft.write(piece).await.unwrap();
        }
        let drafted = draft.finish().await.unwrap();
        assert_eq!(drafted.len(), whole.len() as u64);
        let envelope = Arc::new(envelope(1));
        commit(&*spool, Entry::Accepted { id: id(1), envelope, content: drafted.clone() }).await;
        drop(drafted);
        assert_whole(&*spool, 1, 600_000).await;
        // One that comes to nothing.
        let mut draft = spool.draft(id(2)).await.unwrap();
        draft.write(&whole).await.unwrap();
        drop(draft);
        assert_eq!(spool.ids(), [id(1)]);
    })
    .await;
}

#[tokio::test]
async fn some_messages_are_loaded_in_the_order_asked_for() {
    for_each(|spool| async move {
        for number in 1..=3 {
            commit(&*spool, accepted(number, 100)).await;
        }
        let loaded = spool.load_some(vec![id(3), id(9), id(1)]).await;
        let found: Vec<_> = loaded.iter().map(|(id, stored)| (*id, stored.is_ok())).collect();
        assert_eq!(found, [(id(3), true), (id(9), false), (id(1), true)]);
        assert_eq!(*loaded[0].1.as_ref().unwrap().envelope, envelope(3));
    })
    .await;
}
