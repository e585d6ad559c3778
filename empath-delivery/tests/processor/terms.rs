//! TLS policies, LIMITS and switches: how hosts are spoken to.

use std::{fs, sync::Arc, time::Duration};

use empath_delivery::{
    Config, RecipientStatus,
    config::{DomainConfig, TlsPolicy},
};
use empath_testkit::{
    peer::{Act, At, Peer, Script},
    tls::{Authority, Oddity},
    zone::{Zone, ZoneServer},
};
use tempfile::TempDir;

use crate::world::{Pipes, World, routes, to};

/// What comes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clear,
    Tls,
    /// With this status, and nothing said of the message.
    Deferred(&'static str),
}

/// The script of a host, and the ends under Opportunistic, Required, and Required with any certificate.
type Row = (&'static str, Script, [End; 3]);

fn trusting(authority: &Authority) -> (TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("roots.pem");
    fs::write(&file, authority.pem()).unwrap();
    let mut config = Config::default();
    config.tls.ca_file = Some(file);
    (directory, config)
}

fn rows(authority: &Authority) -> Vec<Row> {
    let good = || Script::new().tls(authority.sign("one.test"));
    let odd = |odd| Script::new().tls(authority.sign_odd("one.test", odd));
    let [none, failed] = [End::Deferred("4.7.4"), End::Deferred("4.7.5")];
    let unverified = [End::Tls, failed, End::Tls];
    let refused = [End::Clear, none, none];
    let garbled = [End::Clear, End::Deferred("4.5.0"), End::Deferred("4.5.0")];
    let broken = [End::Clear, failed, failed];
    let lost = [End::Clear, End::Deferred("4.4.2"), End::Deferred("4.4.2")];
    vec![
        ("no STARTTLS", Script::new(), [End::Clear, none, none]),
        ("HELO only", Script::new().on(At::Ehlo, Act::reply("502 what")), [End::Clear, none, none]),
        ("good", good(), [End::Tls; 3]),
        ("TLS 1.2", odd(Oddity::Old), [End::Tls; 3]),
        ("expired", odd(Oddity::Expired), unverified),
        ("name in the subject only", odd(Oddity::CommonNameOnly), unverified),
        ("wrong name", Script::new().tls(authority.sign("mx.one.test")), unverified),
        ("stranger", Script::new().tls(Authority::new().sign("one.test")), unverified),
        ("454", good().on(At::StartTls, Act::reply("454 4.7.0 not now")), refused),
        ("502", good().on(At::StartTls, Act::reply("502 5.5.1 what")), refused),
        ("554 and close", good().on(At::StartTls, Act::reply_and_close("554 5.7.0 no")), refused),
        ("354", good().on(At::StartTls, Act::reply("354 go on")), garbled),
        ("injected", good().on(At::StartTls, Act::reply("220 go on\n250 you are welcome")), garbled),
        ("closed at STARTTLS", good().on(At::StartTls, Act::Close), lost),
        ("no answer to STARTTLS", good().on(At::StartTls, Act::Stall), lost),
        ("garbage", good().on(At::Handshake, Act::raw("what is this?\r\n")), broken),
        ("closed in the handshake", good().on(At::Handshake, Act::Close), broken),
        ("no answer in the handshake", good().on(At::Handshake, Act::Stall), broken),
    ]
}

async fn check(name: &str, script: Script, authority: &Authority, domain: DomainConfig, end: End) {
    let what = format!("{name}, {:?}", (domain.tls, domain.require_tls, domain.accept_invalid_certs));
    let one = Arc::new(Peer::start(script).await.unwrap());
    let (_directory, mut config) = trusting(authority);
    let mx_override = Some(one.address().to_string().parse().unwrap());
    config.domains.insert("one.test".parse().unwrap(), DomainConfig { mx_override, ..domain });
    let mut world = World::over(Pipes::to(&[&one]), config);
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    if let End::Deferred(status) = end {
        world.rest().await;
        let recipient = world.recipient(id).await;
        assert_eq!((recipient.status, recipient.attempts), (RecipientStatus::Deferred, 1), "{what}");
        assert_eq!(recipient.last_reply.unwrap().enhanced.as_deref(), Some(status), "{what}");
        assert!(!one.transcript().contains("MAIL"), "{what}: {}", one.transcript());
        return;
    }
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"], "{what}");
    assert_eq!(one.handshakes().len(), usize::from(end == End::Tls), "{what}: {}", one.transcript());
    let deferred = world.metric("empath_delivery_attempts_total{status=\"deferred\"}");
    assert!(deferred.abs() < 0.1, "{what}: all in one attempt");
}

#[tokio::test(start_paused = true)]
async fn every_policy_has_its_answer_to_every_behaviour_of_a_host() {
    let authority = Authority::new();
    let required = || DomainConfig { require_tls: true, ..DomainConfig::default() };
    for number in 0..rows(&authority).len() {
        for policy in 0..3 {
            let (name, script, ends) = rows(&authority).remove(number);
            let domain = match policy {
                0 => DomainConfig::default(),
                1 => required(),
                _ => DomainConfig { accept_invalid_certs: Some(true), ..required() },
            };
            check(name, script, &authority, domain, ends[policy]).await;
        }
        let (name, script, _) = rows(&authority).remove(number);
        let disabled = DomainConfig { tls: Some(TlsPolicy::Disabled), ..DomainConfig::default() };
        check(name, script, &authority, disabled, End::Clear).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_name_of_the_mx_host_is_asked_for_and_verified() {
    let authority = Authority::new();
    let peer = Peer::start(Script::new().tls(authority.sign("mx1.example.test"))).await.unwrap();
    let zone = "example.test. MX 10 mx1.example.test.\nother.test. MX 10 mx2.example.test.\n\
                mx1.example.test. A 127.0.0.1\nmx2.example.test. A 127.0.0.1\n";
    let names = ZoneServer::start(Zone::parse(zone)).await;
    let (_directory, mut config) = trusting(&authority);
    config.mx_port = peer.address().port();
    config.dns.servers = vec![names.address()];
    config.tls.default_policy = TlsPolicy::Required;
    let mut world = World::new(config);
    world.accept("alice@home.test", &["bob@example.test"]).await;
    world.done().await;
    assert_eq!(to(&peer), ["bob@example.test"]);
    assert_eq!(peer.handshakes()[0].server_name.as_deref(), Some("mx1.example.test"));

    let id = world.accept("alice@home.test", &["bob@other.test"]).await;
    world.rest().await;
    let reply = world.recipient(id).await.last_reply.unwrap();
    assert_eq!(reply.enhanced.as_deref(), Some("4.7.5"));
    assert!(reply.text.contains("TLS handshake: invalid peer certificate"), "{}", reply.text);
    let failures = "empath_delivery_tls_handshake_failures_total{domain=\"other.test\",policy=\"required\"}";
    assert!(world.metric(failures) > 0.9);
}

#[tokio::test(start_paused = true)]
async fn a_host_with_broken_tls_is_left_in_peace_with_it_for_an_hour() {
    let authority = Authority::new();
    let script = Script::new().tls(authority.sign("one.test")).on(At::Handshake, Act::Close);
    let one = Arc::new(Peer::start(script).await.unwrap());
    let mut config = routes(&[("one.test", &one)]);
    config.connection_pool.max_messages = 1;
    let mut world = World::over(Pipes::to(&[&one]), config);
    let tries = || one.transcript().matches("C: STARTTLS").count();
    for (minutes, expected) in [(0, 1), (1, 1), (50, 1), (15, 2), (1, 2)] {
        tokio::time::sleep(Duration::from_mins(minutes)).await;
        world.accept("alice@home.test", &["bob@one.test"]).await;
        world.done().await;
        assert_eq!(tries(), expected, "after {minutes} more minutes");
    }
    assert_eq!(one.messages().len(), 5);
    let failures =
        "empath_delivery_tls_handshake_failures_total{domain=\"one.test\",policy=\"opportunistic\"}";
    assert!((world.metric(failures) - 2.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_busy_is_not_one_with_broken_tls() {
    let authority = Authority::new();
    let script = Script::new().tls(authority.sign("one.test")).nth(
        At::StartTls,
        1,
        Act::reply_and_close("421 4.3.2 too busy"),
    );
    let one = Arc::new(Peer::start(script).await.unwrap());
    let mut world = World::over(Pipes::to(&[&one]), routes(&[("one.test", &one)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.done().await;
    assert_eq!((one.connections(), one.handshakes().len()), (2, 1));
    assert!((world.metric("empath_delivery_attempts_total{status=\"deferred\"}") - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn mail_that_must_be_encrypted_never_takes_a_connection_that_is_not() {
    let one = Arc::new(Peer::start(Script::new()).await.unwrap());
    let mut config = routes(&[("free.test", &one), ("strict.test", &one)]);
    config.tls.accept_invalid_certs = true;
    let strict = config.domains.get_mut(&"strict.test".parse().unwrap()).unwrap();
    strict.require_tls = true;
    let mut world = World::over(Pipes::to(&[&one]), config);
    world.accept("alice@home.test", &["ann@free.test"]).await;
    one.wait_for_messages(1).await;
    let id = world.accept("alice@home.test", &["bob@strict.test", "cid@free.test"]).await;
    world.rest().await;
    assert_eq!(to(&one), ["ann@free.test", "cid@free.test"]);
    assert_eq!(world.recipient(id).await.last_reply.unwrap().enhanced.as_deref(), Some("4.7.4"));
}

/// As many recipients in each transaction, over as many connections.
async fn split(keyword: &str, addresses: &[&str]) -> (Vec<usize>, usize) {
    let script = Script::new().offer(["PIPELINING", "CHUNKING", keyword]);
    let one = Arc::new(Peer::start(script).await.unwrap());
    let mut world = World::over(Pipes::to(&[&one]), routes(&[("*", &one)]));
    world.accept("alice@home.test", addresses).await;
    world.done().await;
    assert!(world.metric("empath_delivery_attempts_total{status=\"deferred\"}").abs() < 0.1);
    let mut arrived = to(&one);
    arrived.sort();
    assert_eq!(arrived, addresses, "{keyword}");
    (one.messages().iter().map(|message| message.to.len()).collect(), one.connections())
}

#[tokio::test(start_paused = true)]
async fn what_a_host_takes_at_most_is_respected_within_the_attempt() {
    let to = ["a@a.test", "b@b.test", "c@a.test", "d@b.test", "e@a.test"];
    for (limits, transactions, connections) in [
        ("LIMITS", vec![5], 1),
        ("LIMITS RCPTMAX=2", vec![2, 2, 1], 1),
        ("LIMITS RCPTDOMAINMAX=1", vec![3, 2], 1),
        ("LIMITS RCPTMAX=2 MAILMAX=1", vec![2, 2, 1], 3),
        ("LIMITS RCPTMAX=1 MAILMAX=2", vec![1; 5], 3),
    ] {
        assert_eq!(split(limits, &to).await, (transactions, connections), "{limits}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_among_limited_transactions_is_not_tried_for_the_rest() {
    let script = Script::new().offer(["LIMITS RCPTMAX=1"]).nth(At::EndOfData, 2, Act::Close);
    let one = Arc::new(Peer::start(script).await.unwrap());
    let mut world = World::over(Pipes::to(&[&one]), routes(&[("one.test", &one)]));
    let all = ["a@one.test", "b@one.test", "c@one.test", "d@one.test"];
    let id = world.accept("alice@home.test", &all).await;
    world.rest().await;
    assert_eq!((to(&one), one.connections()), (vec!["a@one.test".to_owned()], 1));
    assert_eq!(world.recipient_at(id, 3).await.attempts, 1);
    world.done().await;
    assert_eq!(to(&one), all);
}

#[tokio::test(start_paused = true)]
async fn pipelining_and_chunking_can_be_switched_off_for_a_domain() {
    for (pipelining, chunking) in [(true, true), (false, true), (true, false), (false, false)] {
        let script = Script::new()
            .offer(["PIPELINING", "CHUNKING"])
            .on(At::Recipient("nobody@one.test".into()), Act::reply("550 5.1.1 no"));
        let one = Arc::new(Peer::start(script).await.unwrap());
        let mut config = routes(&[("one.test", &one)]);
        for domain in config.domains.values_mut() {
            (domain.pipelining, domain.chunking) = (pipelining, chunking);
        }
        let mut world = World::over(Pipes::to(&[&one]), config);
        world.accept("", &["nobody@one.test"]).await;
        world.done().await;
        // Only who does not wait for the reply to RCPT asks for nobody.
        assert_eq!(one.transcript().contains("C: DATA"), pipelining && !chunking, "{}", one.transcript());
        world.accept("", &["bob@one.test"]).await;
        world.done().await;
        assert_eq!(one.transcript().contains("C: BDAT"), chunking, "{}", one.transcript());
        assert_eq!(to(&one), ["bob@one.test"]);
    }
}

/// With sockets, time runs on while the system works; over pipes it is exact.
#[tokio::test(start_paused = true)]
async fn a_host_that_never_greets_costs_exactly_its_timeout() {
    let silent = Arc::new(Peer::start(Script::new().on(At::Greeting, Act::Stall)).await.unwrap());
    let mut config = routes(&[("one.test", &silent)]);
    config.smtp_timeouts.greeting = Duration::from_secs(123);
    let mut world = World::over(Pipes::to(&[&silent]), config);
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    let start = world.clock.now();
    world.at(start + Duration::from_millis(122_999)).await;
    assert_eq!(world.recipient(id).await.status, RecipientStatus::InProgress);
    world.at(start + Duration::from_millis(123_001)).await;
    assert_eq!(world.recipient(id).await.status, RecipientStatus::Deferred);
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_certificate_displeases_one_domain_is_no_worse_for_another() {
    let authority = Authority::new();
    let first = Arc::new(Peer::unlisted(Script::new().tls(Authority::new().sign("mx1.test"))));
    let second = Arc::new(Peer::unlisted(Script::new().tls(authority.sign("mx2.test"))));
    let names = crate::names::Names::new(
        "strict.test. MX 10 mx1.test.\nstrict.test. MX 20 mx2.test.\nfree.test. MX 10 mx1.test.\n\
         free.test. MX 20 mx2.test.\nmx1.test. A 192.0.2.1\nmx2.test. A 192.0.2.2\n",
    );
    let (_directory, mut config) = trusting(&authority);
    let strict = DomainConfig { require_tls: true, ..DomainConfig::default() };
    config.domains.insert("strict.test".parse().unwrap(), strict);
    let pipes = Pipes::at(&[("192.0.2.1:25", &first), ("192.0.2.2:25", &second)]);
    let mut world = World::over_names(pipes, config, &names);
    world.accept("alice@home.test", &["ann@strict.test"]).await;
    world.done().await;
    assert_eq!((to(&first).len(), to(&second).len()), (0, 1));
    world.accept("alice@home.test", &["bob@free.test"]).await;
    world.done().await;
    assert_eq!(to(&first), ["bob@free.test"], "the better MX was there");
}
