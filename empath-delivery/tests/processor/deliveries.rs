use empath_delivery::{Config, DsnConfig, config::DomainConfig};
use empath_testkit::{
    peer::{Act, At, Peer, Script},
    zone::{Zone, ZoneServer},
};

use crate::world::{CONTENT, World, routes, to};

#[tokio::test(start_paused = true)]
async fn one_refused_recipient_of_three_in_two_domains_makes_two_deliveries_and_one_report() {
    let refusing =
        Script::new().on(At::Recipient("bob@one.test".into()), Act::reply("550 5.1.1 no such user"));
    let one = Peer::start(refusing).await.unwrap();
    let two = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("two.test", &two), ("home.test", &home)]));
    world.accept("alice@home.test", &["ann@one.test", "bob@one.test", "cid@two.test"]).await;
    world.done().await;

    assert_eq!((to(&one), to(&two)), (vec!["ann@one.test".to_owned()], vec!["cid@two.test".to_owned()]));
    assert_eq!(one.messages()[0].content, CONTENT);
    assert_eq!(one.connections(), 1, "both recipients travel together");
    let reports = home.messages();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        (reports[0].from.as_str(), reports[0].to.as_slice()),
        ("", &["alice@home.test".to_owned()][..])
    );
    let text = String::from_utf8(reports[0].content.clone()).unwrap();
    assert!(text.contains("Final-Recipient: rfc822; bob@one.test\r\nAction: failed\r\nStatus: 5.1.1\r\n"));
    assert!(!text.contains("ann@one.test") && !text.contains("cid@two.test"));
    assert!((world.metric("empath_delivery_attempts_total{status=\"delivered\"}") - 3.0).abs() < 0.1);
    assert!((world.metric("empath_delivery_attempts_total{status=\"bounced\"}") - 1.0).abs() < 0.1);
}

/// RFC 5321 §2.4: the case of a local part means something to its host, and so does its quoting.
#[tokio::test(start_paused = true)]
async fn addresses_leave_as_they_came() {
    let one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("AliCe@Home.test", &["SmITh@One.test", "\"a b\"@one.test"]).await;
    world.done().await;
    let said = one.transcript();
    for line in ["MAIL FROM:<AliCe@Home.test>", "RCPT TO:<SmITh@One.test>", "RCPT TO:<\"a b\"@one.test>"] {
        assert!(said.contains(line), "{line} in {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deferred_recipient_never_holds_another_back() {
    let greylisting =
        Script::new().nth(At::Recipient("bob@one.test".into()), 1, Act::reply("451 4.7.1 greylisted"));
    let one = Peer::start(greylisting).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    let id = world.accept("alice@home.test", &["ann@one.test", "bob@one.test"]).await;
    world.rest().await;
    assert_eq!(to(&one), ["ann@one.test"]);
    let view = world.view(id).await.unwrap();
    let shown: Vec<_> = view.recipients.iter().map(|r| (r.status, r.attempts)).collect();
    let [completed, deferred] =
        [empath_delivery::RecipientStatus::Completed, empath_delivery::RecipientStatus::Deferred];
    assert_eq!(shown, [(completed, 1), (deferred, 1)]);
    assert_eq!(view.recipients[1].last_reply.as_ref().unwrap().text, "greylisted");
    world.done().await;
    assert_eq!(to(&one), ["ann@one.test", "bob@one.test"], "who has the message doesn't get it again");
}

#[tokio::test(start_paused = true)]
async fn the_next_mx_host_takes_what_the_first_cannot() {
    let live = Peer::start(Script::new()).await.unwrap();
    // Nothing listens on 127.0.0.2 at that port.
    let zone = "example.test. MX 10 mx1.example.test.\nexample.test. MX 20 mx2.example.test.\n\
                mx1.example.test. A 127.0.0.2\nmx2.example.test. A 127.0.0.1\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let mut config = Config { mx_port: live.address().port(), ..Config::default() };
    config.dns.servers = vec![names.address()];
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["bob@example.test"]).await;
    world.done().await;
    assert_eq!(to(&live), ["bob@example.test"]);
    assert_eq!(world.view(id).await.map(|view| view.id), None);
    assert!((world.metric("empath_delivery_retries_count") - 1.0).abs() < 0.1);
    assert!(
        (world.metric("empath_delivery_retries_bucket{le=\"1\"}") - 1.0).abs() < 0.1,
        "in the first attempt"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_exist_is_passed_over_and_its_next_one_is_not() {
    let live = Peer::start(Script::new()).await.unwrap();
    let zone = "example.test. MX 10 gone.example.test.\nexample.test. MX 20 mx2.example.test.\nmx2.example.test. A 127.0.0.1\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let mut config = Config { mx_port: live.address().port(), ..Config::default() };
    config.dns.servers = vec![names.address()];
    let mut world = World::new(config);
    world.accept("alice@home.test", &["bob@example.test"]).await;
    world.done().await;
    assert_eq!(to(&live), ["bob@example.test"]);
}

#[tokio::test(start_paused = true)]
async fn content_that_was_given_up_is_read_back() {
    let one = Peer::start(Script::new().nth(At::MailFrom, 1, Act::reply("451 4.3.2 later"))).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["ann@one.test"]).await;
    world.done().await;
    assert_eq!(one.messages()[0].content, CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_some_recipients_at_a_time_gets_the_rest_in_the_same_attempt() {
    let narrow = Script::new()
        .nth(At::Recipient("bob@one.test".into()), 1, Act::reply("452 4.5.3 too many recipients"))
        .nth(At::Recipient("cid@one.test".into()), 1, Act::reply("552 5.5.3 too many recipients"));
    let one = Peer::start(narrow).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["ann@one.test", "bob@one.test", "cid@one.test"]).await;
    world.done().await;
    let to: Vec<_> = one.messages().into_iter().map(|message| message.to).collect();
    assert_eq!(to, [vec!["ann@one.test"], vec!["bob@one.test", "cid@one.test"]]);
    assert_eq!(one.connections(), 1);
    assert!((world.metric("empath_delivery_attempts_total{status=\"deferred\"}")).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn a_maildir_gets_the_content_octet_for_octet() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    let maildir = Some(directory.path().join("{address}"));
    config.domains.insert("*.test".parse().unwrap(), DomainConfig { maildir, ..DomainConfig::default() });
    let mut world = World::new(config);
    world.accept("alice@home.test", &["bob@example.test", "cid@example.test"]).await;
    world.done().await;
    for address in ["bob@example.test", "cid@example.test"] {
        let new = directory.path().join(address).join("new");
        let file = std::fs::read_dir(new).unwrap().next().unwrap().unwrap().path();
        let expected = [b"Return-Path: <alice@home.test>\r\n", CONTENT].concat();
        assert_eq!(std::fs::read(file).unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_maildir_that_cannot_be_written_defers() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bob@example.test"), "in the way").unwrap();
    let mut config = Config::default();
    let maildir = Some(directory.path().join("{address}"));
    config.domains.insert("*.test".parse().unwrap(), DomainConfig { maildir, ..DomainConfig::default() });
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["bob@example.test"]).await;
    world.rest().await;
    let recipient = world.recipient(id).await;
    assert_eq!(recipient.next_hop.as_deref(), Some("maildir"));
    assert_eq!(recipient.last_reply.unwrap().enhanced.as_deref(), Some("4.3.0"));
    std::fs::remove_file(directory.path().join("bob@example.test")).unwrap();
    world.done().await;
    assert!(directory.path().join("bob@example.test/new").is_dir());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_turns_us_away_bounces_nothing_while_another_is_only_offline() {
    let closed = Script::new().on(At::Greeting, Act::reply("554 5.7.1 not you"));
    let closed = Peer::start(closed).await.unwrap();
    let zone = "example.test. MX 10 mx1.example.test.\nexample.test. MX 20 mx2.example.test.\n\
                mx1.example.test. A 127.0.0.2\nmx2.example.test. A 127.0.0.1\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let mut config = Config { mx_port: closed.address().port(), ..Config::default() };
    config.dns.servers = vec![names.address()];
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["bob@example.test"]).await;
    world.rest().await;
    assert_eq!(closed.connections(), 1);
    let recipient = world.recipient(id).await;
    assert_eq!(recipient.last_reply.unwrap().enhanced.as_deref(), Some("4.4.1"));
    assert!(recipient.host.unwrap().starts_with("mx1.example.test[127.0.0.2]:"));
}

#[tokio::test(start_paused = true)]
async fn hosts_behind_ourselves_are_not_tried() {
    let ourselves = Peer::start(Script::new()).await.unwrap();
    let zone = "example.test. MX 5 mx1.test.\nexample.test. MX 10 us.test.\nexample.test. MX 20 mx2.test.\n\
                mx1.test. A 127.0.0.2\nus.test. A 127.0.0.1\nmx2.test. A 127.0.0.3\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let mut config = Config { mx_port: ourselves.address().port(), ..Config::default() };
    config.dns.servers = vec![names.address()];
    let mut world = World::with(config, DsnConfig::default(), vec![ourselves.address()]);
    let id = world.accept("alice@home.test", &["bob@example.test"]).await;
    world.rest().await;
    assert_eq!(world.recipient(id).await.attempts, 1);
    assert_eq!((names.queries("us.test", "A"), names.queries("mx2.test", "A")), (1, 0));
    assert_eq!(ourselves.connections(), 0);
}
