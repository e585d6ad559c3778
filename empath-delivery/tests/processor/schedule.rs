//! Retries over a week, to the second.

use std::time::Duration;

use empath_common::MessageId;
use empath_delivery::config::Retry;
use empath_testkit::peer::{Act, At, Peer, Script};
use jiff::Timestamp;

use crate::world::{World, routes};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const WEEK: Duration = Duration::from_hours(7 * 24);

/// A message for a host that is never ready.
async fn world(retry: Retry) -> (World, Peer, MessageId, Timestamp) {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))).await.unwrap();
    let mut config = routes(&[("one.test", &one)]);
    config.retry = retry;
    let mut world = World::new(config);
    let received = world.clock.now();
    let id = world.accept("", &["bob@one.test"]).await;
    (world, one, id, received)
}

/// Follows a message over a week: each attempt comes after the delay that is expected after the one before.
async fn follow(retry: Retry, delays: impl Iterator<Item = Duration>) -> usize {
    let (world, one, id, received) = world(retry).await;
    let (mut due, mut attempts) = (received, 1);
    world.at(received + SECOND).await;
    for delay in delays {
        due += delay;
        if due >= received + WEEK {
            break;
        }
        world.at(due - SECOND).await;
        assert_eq!(world.recipient(id).await.attempts, attempts, "not before {due}");
        world.at(due + SECOND).await;
        attempts += 1;
        let stored = world.stored(id).await.remove(0);
        assert_eq!(stored.attempts, attempts, "at {due}");
        let at = stored.history.last().unwrap().at;
        assert!(at >= due && at < due + SECOND, "{at} {due}");
    }
    world.at(received + WEEK - SECOND).await;
    assert_eq!(world.recipient(id).await.attempts, attempts);
    world.at(received + WEEK + SECOND).await;
    assert!(world.view(id).await.is_none(), "the week is over");
    one.transcript().matches("RCPT TO").count()
}

#[tokio::test(start_paused = true)]
async fn a_week_of_growing_delays_is_kept_to_the_second() {
    let retry = Retry { jitter: 0.0, expire_after: WEEK, ..Retry::default() };
    let doubling = (0..).map(|n| Duration::from_mins(1 << n.min(11)).min(24 * HOUR));
    // 1, 2, … 1024 minutes, and then a day each.
    assert_eq!(follow(retry, doubling).await, 17);
}

#[tokio::test(start_paused = true)]
async fn a_week_by_an_explicit_list_is_kept_to_the_second() {
    let delays = Some("1m,5m*2,1h*3".parse().unwrap());
    let retry = Retry { delays, jitter: 0.5, expire_after: WEEK, max_attempts: 1000, ..Retry::default() };
    let minutes = [1, 5, 5].into_iter().chain(std::iter::repeat(60));
    // The last hour repeats: after the first 11 minutes, every hour of the week.
    assert_eq!(follow(retry, minutes.map(Duration::from_mins)).await, 4 + 167);
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_a_connection_expires_on_time() {
    let one = Peer::start(Script::new().on(At::Greeting, Act::Stall)).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.smtp_timeouts.greeting = 9 * HOUR;
    config.connection_pool.max_per_server = 1;
    config.retry.expire_after = 2 * HOUR;
    let mut world = World::new(config);
    let received = world.clock.now();
    world.accept("", &["first@one.test"]).await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.at(received + 2 * HOUR - SECOND).await;
    assert_eq!(world.recipient(id).await.attempts, 0);
    world.at(received + 2 * HOUR + SECOND).await;
    assert!(world.view(id).await.is_none());
    let [report] = home.messages().try_into().unwrap();
    let report = String::from_utf8(report.content).unwrap();
    assert!(report.contains("Action: failed\r\nStatus: 4.4.7\r\n"), "{report}");
    assert!(report.contains("no attempt could be made"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn what_a_restart_finds_untried_and_too_old_is_tried_once_and_then_expires() {
    let (mut world, one, _, received) = world(Retry::default()).await;
    world.processor.shutdown(Duration::ZERO).await;
    let id = world.accept("", &["carol@one.test"]).await;
    world.at(received + 2 * WEEK).await;
    world.restart().await;
    world.done().await;
    assert!(world.view(id).await.is_none());
    assert_eq!(one.transcript().matches("RCPT TO:<carol@one.test>").count(), 1);
}
