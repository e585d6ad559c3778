use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use empath_delivery::{Config, DsnConfig, RecipientStatus};
use empath_spool::Spool as _;
use empath_testkit::{
    peer::{Act, At, Peer, Script},
    zone::{Zone, ZoneServer},
};

use crate::world::{World, routes, until};

fn refusing() -> Script {
    Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no such user"))
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_about_a_report_that_fails() {
    let one = Peer::start(refusing()).await.unwrap();
    let mut world = World::new(routes(&[("*", &one)]));
    // The report about this one bounces too; that is the end of it.
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.accept("", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!(one.transcript().matches("MAIL FROM:<alice@home.test>").count(), 1);
    assert_eq!(one.transcript().matches("MAIL FROM:<>").count(), 2, "{}", one.transcript());
}

#[tokio::test(start_paused = true)]
async fn without_reports_a_bounce_is_silent() {
    let one = Peer::start(refusing()).await.unwrap();
    let silent = DsnConfig { enabled: false, ..DsnConfig::default() };
    let mut world = World::with(routes(&[("*", &one)]), silent, Vec::new());
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    assert!(!one.transcript().contains("MAIL FROM:<>"));
}

#[tokio::test(start_paused = true)]
async fn a_bounce_waits_until_its_report_is_durable() {
    let one = Peer::start(refusing()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.spool.hooks.full.store(true, Relaxed);
    world.rest().await;
    let recipient = world.recipient(id).await;
    assert_eq!((recipient.status, recipient.attempts), (RecipientStatus::Deferred, 1));
    assert_eq!(world.processor.queue_len(), 1);
    world.spool.hooks.full.store(false, Relaxed);
    world.done().await;
    assert_eq!(home.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_message_that_the_spool_did_not_take_is_repeated() {
    let one = Peer::start(Script::new().on(At::EndOfData, Act::Delay(Duration::from_secs(5)))).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.spool.hooks.full.store(true, Relaxed);
    until(async || world.processor.queue_len() == 0).await;
    assert_eq!(world.spool.len(), 1);
    world.spool.hooks.full.store(false, Relaxed);
    world.done().await;
    assert_eq!(one.messages().len(), 1, "and it is not delivered again");
}

#[tokio::test(start_paused = true)]
async fn what_dns_says_decides_between_bounce_and_deferral() {
    let zone = "null.test. MX 0 .\nself.test. MX 10 mx.home.test.\nbackup.test. MX 5 local.test.\n\
                broken.test. SERVFAIL\nbare.test. TXT nothing\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("home.test", &home)]);
    config.dns.servers = vec![names.address()];
    let mut world = World::new(config);
    let table = [
        ("null.test", "5.1.10"),
        ("gone.test", "5.1.2"),
        ("self.test", "5.4.6"),
        ("backup.test", "5.4.6"),
        ("bare.test", "5.4.4"),
    ];
    for (domain, _) in table {
        world.accept("alice@home.test", &[&format!("bob@{domain}")]).await;
    }
    let broken = world.accept("alice@home.test", &["bob@broken.test"]).await;
    world.rest().await;
    let reports: Vec<_> =
        home.messages().into_iter().map(|message| String::from_utf8(message.content).unwrap()).collect();
    assert_eq!(reports.len(), table.len());
    for (domain, status) in table {
        let report = reports.iter().find(|report| report.contains(&format!("rfc822; bob@{domain}"))).unwrap();
        assert!(report.contains(&format!("Status: {status}\r\n")), "{domain}: {report}");
    }
    let recipient = world.recipient(broken).await;
    assert_eq!(recipient.last_reply.unwrap().enhanced.as_deref(), Some("4.4.3"));
    assert_eq!(recipient.next_hop.as_deref(), Some("mx:broken.test"));
}

#[tokio::test(start_paused = true)]
async fn mail_is_never_sent_to_our_own_addresses() {
    let ourselves = Peer::start(Script::new()).await.unwrap();
    let other = Peer::start(Script::new()).await.unwrap();
    let zone = "loop.test. MX 10 other-name.test.\nother-name.test. A 127.0.0.1\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let mut config = Config { mx_port: ourselves.address().port(), ..routes(&[("home.test", &other)]) };
    config.dns.servers = vec![names.address()];
    let mut world = World::with(config, DsnConfig::default(), vec![ourselves.address()]);
    world.accept("alice@home.test", &["bob@loop.test"]).await;
    world.accept("alice@home.test", &["bob@[127.0.0.1]"]).await;
    world.accept("alice@home.test", &["bob@[0.0.0.0]"]).await;
    world.done().await;
    assert_eq!(ourselves.connections(), 0);
    let mut reports: Vec<_> =
        other.messages().into_iter().map(|m| String::from_utf8(m.content).unwrap()).collect();
    reports.sort_by_key(|report| report.contains("Status: 5.4.4"));
    assert_eq!(reports.len(), 3);
    assert!(reports[0].contains("Status: 5.4.6") && reports[1].contains("Status: 5.4.6"));
    assert!(reports[2].contains("Status: 5.4.4"));
}

#[tokio::test(start_paused = true)]
async fn a_misspelt_override_bounces_nothing() {
    let names = ZoneServer::start(Zone::parse("")).await;
    let mut config = Config::default();
    config.dns.servers = vec![names.address()];
    let over = empath_delivery::config::DomainConfig {
        mx_override: Some("relya.test".parse().unwrap()),
        ..empath_delivery::config::DomainConfig::default()
    };
    config.domains.insert("*".parse().unwrap(), over);
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    assert_eq!(world.recipient(id).await.last_reply.unwrap().enhanced.as_deref(), Some("4.3.5"));
}

#[tokio::test(start_paused = true)]
async fn a_control_in_a_reply_is_escaped_once_on_its_way_to_the_sender() {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no \u{1b}[2J"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    let report = String::from_utf8(home.messages()[0].content.clone()).unwrap();
    assert!(report.contains("Diagnostic-Code: smtp; 550 5.1.1 no \\x1b[2J\r\n"), "{report}");
    assert!(report.contains("RCPT TO: 550 5.1.1 no \\x1b[2J\r\n"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_sender_of_a_message_that_is_damaged_in_the_spool_is_told() {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    until(async || one.transcript().contains("451 4.7.1")).await;
    world.spool.hooks.damaged.store(true, Relaxed);
    world.done().await;
    assert!(world.spool.hooks.set_aside.load(Relaxed), "what there is of it is kept");
    let messages = home.messages();
    assert_eq!(messages.len(), 1);
    let report = String::from_utf8_lossy(&messages[0].content);
    assert!(report.contains("Status: 5.3.0") && report.contains("damaged in the spool"), "{report}");
}
