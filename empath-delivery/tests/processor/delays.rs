//! Senders are told once that a message takes long (RFC 3461 §4.1).

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use empath_common::{Envelope, Notify, RecipientNotification};
use empath_delivery::DsnConfig;
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

fn asks(envelope: &mut Envelope, recipient: usize, notify: &str) {
    let notify = Notify::parse(notify.as_bytes());
    envelope.ask_about(recipient, RecipientNotification { notify, orcpt: None });
}

/// What the sender at `home` was told.
fn reports(home: &Peer) -> Vec<String> {
    home.messages().into_iter().map(|message| String::from_utf8(message.content).unwrap()).collect()
}

/// Mail for `one.test` waits for a better day, that for `home.test` arrives.
async fn world() -> (World, Peer, Peer) {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let world = World::new(routes(&[("one.test", &one), ("two.test", &one), ("home.test", &home)]));
    (world, one, home)
}

#[tokio::test(start_paused = true)]
async fn the_sender_is_told_of_a_delay_on_time_once_and_of_all_recipients_at_once() {
    let (mut world, one, home) = world().await;
    let received = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@two.test"]).await;
    world.at(received + 4 * HOUR - SECOND).await;
    assert_eq!(reports(&home), [""; 0]);
    let due = world.recipient(id).await.next_attempt_at;
    let attempts = one.transcript().matches("MAIL FROM").count();
    world.at(received + 4 * HOUR + SECOND).await;
    let [report] = reports(&home).try_into().unwrap();
    for line in [
        "Subject: Your mail is delayed\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Final-Recipient: rfc822; bob@one.test\r\nAction: delayed\r\nStatus: 4.7.1\r\n",
        "Final-Recipient: rfc822; carol@two.test\r\nAction: delayed\r\nStatus: 4.7.1\r\n",
        "Diagnostic-Code: smtp; 451 4.7.1 later\r\n",
        "Will-Retry-Until: Tue, 06 Jan 2026 00:00:00 +0000\r\n",
        "Content-Type: text/rfc822-headers\r\n",
    ] {
        assert!(report.contains(line), "{line} in {report}");
    }
    assert!(!report.contains("will not be tried again"), "{report}");
    assert_eq!(world.recipient(id).await.next_attempt_at, due, "it is not tried later for that");
    assert_eq!(one.transcript().matches("MAIL FROM").count(), attempts, "nor sooner");
    world.at(received + 24 * HOUR).await;
    world.restart().await;
    world.at(received + 119 * HOUR).await;
    assert_eq!(reports(&home).len(), 1, "neither time nor a restart repeats it");
    world.done().await;
    let reports = reports(&home);
    assert!(reports.len() <= 3 && reports[1..].iter().all(|report| report.contains("Status: 4.4.7")));
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_began_before_a_restart_is_not_forgotten() {
    let (mut world, _one, home) = world().await;
    let received = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    world.processor.shutdown(Duration::ZERO).await;
    world.at(received + 6 * HOUR).await;
    world.restart().await;
    world.at(received + 6 * HOUR + SECOND).await;
    assert_eq!(reports(&home).len(), 1);
    assert!(world.stored(id).await[0].told_of_delay);
    assert_eq!(world.recipient(id).await.attempts, 2, "what was due was tried as well");
    for _ in 0..3 {
        world.restart().await;
        world.at(world.clock.now() + HOUR).await;
    }
    assert_eq!(reports(&home).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_told_to_those_alone_who_want_to_hear_of_it() {
    let (mut world, _one, home) = world().await;
    let recipients = ["never@one.test", "failure@one.test", "delay@one.test", "unasked@one.test"];
    let ask = |envelope: &mut Envelope| {
        asks(envelope, 0, "NEVER");
        asks(envelope, 1, "SUCCESS,FAILURE");
        asks(envelope, 2, "DELAY");
    };
    world.accept_asking("alice@home.test", &recipients, ask).await;
    world.accept_asking("", &recipients, ask).await;
    world.accept_asking("alice@home.test", &recipients[..2], ask).await;
    world.at(world.clock.now() + 5 * HOUR).await;
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("; delay@one.test\r\nAction: delayed"), "{report}");
    assert!(report.contains("; unasked@one.test\r\nAction: delayed"), "{report}");
    assert!(!report.contains("never@") && !report.contains("failure@"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn of_what_is_in_flight_when_it_is_late_the_sender_hears_when_it_has_failed() {
    let slow = Script::new()
        .nth(At::RcptTo, 1, Act::reply("451 4.7.1 later"))
        .nth(At::RcptTo, 2, Act::Delay(4 * Duration::from_mins(1)))
        .on(At::EndOfData, Act::reply("451 4.7.2 still not"));
    let one = Peer::start(slow).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let late = DsnConfig { delay_after: Some(Duration::from_mins(2)), ..DsnConfig::default() };
    let mut world = World::with(routes(&[("one.test", &one), ("home.test", &home)]), late, Vec::new());
    let received = world.clock.now();
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.at(received + Duration::from_mins(4)).await;
    assert_eq!(reports(&home), [""; 0], "it may arrive yet");
    world.at(received + Duration::from_mins(6)).await;
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("Action: delayed\r\nStatus: 4.7.2\r\n"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_tried_is_tried_before_anybody_is_told() {
    let one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    world.processor.shutdown(Duration::ZERO).await;
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.at(world.clock.now() + 6 * HOUR).await;
    world.restart().await;
    world.done().await;
    assert_eq!((one.messages().len(), reports(&home).len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_connection_is_late_too() {
    // Every connection hangs as long as it may.
    let one = Peer::start(Script::new().on(At::Greeting, Act::Stall)).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.smtp_timeouts.greeting = 6 * HOUR;
    config.connection_pool.max_per_server = 1;
    let mut world = World::new(config);
    world.accept("", &["first@one.test"]).await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.at(world.clock.now() + 4 * HOUR + SECOND).await;
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("Action: delayed\r\nStatus: 4.0.0\r\n"), "{report}");
    assert!(report.contains("no attempt could be made"), "{report}");
    assert!(!report.contains("Last-Attempt-Date"), "{report}");
    assert_eq!(world.recipient(id).await.attempts, 0);
    world.at(world.clock.now() + 2 * HOUR).await;
    assert_eq!(one.connections(), 2, "its turn comes all the same");
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_a_full_spool_keeps_from_being_told_is_told_afterwards() {
    let (mut world, _one, home) = world().await;
    let received = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.at(received + 4 * HOUR - SECOND).await;
    let due = world.recipient(id).await.next_attempt_at;
    world.spool.hooks.full.store(true, Relaxed);
    world.at(received + 4 * HOUR + Duration::from_mins(10)).await;
    assert_eq!(world.recipient(id).await.next_attempt_at, due);
    world.spool.hooks.full.store(false, Relaxed);
    world.at(received + 4 * HOUR + Duration::from_mins(12)).await;
    assert_eq!(reports(&home).len(), 1);
    world.at(received + 24 * HOUR).await;
    assert_eq!(reports(&home).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_delays_where_that_is_off() {
    for dsn in [
        DsnConfig { delay_after: None, ..DsnConfig::default() },
        DsnConfig { enabled: false, ..DsnConfig::default() },
        DsnConfig { delay_after: Some(120 * HOUR), ..DsnConfig::default() },
    ] {
        let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))).await.unwrap();
        let home = Peer::start(Script::new()).await.unwrap();
        let mut world = World::with(routes(&[("one.test", &one), ("home.test", &home)]), dsn, Vec::new());
        let received = world.clock.now();
        world.accept("alice@home.test", &["bob@one.test"]).await;
        world.at(received + 119 * HOUR).await;
        assert_eq!(reports(&home), [""; 0]);
        world.done().await;
        assert!(!reports(&home).concat().contains("delayed"));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_the_delay_of_what_was_deleted_and_it_stays_deleted() {
    let stalls = Peer::start(Script::new().on(At::Greeting, Act::Stall)).await.unwrap();
    let mut one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("stall.test", &stalls), ("home.test", &home)]);
    config.smtp_timeouts.greeting = 100 * HOUR;
    let mut world = World::new(config);
    let received = world.clock.now();
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@stall.test"]).await;
    world.at(received + 4 * HOUR - SECOND).await;
    *world.spool.hooks.slow.lock().unwrap() = Some(10 * SECOND);
    // The news is on its way...
    world.at(received + 4 * HOUR + SECOND).await;
    // ...when an operator deletes the message.
    let this = empath_delivery::Filter { id: Some(id), ..Default::default() };
    assert_eq!(world.processor.delete(&this).await.unwrap().changed, 1);
    *world.spool.hooks.slow.lock().unwrap() = None;
    world.at(received + 4 * HOUR + Duration::from_mins(1)).await;
    one.restart_with(Script::new()).await.unwrap();
    world.processor.shutdown(SECOND).await;
    world.restart().await;
    world.at(world.clock.now() + 5 * HOUR).await;
    assert_eq!((one.messages().len(), reports(&home).len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn mail_can_go_while_many_senders_are_told_that_theirs_is_late() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.circuit_breaker.timeout = 3 * HOUR;
    let mut world = World::new(config);
    let received = world.clock.now();
    one.stop().await;
    for _ in 0..200 {
        world.accept("alice@home.test", &["bob@one.test"]).await;
    }
    world.at(received + 4 * HOUR - SECOND).await;
    one.restart().await.unwrap();
    // A disk that is slow: a second for each envelope.
    *world.spool.hooks.slow.lock().unwrap() = Some(SECOND);
    world.at(received + 4 * HOUR + SECOND).await;
    world.processor.retry(&empath_delivery::Filter::default()).await;
    let begun = tokio::time::Instant::now();
    crate::world::until(async || one.messages().len() >= 150).await;

    assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", begun.elapsed());
}
