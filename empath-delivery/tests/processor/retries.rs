use std::time::Duration;

use empath_delivery::RecipientStatus;
use empath_spool::{Ended, Spool as _, Status};
use empath_testkit::peer::{Act, At, Peer, Script};
use jiff::Timestamp;

use crate::world::{World, routes, to, until};

#[tokio::test(start_paused = true)]
async fn mail_for_a_host_that_is_offline_waits_and_is_delivered_at_its_due_time() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    one.stop().await;
    let received = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    let recipient = world.recipient(id).await;
    assert_eq!((recipient.status, recipient.attempts), (RecipientStatus::Deferred, 1));
    assert_eq!(
        recipient.next_attempt_at,
        Some(received + Duration::from_mins(1)),
        "the first delay, exactly"
    );
    let reply = recipient.last_reply.unwrap();
    assert_eq!((reply.code, reply.enhanced.as_deref()), (None, Some("4.4.1")));
    assert!(reply.text.contains("refused"), "{}", reply.text);
    assert_eq!(recipient.host, Some(one.address().to_string()));

    one.restart().await.unwrap();
    world.at(received + Duration::from_millis(59_990)).await;
    assert_eq!(one.connections(), 0, "not before its time");
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
    assert!(world.clock.now() <= received + Duration::from_secs(62));
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_neither_attempts_nor_due_times() {
    let one = Peer::start(Script::new().on(At::MailFrom, Act::reply("451 4.3.2 later"))).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["ann@one.test", "bob@one.test"]).await;
    until(async || world.recipient(id).await.attempts == 3).await;
    world.rest().await;
    let before = world.view(id).await.unwrap();
    world.restart().await;
    let after = world.view(id).await.unwrap();
    for (before, after) in before.recipients.iter().zip(&after.recipients) {
        assert_eq!((after.status, after.attempts), (before.status, before.attempts));
        assert_eq!(after.next_attempt_at, before.next_attempt_at);
        assert_eq!(after.last_reply, before.last_reply);
    }
    let due = before.recipients[0].next_attempt_at.unwrap();
    until(async || world.recipient(id).await.attempts == 4).await;
    let last = world.stored(id).await.remove(0).history.pop().unwrap();
    assert!(last.at >= due && last.at <= due + Duration::from_millis(10), "{} {due}", last.at);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_tried_starts_at_once_after_a_restart() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.processor.shutdown(Duration::ZERO).await;
    world.accept("alice@home.test", &["bob@one.test"]).await;
    assert_eq!(one.connections(), 0);
    world.restart().await;
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_recipients_have_all_ended_is_removed_at_the_restart() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.processor.shutdown(Duration::ZERO).await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    let update = empath_spool::RecipientUpdate {
        recipient: 0,
        status: Status::Ended(Ended::Delivered),
        attempts: 1,
        next_attempt_at: None,
        told_of_delay: false,
        untold: None,
        attempt: None,
    };
    let progress = empath_spool::Progress { id, updates: vec![update] };
    world.spool.commit(empath_spool::Entry::Progress(progress).into()).await.unwrap();
    world.restart().await;
    assert!(world.spool.is_empty());
    assert_eq!(one.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_expires_on_time_and_its_sender_is_told() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.retry.expire_after = Duration::from_hours(10);
    config.retry.max_attempts = 100;
    let mut world = World::new(config);
    one.stop().await;
    let received = world.clock.now();
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.at(received + Duration::from_hours(10) - Duration::from_secs(1)).await;
    assert_eq!((world.processor.queue_len(), home.messages().len()), (1, 1), "the news of the delay");
    world.done().await;
    let now: Timestamp = world.clock.now();
    assert!(now <= received + Duration::from_hours(10) + Duration::from_secs(3), "{now}");
    let report = String::from_utf8(home.messages()[1].content.clone()).unwrap();
    assert!(report.contains("Action: failed\r\nStatus: 4.4.7\r\n"), "{report}");
    assert!(report.contains("Subject: hello"), "{report}");
    assert!((world.metric("empath_delivery_attempts_total{status=\"expired\"}") - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_expired_while_the_daemon_was_down_is_ended_after_the_restart() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    one.stop().await;
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    world.processor.shutdown(Duration::ZERO).await;
    world.at(world.clock.now() + Duration::from_hours(10 * 24)).await;
    world.restart().await;
    world.done().await;
    assert_eq!(home.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_of_those_allowed_bounces() {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.2.1 not now"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.retry.max_attempts = 3;
    let mut world = World::new(config);
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!(one.transcript().matches("RCPT TO").count(), 3);
    let report = String::from_utf8(home.messages()[0].content.clone()).unwrap();
    assert!(report.contains("Status: 4.2.1\r\n"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_garbled_reply_about_one_recipient_does_not_hold_up_the_others() {
    let garbled = Script::new().on(At::Recipient("garb@one.test".to_owned()), Act::raw("hello\r\n"));
    let one = Peer::start(garbled).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let recipients = ["ann@one.test", "garb@one.test", "bob@one.test"];
    let id = world.accept("alice@home.test", &recipients).await;
    until(async || world.recipient_at(id, 1).await.attempts == 2).await;
    world.rest().await;
    let mut delivered = to(&one);
    delivered.sort();
    assert_eq!(delivered, ["ann@one.test", "bob@one.test"]);
}
