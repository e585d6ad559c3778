use std::time::Duration;

use empath_delivery::{Because, RecipientStatus, config::CircuitBreaker};
use empath_testkit::peer::{Act, At, Peer, Script};
use jiff::Timestamp;

use crate::world::{World, routes, to, until};

async fn accept(world: &mut World, count: usize, recipient: &str) -> Vec<empath_common::MessageId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(world.accept("alice@home.test", &[recipient]).await);
    }
    ids
}

async fn why(world: &World, id: empath_common::MessageId) -> (Because, Option<Timestamp>, String) {
    let why = world.processor.why(id).await.unwrap().remove(0);
    (why.because, why.until, why.detail)
}

#[tokio::test(start_paused = true)]
async fn mail_over_the_limit_of_its_domain_waits_and_costs_nothing() {
    let (one, two) = (Peer::start(Script::new()).await.unwrap(), Peer::start(Script::new()).await.unwrap());
    let mut config = routes(&[("one.test", &one), ("two.test", &two)]);
    let limited = config.domains.get_mut(&"one.test".parse().unwrap()).unwrap();
    (limited.rate_limit, limited.rate_burst) = (Some(30), Some(2));
    let mut world = World::new(config);
    let start = world.clock.now();
    let ids = accept(&mut world, 6, "bob@one.test").await;
    accept(&mut world, 6, "bob@two.test").await;
    two.wait_for_messages(6).await;
    one.wait_for_messages(2).await;
    assert!(world.clock.now() < start + Duration::from_secs(1), "other mail goes past");
    let (because, until, detail) = why(&world, ids[5]).await;
    assert_eq!(because, Because::RateLimited, "{detail}");
    let token = until.unwrap();
    assert!((1900..=2100).contains(&token.duration_since(start).as_millis()), "{token}");
    assert_eq!(world.recipient(ids[5]).await.attempts, 0);
    // The next one goes when its token is there, and the others two seconds apart.
    for (number, id) in (1_i32..).zip(&ids[2..]) {
        world.at(start + Duration::from_secs(2) * number.unsigned_abs() - Duration::from_millis(100)).await;
        assert!(world.view(*id).await.is_some(), "{number}");
        world.at(start + Duration::from_secs(2) * number.unsigned_abs() + Duration::from_millis(500)).await;
        assert!(world.view(*id).await.is_none(), "{number}");
    }
    world.done().await;
    assert_eq!(one.messages().len(), 6);
    assert!(one.connections() <= 2, "the connections were idle, not gone");
    assert!((world.metric("empath_delivery_rate_limited_total{domain=\"one.test\"}") - 4.0).abs() < 0.1);
    assert!(world.metric("empath_delivery_attempts_total{status=\"deferred\"}").abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn all_mail_together_goes_no_faster_than_configured() {
    let (one, two) = (Peer::start(Script::new()).await.unwrap(), Peer::start(Script::new()).await.unwrap());
    let mut config = routes(&[("one.test", &one), ("two.test", &two)]);
    config.rate_limits.global_per_second = Some(5);
    let mut world = World::new(config);
    let start = world.clock.now();
    accept(&mut world, 20, "bob@one.test").await;
    let ids = accept(&mut world, 20, "bob@two.test").await;
    until(async || why(&world, ids[19]).await.0 == Because::RateLimited).await;
    until(async || one.messages().len() + two.messages().len() >= 25).await;
    let (first, second) = (one.messages().len(), two.messages().len());
    assert!(second >= 6, "they take turns: {first} and {second}");
    world.done().await;
    let took = world.clock.now().duration_since(start).as_secs();
    // 10 at once and 30 at 5 a second.
    assert!((6..=8).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_is_left_alone_and_found_again() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.circuit_breaker = CircuitBreaker { timeout: Duration::from_secs(30), ..CircuitBreaker::default() };
    let mut world = World::new(config);
    let state = "empath_delivery_circuit_breaker_state{domain=\"one.test\"}";
    one.stop().await;
    let start = world.clock.now();
    let ids = accept(&mut world, 20, "bob@one.test").await;
    until(async || why(&world, ids[19]).await.0 == Because::BreakerOpen).await;
    assert!((world.metric(state) - 1.0).abs() < 0.1);
    let tried = world.metric("empath_delivery_attempts_total{status=\"deferred\"}");
    assert!((5.0..=6.0).contains(&tried), "{tried}");
    let (_, until_then, detail) = why(&world, ids[19]).await;
    assert!(until_then.unwrap() <= start + Duration::from_secs(31));
    assert!(detail.contains(&format!("smtp:{}", one.address())), "{detail}");
    // Of the others no attempt was counted.
    let last = world.recipient(ids[19]).await;
    assert_eq!((last.status, last.attempts), (RecipientStatus::Pending, 0));
    assert_eq!(why(&world, ids[0]).await.0, Because::Deferred);

    one.restart().await.unwrap();
    one.wait_for_messages(14).await;
    assert!(world.clock.now() <= start + Duration::from_secs(32));
    assert!(world.metric(state).abs() < 0.1);
    world.done().await;
    assert_eq!(one.messages().len(), 20);
    for counted in ["trips", "recoveries"] {
        let metric = format!("empath_delivery_circuit_breaker_{counted}_total{{domain=\"one.test\"}}");
        assert!((world.metric(&metric) - 1.0).abs() < 0.1, "{counted}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_about_recipients_and_messages_opens_no_breaker() {
    for act in ["550 5.1.1 unknown", "451 4.3.0 later"] {
        let script = Script::new().on(At::RcptTo, Act::reply(act));
        let one = Peer::start(script).await.unwrap();
        let home = Peer::start(Script::new()).await.unwrap();
        let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
        config.retry.max_attempts = 1;
        let mut world = World::new(config);
        accept(&mut world, 30, "bob@one.test").await;
        world.done().await;
        assert_eq!(home.messages().len(), 30, "{act}");
        assert!(!world.registry.encode().contains("breaker_state{"), "{act}");
    }
}

#[tokio::test(start_paused = true)]
async fn mail_that_waits_for_a_breaker_expires_on_time() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.circuit_breaker.timeout = Duration::from_hours(1000);
    config.retry.expire_after = Duration::from_hours(3);
    let mut world = World::new(config);
    one.stop().await;
    let start = world.clock.now();
    accept(&mut world, 20, "bob@one.test").await;
    world.done().await;
    assert_eq!(home.messages().len(), 20);
    assert!(world.clock.now() <= start + Duration::from_hours(3) + Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_five_connections_gets_all_its_mail_over_five() {
    let script = Script::new().at_most(5).on(At::EndOfData, Act::Delay(Duration::from_millis(200)));
    let one = Peer::start(script).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.connection_pool.max_per_server = 20;
    let mut world = World::new(config);
    for _ in 0..10 {
        accept(&mut world, 200, "bob@one.test").await;
        until(async || world.processor.queue_len() == 0).await;
        world.forget();
    }
    world.done().await;
    assert_eq!(one.messages().len(), 2000);
    let refused = one.transcript().matches("S: 421").count();
    assert!((1..100).contains(&refused), "{refused}");
    let deferred = world.metric("empath_delivery_attempts_total{status=\"deferred\"}");
    assert!(deferred.abs() < 0.1, "{deferred}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_turns_everybody_away_is_not_asked_again_and_again() {
    let one = Peer::start(Script::new().at_most(0)).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let ids = accept(&mut world, 20, "bob@one.test").await;
    until(async || why(&world, ids[19]).await.0 == Because::BreakerOpen).await;
    assert!(one.connections() <= 8, "{}", one.connections());
    assert_eq!(to(&one), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn why_tells_of_attempts_and_of_busy_connections() {
    let slow = Script::new().on(At::EndOfData, Act::Delay(Duration::from_mins(1)));
    let one = Peer::start(slow).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.connection_pool.max_per_server = 1;
    let mut world = World::new(config);
    let ids = accept(&mut world, 3, "bob@one.test").await;
    one.wait_for_connections(1).await;
    assert_eq!(why(&world, ids[0]).await.0, Because::InProgress);
    let (because, until, detail) = why(&world, ids[2]).await;
    assert_eq!((because, until), (Because::LaneBusy, None), "{detail}");
    assert!(detail.starts_with("1 connection to smtp:"), "{detail}");
    assert_eq!(world.processor.why(empath_common::MessageId::from_bytes([99; 16])).await, None);
}
