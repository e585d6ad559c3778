//! Domains whose name servers, or those of their hosts, don't answer.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use empath_common::MessageId;
use empath_delivery::{Because, Config};
use empath_spool::{Attempt, RecipientState};
use empath_testkit::peer::{Act, At, Peer, Script};
use tokio::time::{Instant, sleep};

use crate::{
    names::Names,
    world::{Pipes, World, to},
};

const SILENT: usize = 200;
const PLACES: usize = 8;

/// What is not known of a domain.
const UNKNOWN: [&str; 2] = [
    "silent#.test. TIMEOUT",
    "silent#.test. MX 10 mx.silent#.test.\nsilent#.test. MX 10 mx2.silent#.test.\nmx.silent#.test. TIMEOUT\nmx2.silent#.test. TIMEOUT",
];

/// Few places, a host in the domains `well0.test` to `well3.test`, and domains of which this is known.
async fn world(config: Config, unknown: &str) -> (World, Arc<Peer>) {
    let peer = Arc::new(Peer::start(Script::new()).await.unwrap());
    let mut zone = String::from("mx.test. A 192.0.2.1\n");
    for number in 0..4 {
        writeln!(zone, "well{number}.test. MX 10 mx.test.").unwrap();
    }
    for number in 0..SILENT {
        writeln!(zone, "{}", unknown.replace('#', &number.to_string())).unwrap();
    }
    let config = Config { max_concurrent: PLACES, ..config };
    let pipes = Pipes::at(&[("192.0.2.1:25", &peer)]);
    (World::over_names(pipes, config, &Names::new(&zone)), peer)
}

/// A message for each silent domain.
async fn accept_silent(world: &mut World) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for number in 0..SILENT {
        ids.push(world.accept("alice@home.test", &[&format!("bob@silent{number}.test")]).await);
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn they_hold_up_nobody_else_and_have_the_time_that_is_theirs() {
    for (mx_rollup, unknown) in
        [true, false].into_iter().flat_map(|rollup| UNKNOWN.map(|unknown| (rollup, unknown)))
    {
        let mut config = Config::default();
        config.connection_pool.mx_rollup = mx_rollup;
        let (mut world, peer) = world(config, unknown).await;
        let silent = accept_silent(&mut world).await;
        for number in 0..4 {
            let start = Instant::now();
            world.accept("alice@home.test", &[&format!("ann@well{number}.test")]).await;
            peer.wait_for_messages(number + 1).await;
            let took = start.elapsed();
            assert!(took < Duration::from_secs(1), "roll-up {mx_rollup}: {took:?}");
            assert!(world.processor.connections() <= PLACES);
        }
        for id in &silent {
            let why = world.processor.why(*id).await.unwrap().remove(0);
            assert_eq!(why.because, Because::Resolving, "{}", why.detail);
        }
        let start = Instant::now();
        world.rest().await;
        let took = start.elapsed().as_secs();
        assert!((8..=12).contains(&took), "roll-up {mx_rollup}: {took} s");
        for id in silent {
            let recipient = world.recipient(id).await;
            assert_eq!((recipient.attempts, world.stored(id).await[0].attempts), (1, 1));
            assert_eq!(recipient.last_reply.unwrap().enhanced.as_deref(), Some("4.4.3"));
        }
        assert_eq!(peer.messages().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_them_when_the_processor_stops() {
    for unknown in UNKNOWN {
        let (mut world, peer) = world(Config::default(), unknown).await;
        let silent = accept_silent(&mut world).await;
        world.accept("alice@home.test", &["ann@well0.test"]).await;
        peer.wait_for_messages(1).await;
        let start = Instant::now();
        assert!(world.processor.shutdown(Duration::from_secs(30)).await);
        assert!(start.elapsed() <= Duration::from_secs(4), "{unknown}: {:?}", start.elapsed());
        for id in silent {
            let [recipient] = world.stored(id).await.try_into().unwrap();
            let unknown = |attempt: &Attempt| attempt.detail.starts_with("no name server answered");
            assert!(recipient == RecipientState::default() || recipient.history.iter().all(unknown));
        }
        assert_eq!(to(&peer), ["ann@well0.test"]);
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_have_their_place_again_use_it() {
    let peer = Arc::new(Peer::start(Script::new().on(At::Greeting, Act::Stall)).await.unwrap());
    let mut zone = String::from("mx.test. A 192.0.2.1\n");
    for number in 0..90 {
        writeln!(zone, "slow{number}.test. MX 10 mx.test.").unwrap();
    }
    let mut config = Config { max_concurrent: 100, ..Config::default() };
    config.connection_pool.mx_rollup = false;
    let pipes = Pipes::at(&[("192.0.2.1:25", &peer)]);
    let mut world = World::over_names(pipes, config, &Names::new(&zone));
    for number in 0..90 {
        world.accept("alice@home.test", &[&format!("bob@slow{number}.test")]).await;
    }
    for number in 0..160 {
        world.accept("alice@home.test", &[&format!("bob@soon{number}.test")]).await;
    }
    sleep(Duration::from_secs(2)).await;
    // As many as those of which nothing is known may have.
    assert_eq!(peer.connections(), 75);
}
