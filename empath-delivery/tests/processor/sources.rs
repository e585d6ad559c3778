use empath_delivery::{
    Config,
    config::{DomainConfig, Source},
};
use empath_testkit::peer::{Peer, Script};

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
