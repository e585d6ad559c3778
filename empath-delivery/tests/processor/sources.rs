use std::time::Duration;

use empath_delivery::{
    Because, Config,
    config::{DomainConfig, Source},
};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes};

fn source(address: &str) -> Source {
    Source { ipv4: Some(address.parse().unwrap()), ..Source::default() }
}

/// Both domains go to the peer, one from an address that no machine has.
fn one_of_two_sources(peer: &Peer) -> Config {
    let mut config = routes(&[("absent.test", peer), ("there.test", peer)]);
    for (name, address) in [("absent", "192.0.2.99"), ("there", "127.0.0.1")] {
        config.sources.insert(name.into(), vec![source(address)]);
        let domain: &mut DomainConfig =
            config.domains.get_mut(&format!("{name}.test").parse().unwrap()).unwrap();
        domain.source = Some(name.into());
    }
    config
}

#[tokio::test(start_paused = true)]
async fn mail_from_an_address_that_the_machine_lacks_waits_and_no_host_is_blamed() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let mut config = one_of_two_sources(&peer);
    config.circuit_breaker.failure_threshold = 1;
    let mut world = World::new(config);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(world.accept("alice@home.test", &["bob@absent.test"]).await);
    }
    world.rest().await;
    for id in waiting {
        let reply = world.recipient(id).await.last_reply.unwrap();
        assert_eq!(reply.enhanced.as_deref(), Some("4.3.5"));
        assert!(reply.text.contains("192.0.2.99"), "{}", reply.text);
    }
    let start = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@there.test"]).await;
    crate::world::until(async || world.view(id).await.is_none()).await;
    assert!(world.clock.now().duration_since(start).as_secs() <= 1);
    assert!(!world.registry.encode().contains("breaker_state{"), "a breaker has opened");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_why_mail_waits_is_told_from_which_address_it_is_to_leave() {
    let slow = Script::new().on(At::Greeting, Act::Delay(Duration::from_mins(1)));
    let peer = Peer::start(slow).await.unwrap();
    let mut config = one_of_two_sources(&peer);
    config.connection_pool.max_per_server = 1;
    let mut world = World::new(config);
    world.accept("alice@home.test", &["ann@there.test"]).await;
    peer.wait_for_connections(1).await;
    let id = world.accept("alice@home.test", &["bob@there.test"]).await;
    let why = world.processor.why(id).await.unwrap().remove(0);
    assert_eq!(why.because, Because::LaneBusy);
    let address = peer.address();
    let expected = format!("1 connection to smtp:{address} from 127.0.0.1 is busy, 1 transaction waits");
    assert_eq!(why.detail, expected);
    world.done().await;
}
