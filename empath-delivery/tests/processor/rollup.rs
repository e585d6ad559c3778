use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use empath_delivery::{
    Because, Config,
    resolve::lookup::{Answer, Exchange, Found, Lookup, Mx, Question, RecordType, Records},
};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::{
    names::Names,
    world::{World, until},
};

const ZONE: &str =
    "one.test. MX 10 mx.hosts.test.\ntwo.test. MX 10 mx.hosts.test.\nmx.hosts.test. A 127.0.0.1\n";

fn world(peer: &Peer) -> World {
    let mut config = Config { mx_port: peer.address().port(), ..Config::default() };
    config.connection_pool.max_per_server = 1;
    World::with_names(config, &Names::new(ZONE))
}

#[tokio::test(start_paused = true)]
async fn mail_that_waits_for_others_with_the_same_hosts_says_so() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(Duration::from_mins(1)));
    let peer = Peer::start(slow).await.unwrap();
    let mut world = world(&peer);
    world.accept("alice@home.test", &["bob@one.test"]).await;
    until(async || peer.open_connections() == 1).await;
    let waiting = world.accept("alice@home.test", &["bob@two.test"]).await;
    let why = async || world.processor.why(waiting).await.unwrap().remove(0);
    until(async || why().await.because == Because::LaneBusy).await;
    let detail = why().await.detail;
    let expected =
        "1 connection to mx:two.test (with all domains at mx.hosts.test) is busy, 1 transaction waits";
    assert_eq!(detail, expected);
    assert_eq!(world.recipient(waiting).await.next_hop.as_deref(), Some("mx:two.test"));
    let lanes = "empath_delivery_active_connections{server=\"mx:mx.hosts.test\"}";
    assert!((world.metric(lanes) - 1.0).abs() < 0.1);
    world.done().await;
    assert_eq!((peer.messages().len(), peer.connections()), (2, 1));
    let page = world.registry.encode();
    let series = page.lines().filter(|line| line.starts_with("empath_delivery_active_connections{"));
    assert_eq!(series.count(), 1, "lanes that only look hosts up have none:\n{page}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_recorded_with_the_domain_that_it_was_for_or_with_the_hosts_of_several() {
    let peer = Peer::start(Script::new().on(At::RcptTo, Act::reply("450 4.2.1 later"))).await.unwrap();
    let mut world = world(&peer);
    let first = world.accept("alice@home.test", &["bob@one.test"]).await;
    let second = world.accept("alice@home.test", &["bob@two.test"]).await;
    world.rest().await;
    let both = world.accept("alice@home.test", &["bob@one.test", "bob@two.test"]).await;
    world.rest().await;
    for (id, next_hop) in [(first, "mx:one.test"), (second, "mx:two.test"), (both, "mx:mx.hosts.test")] {
        let stored = world.stored(id).await;
        assert!(stored.iter().all(|recipient| recipient.history[0].next_hop == next_hop), "{stored:?}");
    }
    let shown = world.view(both).await.unwrap().recipients;
    let shown: Vec<_> = shown.iter().filter_map(|recipient| recipient.next_hop.as_deref()).collect();
    assert_eq!(shown, ["mx:one.test", "mx:two.test"]);
    assert_eq!(peer.connections(), 1);
}

/// The MX host is another one each time.
#[derive(Default)]
struct Fickle(AtomicUsize);

impl Lookup for Fickle {
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let records = match question.kind {
            RecordType::Mx => {
                let number = self.0.fetch_add(1, Relaxed);
                let exchange = Exchange::Host(format!("mx{number}.hosts.test").parse().unwrap());
                Records::mx(vec![Mx { preference: 10, exchange }])
            }
            RecordType::A => Records::addresses(["127.0.0.1".parse().unwrap()]),
            RecordType::Aaaa => Records::addresses([]),
        };
        Box::pin(std::future::ready(Ok(Found { records, ttl: Duration::ZERO })))
    }
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_domain_whose_hosts_change_all_the_time_goes_and_goes_to_the_latest() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let mut config = Config { mx_port: peer.address().port(), ..Config::default() };
    config.dns.cache_size = 0;
    let names = Arc::new(Fickle::default());
    let mut world = World::looking_up(config, Arc::clone(&names) as _);
    for _ in 0..5 {
        world.accept("alice@home.test", &["bob@one.test"]).await;
    }
    world.done().await;
    assert_eq!(peer.messages().len(), 5);
    assert_eq!(peer.connections(), 5, "none was for a domain that has the same hosts still");
    assert!(names.0.load(Relaxed) <= 5 * 8, "{names:?} lookups", names = names.0);
}
