use std::time::Duration;

use empath_delivery::RecipientStatus;
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes, to, until};

#[tokio::test(start_paused = true)]
async fn message_after_message_goes_over_one_connection() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.connection_pool.max_per_server = 1;
    let mut world = World::new(config);
    for _ in 0..20 {
        world.accept("alice@home.test", &["bob@one.test"]).await;
    }
    world.done().await;
    assert_eq!((one.messages().len(), one.connections()), (20, 1));
    assert!(
        (world.metric(&format!("empath_delivery_active_connections{{server=\"smtp:{}\"}}", one.address()))
            - 1.0)
            .abs()
            < 0.1
    );
    let pool = |metric| world.metric(&format!("empath_delivery_pool_{metric}"));
    let counted = ["hits_total", "misses_total", "size"].map(pool);
    assert_eq!(counted.map(|value| value.to_string()), ["19", "1", "1"]);
    // After five idle minutes it takes its leave.
    until(async || one.open_connections() == 0).await;
    assert_eq!(one.transcript().matches("C: QUIT").count(), 1);
    assert_eq!(world.processor.connections(), 0);
    assert!(pool("size").abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn one_destination_gets_no_more_connections_than_configured() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(Duration::from_secs(5)));
    let one = Peer::start(slow).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.domains.values_mut().for_each(|domain| domain.max_connections = Some(3));
    let mut world = World::new(config);
    for _ in 0..10 {
        world.accept("alice@home.test", &["bob@one.test"]).await;
    }
    until(async || {
        assert!(one.open_connections() <= 3);
        world.processor.queue_len() == 0
    })
    .await;
    assert_eq!((one.messages().len(), one.connections()), (10, 3));
}

#[tokio::test(start_paused = true)]
async fn a_connection_retires_after_its_messages() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    (config.connection_pool.max_per_server, config.connection_pool.max_messages) = (1, 2);
    let mut world = World::new(config);
    for _ in 0..6 {
        world.accept("alice@home.test", &["bob@one.test"]).await;
    }
    world.done().await;
    assert_eq!((one.messages().len(), one.connections()), (6, 3));
    one.wait_until_left().await;
    assert_eq!(one.transcript().matches("C: QUIT").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_the_server_closed_is_no_failure() {
    for act in [Act::Close, Act::raw("421 4.4.2 idle too long\r\n")] {
        let one = Peer::start(Script::new().nth(At::Idle, 1, act)).await.unwrap();
        let mut config = routes(&[("one.test", &one)]);
        config.connection_pool.max_per_server = 1;
        let mut world = World::new(config);
        world.accept("alice@home.test", &["ann@one.test"]).await;
        world.accept("alice@home.test", &["bob@one.test"]).await;
        world.accept("alice@home.test", &["cid@one.test"]).await;
        world.done().await;
        let mut all = to(&one);
        all.sort();
        assert_eq!(all, ["ann@one.test", "bob@one.test", "cid@one.test"]);
        assert!(world.metric("empath_delivery_attempts_total{status=\"deferred\"}").abs() < 0.1);
        let pool = |metric| world.metric(&format!("empath_delivery_pool_{metric}_total"));
        assert!((pool("hits") + pool("misses") - 3.0).abs() < 0.1, "one that was closed is no hit");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_is_dead_is_no_failure_and_no_hit() {
    let one = Peer::start(Script::new().nth(At::MailFrom, 2, Act::Stall)).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.done().await;
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test", "bob@one.test"]);
    assert!(world.metric("empath_delivery_attempts_total{status=\"deferred\"}").abs() < 0.1);
    let pool = |metric| world.metric(&format!("empath_delivery_pool_{metric}"));
    let counted = ["hits_total", "misses_total", "size"].map(pool);
    assert_eq!(counted.map(|value| value.to_string()), ["0", "2", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_in_the_middle_is_a_failure() {
    let one = Peer::start(Script::new().nth(At::EndOfData, 1, Act::Close)).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    let recipient = world.recipient(id).await;
    assert_eq!((recipient.status, recipient.attempts), (RecipientStatus::Deferred, 1));
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn a_tarpit_does_not_hold_other_destinations_back() {
    let tarpit = Peer::start(Script::new().on(At::Greeting, Act::Stall)).await.unwrap();
    let live = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("tar.test", &tarpit), ("live.test", &live)]));
    for _ in 0..20 {
        world.accept("alice@home.test", &["bob@tar.test"]).await;
    }
    world.accept("alice@home.test", &["bob@live.test"]).await;
    let start = world.clock.now();
    live.wait_for_messages(1).await;
    assert!(world.clock.now() < start + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_the_server_closed_is_given_up_at_once() {
    let one = Peer::start(Script::new().on(At::Idle, Act::Close)).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let start = world.clock.now();
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.done().await;
    until(async || world.processor.connections() == 0).await;
    assert!(world.clock.now() < start + Duration::from_mins(1), "long before the idle timeout");
}
