//! What becomes of recipients of one message at about the same time is told together, and nobody is told twice or forgotten
//! whatever happens in between.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use empath_common::{Envelope, Notify, RecipientNotification};
use empath_delivery::{Because, Filter, MessageStatus, RecipientStatus, WhyView};
use empath_spool::{Batch, Ended, Entry, Progress, RecipientUpdate, Spool as _, Status, Untold};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::{
    log::Warnings,
    world::{Pipes, World, routes, to, until},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

fn refusing() -> Script {
    Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no such user"))
}

fn slow(time: Duration) -> Script {
    refusing().on(At::MailFrom, Act::Delay(time))
}

fn asks_for_success(envelope: &mut Envelope, recipient: usize) {
    let notify = Notify::parse(b"SUCCESS,FAILURE");
    envelope.ask_about(recipient, RecipientNotification { notify, orcpt: None });
}

struct Hosts {
    one: Arc<Peer>,
    tar: Arc<Peer>,
    home: Arc<Peer>,
}

/// Mail for `one.test` is refused, that for `tar.test` after a time, and that for `home.test` arrives.
async fn hosts(time: Duration) -> (World, Hosts) {
    let start = async |script| Arc::new(Peer::start(script).await.unwrap());
    let (one, tar, home) = (start(refusing()).await, start(slow(time)).await, start(Script::new()).await);
    let config = routes(&[("one.test", &one), ("tar.test", &tar), ("home.test", &home)]);
    let world = World::over(Pipes::to(&[&one, &tar, &home]), config);
    (world, Hosts { one, tar, home })
}

/// Who is named by the reports that were made, and how often.
fn told(committed: &[Batch]) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for entry in committed.iter().flat_map(|batch| &batch.0) {
        let Entry::Accepted { envelope, content, .. } = entry else { continue };
        if envelope.reverse_path.mailbox().is_some() {
            continue;
        }
        let report = String::from_utf8(content.in_memory().unwrap().to_vec()).unwrap();
        for line in report.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; ")) {
            *told.entry(line.to_owned()).or_default() += 1;
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_told_yet_is_stored_and_told_after_a_restart() {
    let (mut world, Hosts { one, tar, home }) = hosts(Duration::from_mins(4)).await;
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@tar.test"]).await;
    world.at(world.clock.now() + SECOND).await;
    let [bob, carol] = world.stored(id).await.try_into().unwrap();
    assert_eq!((bob.status, bob.untold), (Status::Ended(Ended::Bounced), Some(Untold::Failed)));
    assert_eq!((carol.status, carol.untold), (Status::Pending, None));
    let view = world.view(id).await.unwrap();
    assert_eq!(view.status, MessageStatus::InProgress);
    assert_eq!(view.recipients[0].status, RecipientStatus::Failed);
    assert_eq!(view.recipients[0].last_reply.as_ref().unwrap().code, Some(550));
    assert_eq!(home.messages().len(), 0);
    assert!(!world.processor.shutdown(SECOND).await, "carol's host still thinks");
    assert_eq!(world.stored(id).await[0].untold, Some(Untold::Failed));

    let restarted = world.clock.now();
    world.restart().await;
    world.at(restarted + 2 * SECOND).await;
    let [report] = home.messages().try_into().unwrap();
    let report = String::from_utf8(report.content).unwrap();
    for line in [
        "Final-Recipient: rfc822; bob@one.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        "Last-Attempt-Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n",
    ] {
        assert!(report.contains(line), "{line} in {report}");
    }
    assert_eq!(world.stored(id).await[0].untold, None);
    world.done().await;
    assert_eq!(
        told(&world.spool.hooks.committed()),
        [("bob@one.test".into(), 1), ("carol@tar.test".into(), 1)].into()
    );
    assert_eq!((home.messages().len(), one.connections(), tar.connections()), (2, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_its_time_delays_the_news_of_others_for_a_minute() {
    let (mut world, Hosts { home, .. }) = hosts(Duration::from_mins(4)).await;
    let begun = world.clock.now();
    world.accept("alice@home.test", &["bob@one.test", "carol@tar.test"]).await;
    world.at(begun + MINUTE - SECOND).await;
    assert_eq!(home.messages().len(), 0);
    world.at(begun + MINUTE + SECOND).await;
    assert_eq!(home.messages().len(), 1);
    world.done().await;
    assert_eq!(home.messages().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn with_one_next_hop_the_end_and_its_report_are_one_batch_at_once() {
    let (mut world, Hosts { home, .. }) = hosts(SECOND).await;
    world.accept("alice@home.test", &["bob@one.test", "carol@one.test"]).await;
    world.done().await;
    let [_, Batch(end), ..] = &world.spool.hooks.committed()[..] else { panic!("no second batch") };
    assert!(matches!(end[..], [Entry::Accepted { .. }, Entry::Removed(_)]), "{end:?}");
    assert_eq!(home.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_the_spool_does_not_take_is_made_a_minute_later() {
    let (mut world, Hosts { one, home, .. }) = hosts(10 * SECOND).await;
    let begun = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@tar.test"]).await;
    world.at(begun + 9 * SECOND).await;
    world.spool.hooks.full.store(true, Relaxed);
    // Of carol's end nothing is known to the spool either: she is tried again.
    world.at(begun + 30 * SECOND).await;
    world.spool.hooks.full.store(false, Relaxed);
    assert_eq!((home.messages().len(), one.connections()), (0, 1));
    assert_eq!(world.recipient_at(id, 1).await.status, RecipientStatus::Deferred);
    world.at(begun + 75 * SECOND).await;
    assert_eq!(told(&world.spool.hooks.committed()), [("bob@one.test".into(), 1)].into());
    world.done().await;
    assert_eq!((home.messages().len(), one.connections()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn while_the_sender_is_not_told_yet_that_is_why_and_until_when() {
    let (mut world, _hosts) = hosts(Duration::from_mins(4)).await;
    let begun = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@tar.test"]).await;
    world.at(begun + SECOND).await;
    let [bob, carol]: [WhyView; 2] = world.processor.why(id).await.unwrap().try_into().unwrap();
    assert_eq!((bob.because, bob.status), (Because::Untold, RecipientStatus::Failed));
    assert!((begun + MINUTE..=begun + MINUTE + SECOND).contains(&bob.until.unwrap()), "{bob:?}");
    let host = bob.detail.strip_prefix("it has ended (").and_then(|rest| rest.split(": ").next()).unwrap();
    let expected = format!("it has ended ({host}: 550 5.1.1 no such user); its sender is about to be told");
    assert_eq!(bob.detail, expected);
    assert_eq!(carol.because, Because::InProgress);
    world.at(begun + MINUTE + SECOND).await;
    let [carol]: [WhyView; 1] = world.processor.why(id).await.unwrap().try_into().unwrap();
    assert_eq!(carol.address, "carol@tar.test");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_there_for_its_report_alone_says_so() {
    let (mut world, Hosts { home, .. }) = hosts(Duration::from_mins(4)).await;
    let id = world.accept("alice@home.test", &["bob@tar.test"]).await;
    assert!(!world.processor.shutdown(SECOND).await);
    let end = RecipientUpdate {
        recipient: 0,
        status: Status::Ended(Ended::Bounced),
        attempts: 1,
        next_attempt_at: None,
        told_of_delay: false,
        untold: Some(Untold::Failed),
        attempt: None,
    };
    world.spool.commit(Entry::Progress(Progress { id, updates: vec![end] }).into()).await.unwrap();
    world.spool.hooks.full.store(true, Relaxed);
    world.restart().await;
    let restarted = world.clock.now();
    world.at(restarted + SECOND).await;
    let [bob]: [WhyView; 1] = world.processor.why(id).await.unwrap().try_into().unwrap();
    assert_eq!(bob.because, Because::Untold);
    assert!((restarted + MINUTE..=restarted + MINUTE + SECOND).contains(&bob.until.unwrap()), "{bob:?}");
    assert_eq!(bob.detail, "it has ended; its sender is about to be told");
    world.spool.hooks.full.store(false, Relaxed);
    world.done().await;
    assert_eq!(home.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn that_nobody_is_told_after_all_because_reports_were_turned_off_is_warned_of() {
    for turned_off in [true, false] {
        let (mut world, Hosts { home, .. }) = hosts(Duration::from_mins(4)).await;
        let begun = world.clock.now();
        let id = world.accept("alice@home.test", &["bob@one.test", "carol@tar.test"]).await;
        world.at(begun + SECOND).await;
        assert_eq!(world.stored(id).await[0].untold, Some(Untold::Failed), "he is to be told later");
        let (warnings, _recording) = Warnings::record();
        world.reload(|_, dsn| dsn.enabled = !turned_off);
        world.at(begun + MINUTE + SECOND).await;
        let warned = format!(
            "nobody is told of recipients that have ended: the configuration of reports has changed since \
             message_id={id} recipients=1"
        );
        assert_eq!(warnings.take(), if turned_off { vec![warned] } else { Vec::new() });
        assert_eq!(home.messages().len(), usize::from(!turned_off));
        assert_eq!(world.stored(id).await[0].untold, None);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_message_that_is_deleted_nobody_is_told_what_he_does_not_know_yet() {
    let (mut world, Hosts { tar, home, .. }) = hosts(Duration::from_mins(4)).await;
    let begun = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@tar.test"]).await;
    world.at(begun + SECOND).await;
    let this = Filter { id: Some(id), ..Filter::default() };
    assert_eq!(world.processor.delete(&this).await.unwrap().changed, 1);
    assert_eq!(world.stored(id).await[0].untold, None);
    world.done().await;
    assert_eq!((home.messages().len(), tar.connections()), (0, 1));
    let removed = world.metric("empath_delivery_removed_total");
    assert!((removed - 1.0).abs() < 0.1, "{removed}: bob had bounced before");
}

#[tokio::test(start_paused = true)]
async fn of_a_held_message_is_told_what_has_ended() {
    let (mut world, Hosts { home, .. }) = hosts(10 * SECOND).await;
    let begun = world.clock.now();
    let id =
        world.accept("alice@home.test", &["bob@one.test", "carol@tar.test", "dave@later.one.test"]).await;
    world.at(begun + SECOND).await;
    let this = Filter { id: Some(id), ..Filter::default() };
    world.processor.hold(&this).await.unwrap();
    world.at(begun + 20 * SECOND).await;
    assert_eq!(home.messages().len(), 1);
    // Nothing of it expires, also not when it is told of.
    world.at(begun + 6 * 24 * 60 * MINUTE).await;
    let view = world.view(id).await.unwrap();
    assert_eq!((view.status, home.messages().len()), (MessageStatus::Held, 1));
}

/// Ends of all kinds: at once, in a transaction with others, after the news of the first can wait no longer, and later.
#[tokio::test(start_paused = true)]
async fn after_a_crash_behind_any_batch_everybody_is_told_of_once() {
    const RECIPIENTS: [&str; 6] = [
        "ann@one.test",
        "bob@tar.test",
        "carol@good.test",
        "dave@good.test",
        "erin@late.test",
        "fred@one.test",
    ];
    const TOLD: [&str; 5] =
        ["ann@one.test", "bob@tar.test", "carol@good.test", "erin@late.test", "fred@one.test"];
    let begin = async || {
        let start = async |script| Arc::new(Peer::start(script).await.unwrap());
        let (one, tar) = (start(refusing()).await, start(slow(90 * SECOND)).await);
        let (good, home) = (start(Script::new()).await, start(Script::new()).await);
        let later = Act::reply("451 4.2.0 later");
        let late = start(refusing().nth(At::RcptTo, 1, later)).await;
        let hosts = [&one, &tar, &good, &late, &home];
        let names = ["one.test", "tar.test", "good.test", "late.test", "home.test"];
        let hops: Vec<_> = names.into_iter().zip(hosts.iter().map(|host| &***host)).collect();
        (World::over(Pipes::to(&hosts), routes(&hops)), home)
    };
    let (mut world, home) = begin().await;
    world.accept_asking("alice@home.test", &RECIPIENTS, |envelope| asks_for_success(envelope, 2)).await;
    world.done().await;
    let batches = world.spool.hooks.committed();
    let once: BTreeMap<_, _> = TOLD.iter().map(|address| ((*address).to_owned(), 1)).collect();
    assert_eq!(told(&batches), once);
    // Nothing after 90 seconds is in time for the first.
    assert_eq!(home.messages().len(), 2, "{:?}", to(&home));
    assert!(batches.len() > 6, "{batches:?}");
    for known in 1..=batches.len() {
        let (world, _home) = begin().await;
        for batch in &batches[..known] {
            world.spool.commit(batch.clone()).await.unwrap();
        }
        // Reports get other ids.
        world.at(world.clock.now() + 10 * MINUTE).await;
        world.processor.recover().await;
        world.done().await;
        assert_eq!(told(&world.spool.hooks.committed()), once, "after {known} of {}", batches.len());
        until(async || world.processor.queue_len() == 0).await;
    }
}
