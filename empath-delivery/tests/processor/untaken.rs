//! What becomes of outcomes while the spool refuses.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use empath_spool::{Ended, Spool as _, Status};
use empath_testkit::peer::{Act, At, Peer, Script};
use tokio::time::sleep;

use crate::world::{World, routes, to, until};

/// More than the longest pause before a repetition.
const SOON: Duration = Duration::from_secs(31);

#[tokio::test(start_paused = true)]
async fn outcomes_that_a_full_spool_refused_are_stored_soon_after_it_has_recovered() {
    let one = Peer::start(Script::new().on(At::Greeting, Act::Delay(Duration::from_secs(5)))).await.unwrap();
    let mut two = Peer::start(Script::new()).await.unwrap();
    two.stop().await;
    let mut world = World::new(routes(&[("one.test", &one), ("two.test", &two)]));
    let delivered = world.accept("alice@home.test", &["bob@one.test"]).await;
    let half = world.accept("alice@home.test", &["carol@one.test", "dave@two.test"]).await;
    world.spool.hooks.full.store(true, Relaxed);
    until(async || world.recipient_at(half, 1).await.attempts == 3).await;
    world.rest().await;
    assert_eq!(world.stored(half).await[1].attempts, 0);
    assert_eq!(world.spool.len(), 2);

    world.spool.hooks.full.store(false, Relaxed);
    sleep(SOON).await;
    assert!(world.spool.load(delivered).await.is_err(), "the delivered message is gone");
    let stored = world.stored(half).await;
    assert_eq!((stored[0].status, stored[0].history.len()), (Status::Ended(Ended::Delivered), 1));
    let attempts: Vec<_> = stored[1].history.iter().map(|attempt| attempt.at).collect();
    assert_eq!((stored[1].attempts, attempts.len()), (3, 3));
    assert!(attempts.is_sorted(), "in their order");
    let shown = world.recipient_at(half, 1).await;
    assert_eq!(stored[1].next_attempt_at, shown.next_attempt_at);

    two.restart().await.unwrap();
    world.restart().await;
    world.done().await;
    let mut recipients = to(&one);
    recipients.sort();
    assert_eq!(recipients, ["bob@one.test", "carol@one.test"]);
    assert_eq!(to(&two), ["dave@two.test"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_beside_a_bounce_that_could_not_be_stored_is_not_delivered_again() {
    let mut one = Peer::start(Script::new().nth(At::RcptTo, 2, Act::reply("550 5.1.1 no"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let id = world.accept("alice@home.test", &["ann@one.test", "bob@one.test"]).await;
    world.spool.hooks.full.store(true, Relaxed);
    world.rest().await;
    world.spool.hooks.full.store(false, Relaxed);
    sleep(SOON).await;
    assert_eq!(world.stored(id).await[0].status, Status::Ended(Ended::Delivered));
    one.restart_with(Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no"))).await.unwrap();
    world.restart().await;
    world.done().await;
    assert_eq!(home.messages().len(), 1);
    assert_eq!(one.transcript().matches("RCPT TO:<ann@").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_spool_gets_a_last_chance_when_the_processor_stops() {
    let one = Peer::start(Script::new().on(At::Greeting, Act::Delay(Duration::from_secs(5)))).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.spool.hooks.full.store(true, Relaxed);
    until(async || world.processor.queue_len() == 0).await;
    sleep(SOON * 4).await;
    world.spool.hooks.full.store(false, Relaxed);
    world.restart().await;
    assert!(world.spool.is_empty());
    assert_eq!(to(&one), ["bob@one.test"]);
}
