use std::{net::SocketAddr, time::Duration};

use empath_delivery::{Because, Config};
use empath_testkit::{
    peer::{Peer, Script},
    zone::{Zone, ZoneServer},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::world::{World, routes, to, until};

/// A host to which packets are dropped: connections to it hang.
struct Dead {
    listener: TcpListener,
    _filling: Vec<TcpStream>,
}

impl Dead {
    /// Nobody accepts, and the queue of those who would be is full.
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut filling = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            filling.push(stream);
        }
        Self { listener, _filling: filling }
    }

    /// From now on it accepts, and then does what the peer does.
    async fn revive(self, peer: &Peer) {
        while let Ok((stream, _)) = self.listener.accept().await {
            // Replies that waited for each other would take real time.
            stream.set_nodelay(true).unwrap();
            tokio::spawn(peer.serve(stream));
        }
    }
}

/// A domain of which the first MX is dead and the second is not.
async fn one_of_two(preferences: (u16, u16)) -> (Dead, Peer, ZoneServer, Config) {
    let live = Peer::start(Script::new()).await.unwrap();
    let port = live.address().port();
    let dead = Dead::at(([127, 0, 0, 2], port).into()).await;
    let zone = format!(
        "example.test. MX {} dead.example.test.\nexample.test. MX {} live.example.test.\n\
         dead.example.test. A 127.0.0.2\nlive.example.test. A 127.0.0.1\n",
        preferences.0, preferences.1
    );
    let names = ZoneServer::start(Zone::parse(&zone)).await;
    let mut config = Config { mx_port: port, ..routes(&[]) };
    config.dns.servers = vec![names.address()];
    (dead, live, names, config)
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_of_two_costs_nothing_after_the_first_try() {
    for preferences in [(10, 20), (10, 10)] {
        let (_dead, live, _names, config) = one_of_two(preferences).await;
        let mut world = World::new(config);
        let start = world.clock.now();
        for _ in 0..50 {
            world.accept("alice@home.test", &["bob@example.test"]).await;
        }
        world.done().await;
        let took = world.clock.now().duration_since(start).as_secs();
        assert!(took <= 5, "the first tries may wait a moment for it: {took} s");
        assert_eq!(live.messages().len(), 50);
        assert!(world.metric("empath_delivery_attempts_total{status=\"deferred\"}").abs() < 0.1);
        // From now on nobody waits, not even when all connections have gone and while it is probed.
        for _ in 0..20 {
            until(async || world.processor.connections() == 0).await;
            let start = world.clock.now();
            world.accept("alice@home.test", &["bob@example.test"]).await;
            until(async || world.processor.queue_len() == 0).await;
            let took = world.clock.now().duration_since(start).as_secs();
            assert!(took <= 1, "{took} s");
        }
        assert!(!world.registry.encode().contains("breaker_state{"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_came_back_is_found_in_the_background_and_used_again() {
    let (dead, _live, _names, mut config) = one_of_two((10, 20)).await;
    config.connection_pool.idle_timeout = Duration::from_secs(1);
    let mut world = World::new(config);
    world.accept("alice@home.test", &["ann@example.test"]).await;
    world.done().await;
    let back = Peer::start(Script::new()).await.unwrap();
    let reviving = dead.revive(&back);
    tokio::pin!(reviving);
    tokio::select! {
        () = &mut reviving => {}
        () = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(30)).await;
                world.accept("alice@home.test", &["bob@example.test"]).await;
                world.done().await;
                if !back.messages().is_empty() {
                    return;
                }
            }
        } => {}
    }
    assert_eq!(to(&back), ["bob@example.test"], "{}", back.transcript());
}

#[tokio::test(start_paused = true)]
async fn when_all_hosts_are_dead_each_has_its_time() {
    let (_dead, mut live, _names, config) = one_of_two((10, 20)).await;
    live.stop().await;
    let mut world = World::new(config);
    let start = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@example.test"]).await;
    world.rest().await;
    // A hasty try at the first, the second, and the first in peace.
    let took = world.clock.now().duration_since(start).as_secs();
    assert!((30..=35).contains(&took), "{took} s");
    let recipient = world.recipient(id).await;
    assert_eq!(recipient.attempts, 1);
    assert!(recipient.host.unwrap().starts_with("dead.example.test["));
    live.restart().await.unwrap();
    world.done().await;
    assert_eq!(live.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn why_tells_of_name_servers() {
    let names = ZoneServer::start(Zone::parse("slow.test. TIMEOUT\n")).await;
    let mut config = routes(&[]);
    config.dns.servers = vec![names.address()];
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["bob@slow.test"]).await;
    until(async || names.queries("slow.test.", "MX") > 0).await;
    let why = world.processor.why(id).await.unwrap().remove(0);
    assert_eq!(why.because, Because::Resolving, "{}", why.detail);
}
