//! Messages that come in twice.

use std::time::Duration;

use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes, to, until};

const HOUR: Duration = Duration::from_hours(1);
const HELLO: &[u8] = b"Subject: hello\r\nMessage-ID: <1@home.test>\r\n\r\nbody\r\n";
const OTHER: &[u8] = b"Subject: hello\r\nMessage-ID: <2@home.test>\r\n\r\nbody\r\n";
const NO_ID: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

fn world(peer: &Peer, window: Option<Duration>) -> World {
    let mut config = routes(&[("*", peer)]);
    config.deduplication.window = window;
    World::new(config)
}

#[tokio::test(start_paused = true)]
async fn the_same_message_of_the_same_sender_is_delivered_to_a_recipient_once_within_the_window() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut world = world(&one, Some(HOUR));
    world.accept_content("alice@home.test", &["ann@one.test", "bob@one.test"], HELLO).await;
    world.done().await;
    // One of them again, and somebody new.
    world.accept_content("alice@home.test", &["bob@one.test", "cid@one.test"], HELLO).await;
    world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test", "bob@one.test", "cid@one.test"]);
    assert!((world.metric("empath_delivery_duplicates_total") - 2.0).abs() < 0.1);
    // Another sender, another message, one without a name, and the same one later.
    world.accept_content("carol@home.test", &["ann@one.test"], HELLO).await;
    world.accept_content("alice@home.test", &["ann@one.test"], OTHER).await;
    world.accept_content("alice@home.test", &["ann@one.test"], NO_ID).await;
    world.accept_content("alice@home.test", &["ann@one.test"], NO_ID).await;
    world.done().await;
    world.at(world.clock.now() + HOUR).await;
    world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
    world.done().await;
    assert_eq!(to(&one).len(), 8);
    assert!((world.metric("empath_delivery_duplicates_total") - 2.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn without_a_window_everything_is_delivered() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut world = world(&one, None);
    for _ in 0..3 {
        world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
    }
    world.done().await;
    assert_eq!(to(&one).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_still_tried_counts_and_one_that_bounced_does_not() {
    let script = Script::new().nth(At::RcptTo, 1, Act::reply("451 4.7.1 later")).nth(
        At::RcptTo,
        2,
        Act::reply("550 5.1.1 no such user"),
    );
    let one = Peer::start(script).await.unwrap();
    let mut world = world(&one, Some(HOUR));
    let first = world.accept_content("", &["ann@one.test"], HELLO).await;
    world.rest().await;
    let second = world.accept_content("", &["ann@one.test"], HELLO).await;
    until(async || world.view(second).await.is_none()).await;
    assert_eq!(one.transcript().matches("RCPT TO").count(), 1, "it waits for the first");
    until(async || world.view(first).await.is_none()).await;
    assert_eq!(one.messages().len(), 0);
    world.accept_content("", &["ann@one.test"], HELLO).await;
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test"], "the first has bounced");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_no_duplicate_of_itself() {
    let one = Peer::start(Script::new().nth(At::RcptTo, 1, Act::reply("451 4.7.1 later"))).await.unwrap();
    let mut world = world(&one, Some(HOUR));
    world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_nothing_but_duplicates_costs_no_connection() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut world = world(&one, Some(HOUR));
    world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
    world.done().await;
    assert_eq!((one.connections(), one.open_connections()), (1, 1));
    world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
    world.done().await;
    world.accept_content("alice@home.test", &["ann@one.test"], OTHER).await;
    world.done().await;
    assert_eq!((one.connections(), to(&one).len()), (1, 2), "{}", one.transcript());
}

#[tokio::test(start_paused = true)]
async fn duplicates_use_up_no_rate() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.deduplication.window = Some(HOUR);
    let limited = config.domains.get_mut(&"one.test".parse().unwrap()).unwrap();
    (limited.rate_limit, limited.rate_burst) = (Some(1), Some(2));
    let mut world = World::new(config);
    let start = world.clock.now();
    for content in [HELLO, HELLO, HELLO, OTHER] {
        world.accept_content("alice@home.test", &["ann@one.test"], content).await;
        world.done().await;
    }
    assert_eq!(to(&one).len(), 2);
    assert!(world.clock.now() < start + Duration::from_secs(30), "two tokens were enough");
}
