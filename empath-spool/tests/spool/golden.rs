//! Spools that earlier versions have written.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::support::{
    accepted, assert_whole, commit, content, copy, deferred, envelope, id, octets, open, segments,
};
use empath_common::{
    Envelope, EnvelopeId, MessageNotification, Notify, OriginalRecipient, RecipientNotification, Ret,
};
use empath_spool::{Batch, Ended, Entry, Progress, RecipientUpdate, Spool, Status, Untold};

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

const LARGE: usize = 20_000;

/// Every kind of record, in several segments.
async fn write(directory: &Path) {
    let (spool, _) = open(directory);
    commit(&spool, accepted(1, 300)).await;
    spool.commit(Batch(vec![accepted(2, 0), deferred(1, 0, 1), deferred(1, 2, 1)])).await.unwrap();
    let mut draft = spool.draft(id(3)).await.unwrap();
    draft.write(&content(3, LARGE)).await.unwrap();
    let large = draft.finish().await.unwrap();
    commit(&spool, Entry::Accepted { id: id(3), envelope: Arc::new(envelope(3)), content: large }).await;
    drop(spool);
    let (spool, _) = open(directory);
    commit(&spool, accepted(4, 100)).await;
    commit(&spool, Entry::Removed(id(2))).await;
    commit(&spool, deferred(1, 0, 2)).await;
    let updates = [Ended::Delivered, Ended::Bounced, Ended::Expired].map(|ended| (ended as u32, ended));
    let update = |(recipient, ended)| RecipientUpdate {
        recipient,
        status: Status::Ended(ended),
        attempts: 1,
        next_attempt_at: None,
        told_of_delay: false,
        untold: None,
        attempt: None,
    };
    let updates = updates.map(update).to_vec();
    commit(&spool, Entry::Progress(Progress { id: id(4), updates })).await;
    drop(spool);
    open(directory).0.close().await;
}

/// What a released version has written is never written anew.
fn is_wanted(golden: &Path) -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some() && !golden.exists()
}

fn keep(directory: &Path, golden: &Path) {
    copy(directory, golden);
    for segment in segments(golden) {
        let used = fs::read(&segment).unwrap().iter().rposition(|octet| *octet != 0).unwrap() + 1;
        fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(used as u64).unwrap();
    }
    for name in ["00000001.spare", "00000002.spare"] {
        let _ = fs::remove_file(golden.join("spool/journal").join(name));
    }
}

/// An envelope whose sender asked for everything that can be asked for.
fn asking() -> Envelope {
    let mut envelope = envelope(7);
    envelope.ask(MessageNotification { ret: Some(Ret::Headers), envid: EnvelopeId::parse(b"QQ+2B314159") });
    let orcpt = |text: &str| OriginalRecipient::parse(text.as_bytes());
    let notify = |text: &str| Notify::parse(text.as_bytes());
    let asked = RecipientNotification { notify: notify("NEVER"), orcpt: orcpt("rfc822;Bob+2Bx@Other.test") };
    envelope.ask_about(0, asked);
    let asked = RecipientNotification { notify: notify("SUCCESS,FAILURE,DELAY"), orcpt: None };
    envelope.ask_about(1, asked);
    envelope.ask_about(2, RecipientNotification { notify: None, orcpt: orcpt("utf-8;\u{3b1}@other.test") });
    envelope
}

#[tokio::test]
async fn what_senders_asked_is_read() {
    let golden = golden("v1-notifications");
    if is_wanted(&golden) {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        let envelope = Arc::new(asking());
        commit(&spool, Entry::Accepted { id: id(7), envelope, content: content(7, 10).into() }).await;
        spool.close().await;
        drop(spool);
        keep(directory.path(), &golden);
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&golden, directory.path());
    let (spool, report) = open(directory.path());
    assert_eq!((report.damaged.len(), report.unfinished), (0, 0), "{report:?}");
    assert_eq!(*spool.load(id(7)).await.unwrap().envelope, asking());
}

#[tokio::test]
async fn what_senders_do_not_know_yet_is_read() {
    let golden = golden("v1-untold");
    let untold = [Some(Untold::Failed), Some(Untold::Delivered), Some(Untold::Relayed)];
    if is_wanted(&golden) {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open(directory.path());
        let update = |(recipient, untold)| RecipientUpdate {
            recipient,
            status: Status::Ended(Ended::Expired),
            attempts: 1,
            next_attempt_at: None,
            told_of_delay: false,
            untold,
            attempt: None,
        };
        let updates: Vec<_> = (0..).zip(untold).map(update).collect();
        commit(&spool, accepted(7, 10)).await;
        commit(&spool, Entry::Progress(Progress { id: id(7), updates })).await;
        spool.close().await;
        drop(spool);
        keep(directory.path(), &golden);
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&golden, directory.path());
    let (spool, report) = open(directory.path());
    assert_eq!((report.damaged.len(), report.unfinished), (0, 0), "{report:?}");
    let recipients = spool.load(id(7)).await.unwrap().recipients;
    assert_eq!(recipients.iter().map(|recipient| recipient.untold).collect::<Vec<_>>(), untold);
}

#[tokio::test]
async fn format_version_1_is_read() {
    let golden = golden("v1");
    if is_wanted(&golden) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).await;
        keep(directory.path(), &golden);
    }
    // With what is written down about the segments, and without.
    for forget in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        copy(&golden, directory.path());
        if forget {
            crate::support::forget_contents(directory.path());
        }
        let (spool, report) = open(directory.path());
        assert_eq!((report.damaged.len(), report.unfinished), (0, 0), "{report:?}");
        assert_eq!(spool.ids(), [id(1), id(3), id(4)]);
        assert_whole(&spool, 1, 300).await;
        assert_whole(&spool, 4, 100).await;
        let large = spool.content(id(3)).await.unwrap();
        assert!(large.in_memory().is_none());
        assert_eq!(octets(&large).await, content(3, LARGE));
        let recipients = spool.load(id(1)).await.unwrap().recipients;
        let attempts: Vec<_> =
            recipients.iter().map(|recipient| (recipient.attempts, recipient.history.len())).collect();
        assert_eq!(attempts, [(2, 2), (0, 0), (1, 1)]);
        assert_eq!(recipients[0].history[1].reply.as_ref().unwrap().text.as_ref(), "later\nplease");
        let ends = spool.load(id(4)).await.unwrap().recipients;
        let ends: Vec<_> = ends.iter().map(|recipient| recipient.status).collect();
        assert_eq!(ends, [Ended::Delivered, Ended::Bounced, Ended::Expired].map(Status::Ended));
    }
}
