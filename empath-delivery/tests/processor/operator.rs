use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use empath_common::{Envelope, Priority};
use empath_delivery::{Filter, MessageStatus, RecipientStatus, Touched};
use empath_spool::{Ended, Spool as _, Status};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, deferred, routes, to, until};

fn this(id: empath_common::MessageId) -> Filter {
    Filter { id: Some(id), ..Filter::default() }
}

#[tokio::test(start_paused = true)]
async fn the_queue_says_what_waits_why_and_for_how_long() {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("450 4.2.1 mailbox busy"))).await.unwrap();
    let mut world = World::new(routes(&[("*", &one)]));
    let ids = [
        world.accept("alice@home.test", &["ann@one.test", "bob@two.test"]).await,
        world.accept("", &["cid@one.test"]).await,
    ];
    world.rest().await;
    let all = world.processor.list(&Filter::default(), None, usize::MAX).await;
    assert_eq!(all.iter().map(|message| message.id).collect::<Vec<_>>(), ids);
    assert_eq!((all[0].sender.as_str(), all[1].sender.as_str()), ("alice@home.test", ""));
    assert_eq!(all[0].status, MessageStatus::Deferred);
    let recipient = &all[0].recipients[1];
    assert_eq!((recipient.address.as_str(), recipient.status), ("bob@two.test", RecipientStatus::Deferred));
    assert_eq!(recipient.next_hop, Some(format!("smtp:{}", one.address())));
    let reply = recipient.last_reply.as_ref().unwrap();
    assert_eq!(
        (reply.code, reply.enhanced.as_deref(), reply.text.as_str()),
        (Some(450), Some("4.2.1"), "mailbox busy")
    );

    let found = |filter: Filter| {
        let processor = world.processor.clone();
        async move { processor.list(&filter, None, usize::MAX).await.iter().map(|m| m.id).collect::<Vec<_>>() }
    };
    let two = Some("two.test".parse().unwrap());
    assert_eq!(found(Filter { domain: two, ..Filter::default() }).await, [ids[0]]);
    assert_eq!(found(Filter { sender: Some(String::new()), ..Filter::default() }).await, [ids[1]]);
    assert_eq!(found(Filter { status: Some(MessageStatus::Pending), ..Filter::default() }).await, []);
    assert_eq!(world.processor.list(&Filter::default(), Some(ids[0]), 1).await[0].id, ids[1]);
    assert_eq!(world.processor.list(&Filter::default(), None, 1).await.len(), 1);

    let (_, history) = world.processor.view(ids[0]).await.unwrap();
    assert_eq!(history.len(), 2);
    let stats = world.processor.stats().await;
    assert_eq!((stats.total, stats.by_status[&MessageStatus::Deferred]), (2, 2));
    assert_eq!((stats.by_domain["one.test"], stats.by_domain["two.test"]), (2, 1));
    assert_eq!(
        stats.oldest_seconds,
        Some(world.clock.now().duration_since(all[0].received_at).as_secs().try_into().unwrap())
    );
    assert!((world.metric("empath_delivery_queue_size{status=\"deferred\"}") - 2.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn the_priority_of_a_message_is_shown_and_outlives_a_restart() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    one.stop().await;
    let bulk = |envelope: &mut Envelope| envelope.priority = Priority::Bulk;
    let id = world.accept_asking("alice@home.test", &["bob@one.test"], bulk).await;
    world.rest().await;
    world.restart().await;
    assert_eq!(world.view(id).await.unwrap().priority, Priority::Bulk);
    one.restart().await.unwrap();
    world.done().await;
    let waits = |priority| {
        world.metric(&format!("empath_delivery_queue_wait_seconds_count{{priority=\"{priority}\"}}"))
    };
    assert!(waits("bulk") > 0.5 && waits("normal") < 0.5);
}

#[tokio::test(start_paused = true)]
async fn retry_does_not_wait_for_the_due_time() {
    let (mut one, world, id) = deferred().await;
    one.restart().await.unwrap();
    let now = world.clock.now();
    assert_eq!(world.processor.retry(&this(id)).await, Touched { matched: 1, changed: 1 });
    one.wait_for_messages(1).await;
    assert!(world.clock.now() < now + Duration::from_secs(1));
    world.done().await;
    assert_eq!(world.processor.retry(&this(id)).await, Touched::default());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_message_is_gone_from_the_spool_when_delete_answers() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    one.stop().await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    let other = world.accept("carol@home.test", &["bob@one.test"]).await;
    world.rest().await;
    let carol = Filter { sender: Some("alice@home.test".to_owned()), ..Filter::default() };
    assert_eq!(world.processor.delete(&carol).await.unwrap(), Touched { matched: 1, changed: 1 });
    assert_eq!(world.spool.ids(), [other]);
    assert!(world.view(id).await.is_none());
    assert_eq!(home.messages().len(), 0, "nobody is told");
    assert!((world.metric("empath_delivery_removed_total") - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn a_message_deleted_in_flight_is_finished_and_not_tried_again() {
    let slow = Script::new()
        .on(At::Greeting, Act::Delay(Duration::from_secs(10)))
        .on(At::MailFrom, Act::reply("451 4.3.2 later"));
    let one = Peer::start(slow).await.unwrap();
    let mut two = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("two.test", &two)]));
    two.stop().await;
    let id = world.accept("alice@home.test", &["ann@one.test", "bob@two.test"]).await;
    until(async || world.stored(id).await[1].status == Status::Deferred).await;
    assert_eq!(world.processor.delete(&this(id)).await.unwrap(), Touched { matched: 1, changed: 1 });
    let stored = world.stored(id).await;
    assert_eq!(
        stored[0].status,
        Status::Ended(Ended::Removed),
        "whatever happens, it is not tried after a restart"
    );
    assert_eq!(stored[1].status, Status::Ended(Ended::Removed));
    world.done().await;
    two.restart().await.unwrap();
    assert_eq!(one.transcript().matches("MAIL FROM").count(), 1);
    assert_eq!(to(&two), Vec::<String>::new());
    assert!((world.metric("empath_delivery_removed_total") - 2.0).abs() < 0.1, "in flight or not");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_what_fails_after_it_was_deleted_and_what_arrives_has_arrived() {
    let slow = Script::new()
        .on(At::Greeting, Act::Delay(Duration::from_secs(10)))
        .on(At::Recipient("bob@one.test".to_owned()), Act::reply("550 5.1.1 no such user"));
    let one = Peer::start(slow).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let id = world.accept("alice@home.test", &["ann@one.test", "bob@one.test"]).await;
    one.wait_for_connections(1).await;
    let detail = async || world.processor.why(id).await.unwrap().remove(0).detail;
    assert_eq!(detail().await, "an attempt is being made");
    world.processor.hold(&this(id)).await.unwrap();
    assert_eq!(detail().await, "an attempt is being made; if it fails the message is held");
    assert_eq!(world.processor.delete(&this(id)).await.unwrap(), Touched { matched: 1, changed: 1 });
    assert_eq!(detail().await, "an attempt is being made; if it fails the message is removed");
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test"]);
    assert_eq!(home.messages().len(), 0);
    assert!((world.metric("empath_delivery_removed_total") - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_in_flight_is_not_tried_after_the_flight_was_cut_off() {
    let mut one = Peer::start(Script::new().on(At::Data, Act::Stall)).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["ann@one.test"]).await;
    one.wait_for_connections(1).await;
    world.processor.delete(&this(id)).await.unwrap();
    assert!(!world.processor.shutdown(Duration::from_secs(30)).await);
    one.restart_with(Script::new()).await.unwrap();
    world.restart().await;
    world.done().await;
    assert_eq!(one.messages().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_could_not_be_stored_is_refused_and_the_message_stays() {
    let (mut one, world, id) = deferred().await;
    let before = world.recipient(id).await.next_attempt_at;
    world.spool.hooks.full.store(true, Relaxed);
    assert!(world.processor.delete(&this(id)).await.is_err());
    world.spool.hooks.full.store(false, Relaxed);
    assert_eq!(world.recipient(id).await.next_attempt_at, before);
    one.restart().await.unwrap();
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}
