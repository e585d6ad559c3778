//! STARTTLS (RFC 3207) from the client's side.

use empath_smtp::client::{Expected, Feature, Roots, Tls};
use empath_testkit::tls::{Authority, Identity, Oddity};

use super::*;

struct World {
    authority: Authority,
    _directory: tempfile::TempDir,
    tls: Tls,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roots.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let mut roots = Roots::none();
        roots.add(&file).unwrap();
        Self { authority, _directory: directory, tls: Tls::new(roots).unwrap() }
    }

    async fn secure(&self, peer: &Peer, expected: Expected<'_>) -> Result<Connection, Failure> {
        open(peer).await.unwrap().start_tls(&self.tls, &expected, Hello::smtp("client.test")).await
    }

    /// To a peer that begins with TLS.
    async fn open(&self, peer: &Peer, expected: Expected<'_>) -> Result<Connection, Failure> {
        let (target, hello) = (Target::Tcp(peer.address()), Hello::smtp("client.test"));
        Connection::open_tls(&Sockets, (&target).into(), (&self.tls, &expected), hello, Arc::default()).await
    }
}

const VERIFIED: Expected<'_> = Expected { name: "mx.x.test", verified: true };
const ANYBODY: Expected<'_> = Expected { name: "mx.x.test", verified: false };

fn handshake(error: &Failure) -> bool {
    error.stage == Stage::Handshake && matches!(error.kind, FailureKind::Tls(_))
}

#[tokio::test]
async fn what_counts_is_said_inside_tls() {
    let world = World::new();
    // RFC 3207 §4.2: what was offered in clear text may be a stranger's.
    let script = Script::new()
        .offer(["PIPELINING", "CHUNKING", "SMTPUTF8"])
        .tls(world.authority.sign("mx.x.test"))
        .offer_in_tls(["SIZE 1000"]);
    let peer = Peer::start(script).await.unwrap();
    let mut connection = world.secure(&peer, VERIFIED).await.unwrap();
    let tls = connection.tls().unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.cipher.starts_with("TLS_"), "{}", tls.cipher);
    let offered = connection.offered();
    assert!(!offered.pipelining && !offered.chunking && !offered.starttls && offered.size.is_some());
    assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
    let large = format!("{}\r\n", "x".repeat(98)).repeat(8);
    let sent = send_content(&mut connection, &["bob@example.test"], large.clone()).await;
    assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
    assert_eq!(peer.messages()[1].content, large.into_bytes());
    connection.quit().await;
    peer.wait_until_left().await;
    assert_eq!(peer.handshakes()[0].server_name.as_deref(), Some("mx.x.test"));
    assert_eq!(peer.violations(), Vec::<String>::new());
    let said = peer.transcript();
    assert!(said.contains("0 C: STARTTLS\n0 S: 220 2.0.0 Go on\n0 TLS\n0 C: EHLO client.test\n"), "{said}");
}

#[tokio::test]
async fn a_server_that_begins_with_tls_is_greeted_inside_it() {
    let world = World::new();
    let script = Script::new().offer(["PIPELINING", "STARTTLS"]).tls_first(world.authority.sign("mx.x.test"));
    let peer = Peer::start(script).await.unwrap();
    let mut connection = world.open(&peer, VERIFIED).await.unwrap();
    assert_eq!(connection.tls().unwrap().version, "TLSv1.3");
    assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
    connection.quit().await;
    let said = peer.transcript();
    assert!(said.starts_with("0 TLS\n0 S: 220 peer.test ESMTP\n0 C: EHLO client.test\n"), "{said}");
    assert!(!said.contains("C: STARTTLS"), "{said}");
    let another = Expected { name: "other.x.test", verified: true };
    assert!(handshake(&world.open(&peer, another).await.unwrap_err()));
    // One that greets in clear text is not answered.
    let clear = Peer::start(Script::new()).await.unwrap();
    assert!(handshake(&world.open(&clear, ANYBODY).await.unwrap_err()));
    assert!(!clear.transcript().contains("C: EHLO"), "{}", clear.transcript());
}

#[tokio::test]
async fn large_content_passes_through_tls_in_either_framing() {
    let world = World::new();
    for keywords in [&["PIPELINING", "CHUNKING"][..], &["PIPELINING"]] {
        let script = Script::new().offer(keywords.iter().copied()).tls(world.authority.sign("mx.x.test"));
        let peer = Peer::start(script).await.unwrap();
        let mut connection = world.secure(&peer, VERIFIED).await.unwrap();
        let large = format!("{}\r\n", "x".repeat(98)).repeat(30_000);
        let sent = send_content(&mut connection, &["bob@example.test"], large.clone()).await;
        assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
        assert!(peer.messages()[0].content == large.into_bytes());
    }
}

#[tokio::test]
async fn certificates_are_verified_only_where_that_is_asked_for() {
    let (world, stranger) = (World::new(), Authority::new());
    let good = |identity: Identity| (identity, true);
    let bad = |identity: Identity| (identity, false);
    for (number, (identity, valid)) in [
        good(world.authority.sign("mx.x.test")),
        good(world.authority.sign("*.x.test")),
        good(world.authority.sign_odd("mx.x.test", Oddity::Old)),
        bad(world.authority.sign("other.x.test")),
        bad(world.authority.sign("127.0.0.1")),
        bad(world.authority.sign_odd("mx.x.test", Oddity::Expired)),
        bad(world.authority.sign_odd("mx.x.test", Oddity::CommonNameOnly)),
        bad(stranger.sign("mx.x.test")),
    ]
    .into_iter()
    .enumerate()
    {
        let peer = Peer::start(Script::new().tls(identity)).await.unwrap();
        let mut connection = world.secure(&peer, ANYBODY).await.unwrap();
        assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
        match world.secure(&peer, VERIFIED).await {
            Ok(_) => assert!(valid, "{number}"),
            Err(error) => assert!(!valid && handshake(&error), "{number}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_trusted_itself_is_held_to_name_time_and_key() {
    let directory = tempfile::tempdir().unwrap();
    for (name, odd, valid) in [
        ("mx.x.test", Oddity::None, true),
        ("mx.x.test", Oddity::NoAuthority, true),
        ("mx.x.test", Oddity::Old, true),
        ("other.x.test", Oddity::None, false),
        ("mx.x.test", Oddity::CommonNameOnly, false),
        ("mx.x.test", Oddity::Expired, false),
        ("mx.x.test", Oddity::WrongKey, false),
    ] {
        let (identity, pem) = Identity::self_signed(name, odd);
        let file = directory.path().join("own.pem");
        std::fs::write(&file, pem).unwrap();
        let mut world = World::new();
        let mut roots = Roots::none();
        roots.add(&file).unwrap();
        world.tls = Tls::new(roots).unwrap();
        let peer = Peer::start(Script::new().tls(identity)).await.unwrap();
        match world.secure(&peer, VERIFIED).await {
            Ok(_) => assert!(valid, "{name} {odd:?}"),
            Err(error) => assert!(!valid && handshake(&error), "{name} {odd:?}: {error}"),
        }
        // Nobody else is trusted for it, even if he has the same name.
        let (another, _) = Identity::self_signed("mx.x.test", Oddity::None);
        let peer = Peer::start(Script::new().tls(another)).await.unwrap();
        assert!(handshake(&world.secure(&peer, VERIFIED).await.unwrap_err()));
    }
}

#[tokio::test]
async fn a_server_that_is_trusted_itself_vouches_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.pem");
    let mut world = World::new();
    for (vouches, valid) in [(false, false), (true, true)] {
        let (partner, pem) = Authority::named("partner.test", vouches);
        std::fs::write(&file, pem).unwrap();
        let mut roots = Roots::none();
        roots.add(&file).unwrap();
        world.tls = Tls::new(roots).unwrap();
        let peer = Peer::start(Script::new().tls(partner.sign("mx.x.test"))).await.unwrap();
        match world.secure(&peer, VERIFIED).await {
            Ok(_) => assert!(valid),
            Err(error) => assert!(!valid && handshake(&error), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_for_an_address_is_verified_too() {
    let world = World::new();
    let peer = Peer::start(Script::new().tls(world.authority.sign("127.0.0.1"))).await.unwrap();
    world.secure(&peer, Expected { name: "127.0.0.1", verified: true }).await.unwrap();
    assert_eq!(peer.handshakes()[0].server_name, None, "RFC 6066 §3: addresses are not asked for");
}

#[tokio::test]
async fn sessions_are_resumed_and_never_where_the_certificate_was_not_verified() {
    let (world, stranger) = (World::new(), Authority::new());
    let peer = Peer::start(Script::new().tls(world.authority.sign("mx.x.test"))).await.unwrap();
    for _ in 0..2 {
        let mut connection = world.secure(&peer, VERIFIED).await.unwrap();
        assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
    }
    assert_eq!(
        peer.handshakes().iter().map(|handshake| handshake.resumed).collect::<Vec<_>>(),
        [false, true]
    );

    let peer = Peer::start(Script::new().tls(stranger.sign("mx.x.test"))).await.unwrap();
    let mut connection = world.secure(&peer, ANYBODY).await.unwrap();
    assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
    let error = world.secure(&peer, VERIFIED).await.unwrap_err();
    assert!(handshake(&error), "{error}");
}

#[tokio::test]
async fn a_broken_starttls_is_told_from_a_good_one() {
    let world = World::new();
    let refused = |code, class, text| FailureKind::Refused(Reply::new(code, (class, 7, 0), text));
    let behind = FailureKind::Garbled(GarbledReason::BehindStartTls);
    for (at, act, stage, expected) in [
        (At::StartTls, Act::reply("454 4.7.0 not now"), Stage::StartTls, Some(refused(454, 4, "not now"))),
        (At::StartTls, Act::reply("502 5.7.0 what"), Stage::StartTls, Some(refused(502, 5, "what"))),
        (
            At::StartTls,
            Act::reply("354 go on"),
            Stage::StartTls,
            Some(FailureKind::Garbled(GarbledReason::Unexpected)),
        ),
        (At::StartTls, Act::Close, Stage::StartTls, Some(FailureKind::Closed)),
        // The handshake would succeed: whoever put that there wants it to count inside TLS.
        (At::StartTls, Act::reply("220 go on\n250-x\n250 PIPELINING"), Stage::StartTls, Some(behind)),
        (At::Handshake, Act::Close, Stage::Handshake, Some(FailureKind::Closed)),
        (At::Handshake, Act::raw("what is this?\r\n"), Stage::Handshake, None),
        (At::Handshake, Act::reply("500 what is this?"), Stage::Handshake, None),
    ] {
        let script = Script::new().tls(world.authority.sign("mx.x.test")).on(at, act.clone());
        let peer = Peer::start(script).await.unwrap();
        let error = world.secure(&peer, ANYBODY).await.unwrap_err();
        match expected {
            Some(kind) => assert_eq!(error, failure(stage, kind), "{act:?}"),
            None => assert!(handshake(&error), "{act:?}: {error}"),
        }
        assert_eq!(peer.handshakes(), [], "{act:?}");
    }
    let peer = Peer::start(Script::new()).await.unwrap();
    let error = world.secure(&peer, ANYBODY).await.unwrap_err();
    assert_eq!(error, failure(Stage::StartTls, FailureKind::Unsupported(Feature::StartTls)));
    assert!(!peer.transcript().contains("STARTTLS") && peer.transcript().contains("C: QUIT"));
}

#[tokio::test(start_paused = true)]
async fn reply_and_handshake_have_their_time() {
    let world = World::new();
    let timeouts = Timeouts { starttls: Duration::from_secs(7), ..Timeouts::default() };
    for (at, stage) in [(At::StartTls, Stage::StartTls), (At::Handshake, Stage::Handshake)] {
        let script = Script::new().tls(world.authority.sign("mx.x.test")).on(at, Act::Stall);
        let start = tokio::time::Instant::now();
        let (_peer, connection) = served(script, timeouts.clone()).await;
        let error = connection
            .unwrap()
            .start_tls(&world.tls, &ANYBODY, Hello::smtp("client.test"))
            .await
            .unwrap_err();
        assert_eq!(error, failure(stage, FailureKind::Timeout));
        assert_eq!(start.elapsed().as_secs(), 7);
    }
}

#[tokio::test]
async fn an_idle_encrypted_connection_that_the_server_ends_is_noticed() {
    let world = World::new();
    for act in [Act::Close, Act::reply("421 4.4.2 idle too long")] {
        let script = Script::new().tls(world.authority.sign("mx.x.test")).nth(At::Idle, 1, act);
        let peer = Peer::start(script).await.unwrap();
        let mut connection = world.secure(&peer, VERIFIED).await.unwrap();
        assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
        connection.closed().await;
        assert!(send(&mut connection, &["carol@example.test"]).await.recipients[0].is_err());
        assert_eq!(peer.messages().len(), 1);
    }
}

#[test]
fn roots_that_can_not_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (file, complaint) in [
        (directory.path().join("none.pem"), "No such file"),
        (file("empty.pem", ""), "there is no certificate in it"),
        (file("broken.pem", broken), "can't be trusted"),
    ] {
        let error = Roots::none().add(&file).unwrap_err().to_string();
        assert!(error.contains(complaint) && error.contains(".pem"), "{error}");
    }
}
