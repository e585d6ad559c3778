//! What becomes of reports that cannot be delivered.

use empath_common::{Body, MessageNotification, Ret};
use empath_delivery::DsnConfig;
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{World, routes, to};

fn refusing() -> Script {
    Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no such user"))
}

fn with_postmaster() -> DsnConfig {
    DsnConfig { postmaster: Some("postmaster@pm.test".parse().unwrap()), ..DsnConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_delivered_goes_to_the_postmaster_once_also_after_a_restart() {
    let one = Peer::start(refusing()).await.unwrap();
    let mut home = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.2.1 not now"))).await.unwrap();
    let pm = Peer::start(Script::new()).await.unwrap();
    let routes = routes(&[("one.test", &one), ("home.test", &home), ("pm.test", &pm)]);
    let mut world = World::with(routes, with_postmaster(), Vec::new());
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    world.restart().await;
    home.restart_with(Script::new().on(At::RcptTo, Act::reply("550 5.2.1 gone"))).await.unwrap();
    world.done().await;
    assert_eq!(to(&pm), ["postmaster@pm.test"]);
    let [message] = pm.messages().try_into().unwrap();
    assert_eq!(message.from, "");
    let report = String::from_utf8(message.content).unwrap();
    for line in [
        "Subject: Undelivered report\r\n",
        "To: <postmaster@pm.test>\r\n",
        "Final-Recipient: rfc822; alice@home.test\r\nAction: failed\r\nStatus: 5.2.1\r\n",
        // The report is there, and in it the header of the message.
        "Content-Type: message/rfc822\r\n",
        "Final-Recipient: rfc822; bob@one.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Subject: hello\r\n",
    ] {
        assert!(report.contains(line), "{line} in {report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_does_not_reach_the_postmaster_either_is_dropped() {
    let one = Peer::start(refusing()).await.unwrap();
    let mut world = World::with(routes(&[("*", &one)]), with_postmaster(), Vec::new());
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    let said = one.transcript();
    assert_eq!(said.matches("MAIL FROM:<").count(), 3, "{said}");
    for recipient in ["bob@one.test", "alice@home.test", "postmaster@pm.test"] {
        assert_eq!(said.matches(&format!("RCPT TO:<{recipient}>")).count(), 1, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_reports_that_others_sent_the_postmaster_hears_nothing() {
    let one = Peer::start(refusing()).await.unwrap();
    let pm = Peer::start(Script::new()).await.unwrap();
    let routes = routes(&[("one.test", &one), ("pm.test", &pm)]);
    let mut world = World::with(routes, with_postmaster(), Vec::new());
    world.accept("", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!(pm.messages().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_expires_goes_to_the_postmaster_too() {
    let one = Peer::start(refusing()).await.unwrap();
    let mut home = Peer::start(Script::new()).await.unwrap();
    home.stop().await;
    let pm = Peer::start(Script::new()).await.unwrap();
    let routes = routes(&[("one.test", &one), ("home.test", &home), ("pm.test", &pm)]);
    let mut world = World::with(routes, with_postmaster(), Vec::new());
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!(to(&pm), ["postmaster@pm.test"]);
    let report = String::from_utf8(pm.messages().remove(0).content).unwrap();
    assert!(report.contains("Action: failed\r\nStatus: 4.4.7\r\n"), "{report}");
}

/// Alice wants all of her message back, which has octets above 127.
async fn accept_eight_bit(world: &mut World) {
    let content = "Subject: hello\r\n\r\nGr\u{fc}\u{df}e\r\n".as_bytes();
    let asked = MessageNotification { ret: Some(Ret::Full), envid: None };
    world
        .take_in("alice@home.test", &["bob@one.test"], content, |envelope| {
            envelope.ask(asked);
            envelope.body = Body::EightBitMime;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_too_much_for_a_host_is_sent_again_with_less_once_and_then_goes_to_the_postmaster() {
    let one = Peer::start(refusing()).await.unwrap();
    let not_now = Script::new().on(At::Greeting, Act::reply("451 4.2.1 not now"));
    let mut home = Peer::start(not_now).await.unwrap();
    let pm = Peer::start(Script::new().offer([])).await.unwrap();
    let routes = routes(&[("one.test", &one), ("home.test", &home), ("pm.test", &pm)]);
    let mut world = World::with(routes, with_postmaster(), Vec::new());
    accept_eight_bit(&mut world).await;
    world.rest().await;
    world.restart().await;
    home.restart_with(Script::new().on(At::EndOfData, Act::reply("554 5.6.1 not that"))).await.unwrap();
    world.done().await;
    let said = home.transcript();
    assert_eq!(said.matches("MAIL FROM:<>").count(), 2, "{said}");
    assert_eq!(said.matches(" BODY=8BITMIME").count(), 1, "{said}");
    assert_eq!(to(&pm), ["postmaster@pm.test"]);
}

#[tokio::test(start_paused = true)]
async fn every_host_takes_what_the_postmaster_is_sent() {
    let one = Peer::start(refusing()).await.unwrap();
    let home = Peer::start(refusing()).await.unwrap();
    let pm = Peer::start(Script::new().offer([])).await.unwrap();
    let routes = routes(&[("one.test", &one), ("home.test", &home), ("pm.test", &pm)]);
    let mut world = World::with(routes, with_postmaster(), Vec::new());
    accept_eight_bit(&mut world).await;
    world.done().await;
    assert_eq!(home.transcript().matches("MAIL FROM:<>").count(), 1, "the same again would not help");
    let report = String::from_utf8(pm.messages().remove(0).content).unwrap();
    for line in [
        "Final-Recipient: rfc822; alice@home.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n",
        "Final-Recipient: rfc822; bob@one.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Content-Type: text/rfc822-headers\r\n",
        "Subject: hello\r\n",
    ] {
        assert!(report.contains(line), "{line} in {report}");
    }
    assert!(report.is_ascii());
}
