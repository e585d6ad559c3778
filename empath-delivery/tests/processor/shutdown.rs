//! Transactions in flight when the processor stops.

use std::time::Duration;

use empath_delivery::{
    RecipientStatus,
    config::{DomainConfig, Smarthost},
};
use empath_spool::{Ended, RecipientState, Spool as _, Status};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes, to, until};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_transaction_in_flight_is_finished_before_the_processor_stops() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(Duration::from_secs(10)));
    let one = Peer::start(slow).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    one.wait_for_connections(1).await;
    assert!(world.processor.shutdown(Duration::from_secs(30)).await);
    assert_eq!(to(&one), ["bob@one.test"]);
    assert!(world.spool.is_empty());
    assert!(one.transcript().contains("QUIT"));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_does_not_finish_is_given_up_and_tried_again_after_the_restart() {
    let mut one = Peer::start(Script::new().on(At::Data, Act::Stall)).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    one.wait_for_connections(1).await;
    assert!(!world.processor.shutdown(Duration::from_secs(30)).await);
    assert_eq!(world.stored(id).await[0].status, Status::Pending);
    one.restart_with(Script::new()).await.unwrap();
    world.restart().await;
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_before_its_first_result_is_in_the_spool_as_it_was() {
    let script = Script::new()
        .nth(At::RcptTo, 1, Act::reply("451 4.7.1 later"))
        .on(At::EndOfData, Act::Delay(Duration::from_mins(5)));
    let one = Peer::start(script).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    let fresh = world.accept("alice@home.test", &["carol@one.test"]).await;
    let before = [world.stored(id).await, world.stored(fresh).await];
    until(async || world.recipient(id).await.status == RecipientStatus::InProgress).await;
    until(async || world.recipient(fresh).await.status == RecipientStatus::InProgress).await;
    let begun = tokio::time::Instant::now();
    assert!(!world.processor.shutdown(PATIENCE).await);
    assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
    assert_eq!([world.stored(id).await, world.stored(fresh).await], before);
    assert_eq!(before[1], [RecipientState::default()]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_not_let_us_in_yet_is_not_waited_for_long_and_no_attempt_counts() {
    // The first one fails, so that the attempt is at its second host.
    let away = Peer::start(Script::new().on(At::Greeting, Act::reply("421 4.3.2 later"))).await.unwrap();
    for at in [At::Greeting, At::Ehlo] {
        let mut silent = Peer::start(Script::new().on(at, Act::Stall)).await.unwrap();
        let mut config = routes(&[]);
        let hosts = [&away, &silent].map(|peer| peer.address().to_string().parse().unwrap());
        let smarthost = Smarthost { hosts: hosts.into(), auth: None };
        let domain = DomainConfig { smarthost: Some(smarthost), ..DomainConfig::default() };
        config.domains.insert("*".parse().unwrap(), domain);
        let mut world = World::new(config);
        let id = world.accept("alice@home.test", &["ann@one.test", "bob@one.test"]).await;
        silent.wait_for_connections(1).await;
        let begun = tokio::time::Instant::now();
        assert!(world.processor.shutdown(PATIENCE).await);
        assert_eq!(begun.elapsed().as_secs(), 3);
        assert_eq!(world.stored(id).await, [RecipientState::default(), RecipientState::default()]);
        silent.restart_with(Script::new()).await.unwrap();
        world.restart().await;
        world.done().await;
        assert_eq!(to(&silent), ["ann@one.test", "bob@one.test"]);
    }
}

#[tokio::test(start_paused = true)]
async fn results_that_are_known_when_the_rest_is_given_up_are_not_repeated_after_the_restart() {
    // The second recipient has to wait for another transaction, and that hangs.
    let script = Script::new().nth(At::RcptTo, 2, Act::reply("452 4.5.3 too many recipients")).nth(
        At::MailFrom,
        2,
        Act::Stall,
    );
    let mut one = Peer::start(script).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["ann@one.test", "bob@one.test"]).await;
    one.wait_for_messages(1).await;
    assert!(!world.processor.shutdown(PATIENCE).await);
    let stored = world.stored(id).await;
    assert_eq!((stored[0].status, stored[0].attempts), (Status::Ended(Ended::Delivered), 1));
    assert_eq!(stored[1], RecipientState::default(), "as if it had not begun");
    assert_eq!(to(&one), ["ann@one.test"]);
    one.restart_with(Script::new()).await.unwrap();
    world.restart().await;
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test", "bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_while_the_processor_waits_for_what_is_in_flight() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(Duration::from_secs(20)));
    let one = Peer::start(slow).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.connection_pool.max_per_server = 1;
    let mut world = World::new(config);
    world.accept("alice@home.test", &["ann@one.test"]).await;
    let waiting = world.accept("alice@home.test", &["bob@one.test"]).await;
    one.wait_for_connections(1).await;
    assert!(world.processor.shutdown(PATIENCE).await);
    assert_eq!(to(&one), ["ann@one.test"]);
    assert_eq!(world.spool.ids(), [waiting]);
    assert_eq!(world.stored(waiting).await, [RecipientState::default()]);
}
