//! Senders are given routes while there is mail of theirs.

use std::time::Duration;

use empath_common::MessageId;
use empath_delivery::{Because, Config, config::SenderRoute};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes, to};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// Where mail of a sender goes.
fn route(config: &mut Config, sender: &str, peer: &Peer) {
    let mx_override = Some(peer.address().to_string().parse().unwrap());
    let route = SenderRoute { mx_override, ..SenderRoute::default() };
    config.sender_routes.insert(sender.parse().unwrap(), route);
}

async fn because(world: &World, id: MessageId) -> Because {
    world.processor.why(id).await.unwrap().remove(0).because
}

/// A message that was tried, so that its envelope is in the spool alone, and a new one, behind a host that is dead.
async fn behind_a_dead_host() -> (World, [MessageId; 2]) {
    let mut dead = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("*", &dead)]);
    config.circuit_breaker.failure_threshold = 1;
    config.circuit_breaker.timeout = DAY;
    let mut world = World::new(config);
    dead.stop().await;
    let tried = world.accept("news@home.test", &["ann@one.test"]).await;
    world.rest().await;
    world.at(world.recipient(tried).await.next_attempt_at.unwrap() + SECOND).await;
    let new = world.accept("news@home.test", &["bob@one.test"]).await;
    for id in [tried, new] {
        assert_eq!(because(&world, id).await, Because::BreakerOpen);
    }
    (world, [tried, new])
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_behind_a_dead_host_goes_the_way_that_its_sender_is_given() {
    let (mut world, _) = behind_a_dead_host().await;
    let live = Peer::start(Script::new()).await.unwrap();
    let other = world.accept("alice@home.test", &["cid@one.test"]).await;
    let now = world.clock.now();
    world.reload(|config, _| route(config, "news@home.test", &live));
    live.wait_for_messages(2).await;
    assert!(world.clock.now() < now + SECOND, "at once");
    let mut delivered = to(&live);
    delivered.sort_unstable();
    assert_eq!(delivered, ["ann@one.test", "bob@one.test"]);
    assert_eq!(because(&world, other).await, Because::BreakerOpen);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_goes_the_way_of_others_when_its_sender_has_none_of_its_own_any_more() {
    let (mut world, _) = behind_a_dead_host().await;
    let (mut dead, live) =
        (Peer::start(Script::new()).await.unwrap(), Peer::start(Script::new()).await.unwrap());
    dead.stop().await;
    // The one changes the other while it is being applied.
    world.reload(|config, _| route(config, "news@home.test", &dead));
    world.reload(|config, _| {
        config.sender_routes.clear();
        route(config, "home.test", &live);
    });
    live.wait_for_messages(2).await;
    world.done().await;
    assert_eq!(to(&live).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_host_that_says_nothing_goes_the_way_that_its_sender_is_given() {
    let tarpit = Peer::start(Script::new().on(At::Greeting, Act::Delay(DAY))).await.unwrap();
    let live = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("*", &tarpit)]);
    config.connection_pool.max_per_server = 1;
    let mut world = World::new(config);
    world.accept("alice@home.test", &["ann@one.test"]).await;
    tarpit.wait_for_connections(1).await;
    let id = world.accept("news@home.test", &["bob@one.test"]).await;
    assert_eq!(because(&world, id).await, Because::LaneBusy);
    let now = world.clock.now();
    world.reload(|config, _| route(config, "news@home.test", &live));
    live.wait_for_messages(1).await;
    assert!(world.clock.now() < now + SECOND, "at once");
    assert_eq!(to(&live), ["bob@one.test"]);
}
