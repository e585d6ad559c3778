//! A new configuration applies to mail that is queued, and disturbs nothing that is under way.

use std::{fs, time::Duration};

use empath_delivery::{
    Because, Config,
    config::{DomainConfig, Source, TlsPolicy},
};
use empath_testkit::{
    peer::{Act, At, Peer, Script},
    tls::Authority,
    zone::{Zone, ZoneServer},
};

use crate::world::{World, routes, to, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Where mail for a domain goes.
fn route(config: &mut Config, domain: &str, peer: &Peer) -> DomainConfig {
    let over = Some(peer.address().to_string().parse().unwrap());
    let domain_config = DomainConfig { mx_override: over, ..DomainConfig::default() };
    config.domains.insert(domain.parse().unwrap(), domain_config.clone());
    domain_config
}

async fn peer() -> Peer {
    Peer::start(Script::new()).await.unwrap()
}

fn deferring() -> Script {
    Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_dead_host_goes_the_new_way_what_is_ready_at_once_and_what_waits_at_its_time() {
    let (mut dead, live) = (peer().await, peer().await);
    let mut config = routes(&[("one.test", &dead)]);
    config.circuit_breaker.failure_threshold = 1;
    config.circuit_breaker.timeout = 24 * HOUR;
    let mut world = World::new(config);
    dead.stop().await;
    let waits = world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    let ready = world.accept("alice@home.test", &["bob@one.test"]).await;
    assert_eq!(world.processor.why(ready).await.unwrap()[0].because, Because::BreakerOpen);
    let due = world.recipient(waits).await.next_attempt_at;
    let now = world.clock.now();
    world.reload(|config, _| drop(route(config, "one.test", &live)));
    live.wait_for_messages(1).await;
    assert!(world.clock.now() < now + SECOND, "at once");
    assert_eq!(to(&live), ["bob@one.test"]);
    assert_eq!(world.recipient(waits).await.next_attempt_at, due, "a new way is no reason to hurry");
    world.at(due.unwrap() + SECOND).await;
    world.done().await;
    assert_eq!(to(&live), ["bob@one.test", "ann@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn mail_that_waits_leaves_from_its_pool_as_it_is_now() {
    let one = peer().await;
    let source = |address: &str| Source { ipv4: Some(address.parse().unwrap()), ..Source::default() };
    let mut config = routes(&[("one.test", &one)]);
    config.source = Some("all".to_owned());
    // No machine has this address.
    config.sources.insert("all".to_owned(), vec![source("192.0.2.99")]);
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    let waiting = world.recipient(id).await;
    assert_eq!(waiting.last_reply.unwrap().enhanced.as_deref(), Some("4.3.5"));
    world.reload(|config, _| drop(config.sources.insert("all".to_owned(), vec![source("127.0.0.1")])));
    world.at(waiting.next_attempt_at.unwrap() + SECOND).await;
    world.done().await;
    assert_eq!((to(&one), one.connections()), (vec!["ann@one.test".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_keeps_the_configuration_that_it_began_with_and_the_next_has_the_new_one() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(30 * SECOND));
    let (one, two) = (Peer::start(slow).await.unwrap(), peer().await);
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["ann@one.test"]).await;
    one.wait_for_connections(1).await;
    tokio::time::sleep(10 * SECOND).await;
    world.reload(|config, _| {
        config.smtp_timeouts.data_termination = 5 * SECOND;
        config.retry.max_attempts = 1;
        route(config, "two.test", &two);
    });
    world.done().await;
    assert_eq!((to(&one), to(&two).len()), (vec!["ann@one.test".to_owned()], 0), "it had its 30 seconds");
    world.accept("alice@two.test", &["bob@one.test"]).await;
    world.done().await;
    let report = String::from_utf8(two.messages().remove(0).content).unwrap();
    assert!(report.contains("Final-Recipient: rfc822; bob@one.test"), "{report}");
    assert_eq!(one.connections(), 2, "a connection of before is not used again");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_close_when_anything_about_delivery_is_new_and_only_then() {
    let one = peer().await;
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.done().await;
    world.reload(|_, _| {});
    world.reload(|_, dsn| dsn.postmaster = Some("postmaster@home.test".parse().unwrap()));
    tokio::time::sleep(MINUTE).await;
    assert_eq!((one.open_connections(), world.processor.connections()), (1, 1));
    world.reload(|config, _| config.retry.base_delay = 2 * MINUTE);
    one.wait_until_left().await;
    until(async || world.processor.connections() == 0).await;
    assert_eq!(one.transcript().matches("C: QUIT").count(), 1);
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!(one.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_pool_and_the_bound_of_all_connections_follow() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(10 * SECOND));
    let one = Peer::start(slow).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.max_concurrent = 1;
    let mut world = World::new(config);
    for _ in 0..12 {
        world.accept("alice@home.test", &["ann@one.test"]).await;
    }
    one.wait_for_connections(1).await;
    tokio::time::sleep(25 * SECOND).await;
    assert_eq!(one.connections(), 1);
    world.reload(|config, _| {
        config.max_concurrent = 3;
        config.connection_pool.idle_timeout = 30 * SECOND;
        config.connection_pool.max_messages = 2;
    });
    world.done().await;
    assert!((5..=7).contains(&one.connections()), "two messages each: {}", one.connections());
    let done = world.clock.now();
    until(async || one.open_connections() == 0).await;
    assert!(world.clock.now() < done + 2 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn limits_of_rates_come_and_go() {
    let one = peer().await;
    let mut config = routes(&[("one.test", &one)]);
    config.rate_limits.per_domain_per_second = Some(1);
    config.domains.get_mut(&"one.test".parse().unwrap()).unwrap().rate_burst = Some(1);
    let mut world = World::new(config);
    for _ in 0..20 {
        world.accept("alice@home.test", &["ann@one.test"]).await;
    }
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert_eq!(one.messages().len(), 5);
    world.reload(|config, _| {
        config.domains.get_mut(&"one.test".parse().unwrap()).unwrap().rate_limit = Some(1);
    });
    tokio::time::sleep(5 * MINUTE).await;
    assert!((9..=10).contains(&one.messages().len()), "{}", one.messages().len());
    let now = world.clock.now();
    world.reload(|config, _| {
        config.domains.get_mut(&"one.test".parse().unwrap()).unwrap().rate_limit = None;
        config.rate_limits.per_domain_per_second = None;
    });
    one.wait_for_messages(20).await;
    assert!(world.clock.now() < now + SECOND);
}

#[tokio::test(start_paused = true)]
async fn retries_follow_the_new_schedule_from_the_next_failure_on() {
    let one = Peer::start(deferring()).await.unwrap();
    let home = peer().await;
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.retry.jitter = 0.0;
    let mut world = World::new(config);
    let start = world.clock.now();
    let id = world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    let due = world.recipient(id).await.next_attempt_at.unwrap();
    world.reload(|config, _| {
        config.retry.delays = Some("5s,10m".parse().unwrap());
        config.retry.max_attempts = 3;
    });
    assert_eq!(world.recipient(id).await.next_attempt_at, Some(due));
    until(async || one.transcript().matches("MAIL FROM").count() == 2).await;
    world.rest().await;
    let second = world.recipient(id).await.next_attempt_at.unwrap();
    assert!(second >= due + 10 * MINUTE && second < due + 11 * MINUTE, "{due} {second}");
    world.done().await;
    assert_eq!(home.messages().len(), 1, "the third attempt was the last");
    assert!(world.clock.now() < start + HOUR);
}

#[tokio::test(start_paused = true)]
async fn expiry_and_news_of_delays_follow_at_once() {
    let one = Peer::start(deferring()).await.unwrap();
    let home = peer().await;
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let id = world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    world.at(world.clock.now() + HOUR).await;
    assert_eq!(home.messages().len(), 0);
    world.reload(|_, dsn| {
        dsn.delay_after = Some(10 * MINUTE);
        dsn.reporting_mta = Some("reports.test".parse().unwrap());
    });
    let told = home.wait_for_messages(1).await;
    let told = String::from_utf8(told[0].content.clone()).unwrap();
    assert!(told.contains("delayed") && told.contains("Reporting-MTA: dns; reports.test"), "{told}");
    world.rest().await;
    world.reload(|config, _| config.retry.expire_after = 2 * HOUR);
    assert!(world.view(id).await.is_some());
    let now = world.clock.now();
    world.reload(|config, _| config.retry.expire_after = 30 * MINUTE);
    let told = home.wait_for_messages(2).await;
    assert!(world.clock.now() < now + SECOND);
    assert!(String::from_utf8(told[1].content.clone()).unwrap().contains("Status: 4.4.7"));
    world.done().await;
}

#[tokio::test(start_paused = true)]
async fn reports_can_be_turned_off_for_mail_that_is_here() {
    let one = Peer::start(deferring()).await.unwrap();
    let home = peer().await;
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    world.reload(|config, dsn| {
        dsn.enabled = false;
        config.retry.max_attempts = 2;
    });
    world.done().await;
    assert_eq!(home.messages().len(), 0);
    assert!((world.metric("empath_delivery_attempts_total{status=\"bounced\"}") - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_has_its_new_threshold_and_pause() {
    let mut dead = peer().await;
    let mut world = World::new(routes(&[("one.test", &dead)]));
    dead.stop().await;
    world.reload(|config, _| {
        config.circuit_breaker.failure_threshold = 1;
        config.circuit_breaker.timeout = HOUR;
    });
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.rest().await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    let why = world.processor.why(id).await.unwrap().remove(0);
    assert_eq!(why.because, Because::BreakerOpen);
    let now = world.clock.now();
    assert!(why.until.unwrap() > now + 50 * MINUTE);
    dead.restart().await.unwrap();
    world.reload(|config, _| config.circuit_breaker.timeout = 10 * SECOND);
    dead.wait_for_messages(1).await;
    assert!(world.clock.now() < now + 11 * SECOND);
    world.done().await;
}

#[tokio::test(start_paused = true)]
async fn policies_and_roots_of_tls_apply_to_the_next_connection() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    fs::write(&roots, Authority::new().pem()).unwrap();
    let one = Peer::start(Script::new().tls(authority.sign("one.test"))).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.tls.default_policy = TlsPolicy::Disabled;
    config.tls.ca_file = Some(roots.clone());
    let mut world = World::new(config);
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.done().await;
    assert_eq!(one.handshakes().len(), 0);
    world.reload(|config, _| config.tls.default_policy = TlsPolicy::Required);
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    let reply = world.recipient(id).await.last_reply.unwrap();
    assert_eq!(reply.enhanced.as_deref(), Some("4.7.5"), "{}", reply.text);
    // The file is another one by now, under the same name.
    fs::write(&roots, authority.pem()).unwrap();
    world.reload(|_, _| {});
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test", "bob@one.test"]);
    world.reload(|config, _| config.tls.default_policy = TlsPolicy::Opportunistic);
    world.accept("alice@home.test", &["cid@one.test"]).await;
    world.done().await;
    assert_eq!(
        one.connections(),
        4,
        "one in clear text, one that came to nothing, and one for each policy after that"
    );
}

#[tokio::test(start_paused = true)]
async fn other_name_servers_and_another_port_are_asked_for_mail_that_waits() {
    let (mut gone, live) = (peer().await, peer().await);
    let zone = "example.test. MX 10 mx.example.test.\nmx.example.test. A 127.0.0.1\n";
    let names = [ZoneServer::start(Zone::parse("")).await, ZoneServer::start(Zone::parse(zone)).await];
    let mut config = Config { mx_port: gone.address().port(), ..Config::default() };
    config.dns.servers = vec![names[1].address()];
    let mut world = World::new(config);
    gone.stop().await;
    world.accept("alice@home.test", &["ann@example.test"]).await;
    world.rest().await;
    world.reload(|config, _| config.mx_port = live.address().port());
    assert_eq!(world.processor.resolver().cache_len(), 3, "what is known stays known");
    world.done().await;
    assert_eq!(to(&live), ["ann@example.test"]);
    // By the other servers the domain does not exist.
    world.reload(|config, _| config.dns.servers = vec![names[0].address()]);
    assert_eq!(world.processor.resolver().cache_len(), 0);
    world.accept("", &["bob@example.test"]).await;
    world.done().await;
    assert!((world.metric("empath_delivery_attempts_total{status=\"bounced\"}") - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn duplicates_are_recognised_from_then_on() {
    const HELLO: &[u8] = b"Subject: hello\r\nMessage-ID: <1@home.test>\r\n\r\nbody\r\n";
    let one = peer().await;
    let mut world = World::new(routes(&[("one.test", &one)]));
    for (window, delivered) in [(None, 2), (Some(HOUR), 3), (Some(2 * HOUR), 3), (None, 5)] {
        world.reload(|config, _| config.deduplication.window = window);
        for _ in 0..2 {
            world.accept_content("alice@home.test", &["ann@one.test"], HELLO).await;
            world.done().await;
        }
        assert_eq!(to(&one).len(), delivered, "{window:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn overrides_freezes_and_holds_stay() {
    let (one, two) = (peer().await, peer().await);
    let mut world = World::new(routes(&[("*", &one)]));
    world
        .processor
        .set_override(&"over.test".parse().unwrap(), two.address().to_string().parse().unwrap())
        .unwrap();
    world.processor.freeze(&"cold.test".parse().unwrap()).await.unwrap();
    let held = world.accept("alice@home.test", &["ann@cold.test"]).await;
    world.processor.hold(&empath_delivery::Filter { id: Some(held), ..Default::default() }).await.unwrap();
    let cold = world.accept("alice@home.test", &["bob@cold.test"]).await;
    world.reload(|config, _| config.mx_port = 2525);
    world.accept("alice@home.test", &["cid@over.test"]).await;
    two.wait_for_messages(1).await;
    assert_eq!(world.processor.why(cold).await.unwrap()[0].because, Because::Frozen);
    assert_eq!(world.processor.why(held).await.unwrap()[0].because, Because::Held);
    assert_eq!(one.connections(), 0);
}
