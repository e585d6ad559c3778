//! TLS as clients meet it: certificates by name and over time, handshakes that go wrong, clients' own certificates.

use std::{fs, sync::Arc, time::Duration};

use empath_common::{Answer, Asked, Hook, Hooks, Query, Reply, Verdict};
use empath_smtp::server::{
    CertificateConfig, Config, ListenerConfig, Mode, Server, Session, Timeouts, Tls, serve,
};
use rcgen::CertificateParams;
use rustls::{ClientConfig, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::{Authority, Pair, handshake},
    intake::{Shelf, Stopped},
    listener::{Running, line, rest, start},
    machine,
};

fn listen(config: &Config, mode: Mode, hooks: Hooks) -> Running {
    let shelf = Shelf::default();
    let server = Server::new(machine::settings(config), hooks, shelf.clone(), Arc::new(Stopped))
        .with_tls(Tls::load(config).unwrap());
    let listener =
        ListenerConfig { socket: "127.0.0.1:0".parse().unwrap(), mode, ..ListenerConfig::default() };
    start(&listener, Arc::new(server), shelf)
}

fn submissions(config: &Config) -> Running {
    listen(config, Mode::Submissions, Hooks::default())
}

async fn connect(running: &Running, client: &Arc<ClientConfig>, name: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(running.address).await.unwrap();
    handshake(client, name, stream).await.unwrap()
}

/// The certificate that a client which asks for `name` is shown, whomever it is for.
async fn shown(running: &Running, authority: &Authority, name: &str) -> Vec<u8> {
    let mut stream = connect(running, &authority.careless_client(), name).await;
    line(&mut stream).await;
    stream.get_ref().1.peer_certificates().unwrap().first().unwrap().to_vec()
}

fn der(entry: &CertificateConfig) -> Vec<u8> {
    CertificateDer::from_pem_file(&entry.certificate).unwrap().to_vec()
}

fn with(tls: Vec<CertificateConfig>) -> Config {
    Config { tls, ..Config::default() }
}

#[tokio::test]
async fn submissions_is_tls_from_the_first_octet_and_says_nothing_in_clear() {
    let authority = Authority::new();
    let running = submissions(&authority.certify(&Config::default()));
    let mut stream = connect(&running, &authority.client(), "mx.test.example").await;
    assert_eq!(line(&mut stream).await, "220 mx.test.example ESMTP\r\n");
    stream.write_all(b"EHLO c.example\r\nMAIL FROM:<a@test.example>\r\nSTARTTLS\r\nQUIT\r\n").await.unwrap();
    let replies = rest(&mut stream).await;
    let codes: Vec<_> = replies.lines().filter(|line| &line[3..4] == " ").map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "530", "503", "221"], "{replies}");

    let mut clear = TcpStream::connect(running.address).await.unwrap();
    clear.write_all(b"EHLO c.example\r\nQUIT\r\n").await.unwrap();
    let mut answer = Vec::new();
    clear.read_to_end(&mut answer).await.unwrap();
    // An alert: type 21, and the version of all records.
    assert!(answer.starts_with(&[21, 3]) && answer.len() < 16, "{}", answer.escape_ascii());
}

#[tokio::test]
async fn the_certificate_is_that_of_the_name_which_the_client_asks_for() {
    let authority = Authority::new();
    let exact = authority.entry(&["mx.test.example"], "mx.test.example");
    let below = authority.entry(&["*.test.example"], "any.test.example");
    let others = authority.entry(&["*"], "others.example");
    let running = submissions(&with(vec![exact.clone(), below.clone(), others.clone()]));
    for (name, entry) in [
        ("mx.test.example", &exact),
        ("smtp.test.example", &below),
        ("test.example", &others),
        ("elsewhere.example", &others),
        // Addresses are no names: the client sends none.
        ("127.0.0.1", &others),
    ] {
        assert_eq!(shown(&running, &authority, name).await, der(entry), "{name}");
    }
    let running = submissions(&with(vec![exact.clone(), below]));
    assert_eq!(shown(&running, &authority, "elsewhere.example").await, der(&exact), "the first, without `*`");
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_the_next_client_and_one_that_is_no_good_is_not() {
    let authority = Authority::new();
    let entry = authority.entry(&["*"], "mx.test.example");
    let first = der(&entry);
    let running = submissions(&with(vec![entry.clone()]));
    assert_eq!(shown(&running, &authority, "mx.test.example").await, first);
    let renewed = authority.sign("mx.test.example");
    // Between the two writes, the files don't belong together.
    fs::write(&entry.certificate, &renewed.certificate).unwrap();
    assert_eq!(shown(&running, &authority, "mx.test.example").await, first);
    fs::write(&entry.key, &renewed.key).unwrap();
    let second = der(&entry);
    assert_eq!(shown(&running, &authority, "mx.test.example").await, second);
    assert_ne!(first, second);
    fs::write(&entry.certificate, "gone").unwrap();
    assert_eq!(shown(&running, &authority, "mx.test.example").await, second);
    fs::remove_file(&entry.certificate).unwrap();
    assert_eq!(shown(&running, &authority, "mx.test.example").await, second);
}

#[tokio::test]
async fn a_client_of_tls_1_2_is_served_and_the_trace_says_so() {
    let authority = Authority::new();
    let config = authority.certify(&serde_json::from_str(r#"{"local_domains": ["test.example"]}"#).unwrap());
    let running = listen(&config, Mode::Relay, Hooks::default());
    let mut clear = TcpStream::connect(running.address).await.unwrap();
    line(&mut clear).await;
    clear.write_all(b"EHLO c.example\r\n").await.unwrap();
    while !line(&mut clear).await.starts_with("250 ") {}
    clear.write_all(b"STARTTLS\r\n").await.unwrap();
    assert_eq!(line(&mut clear).await, "220 2.0.0 Ready to start TLS\r\n");
    let mut stream = handshake(&authority.old_client(), "mx.test.example", clear).await.unwrap();
    let message = "EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    stream.write_all(message.as_bytes()).await.unwrap();
    rest(&mut stream).await;
    let messages = running.shelf.messages();
    let content = String::from_utf8_lossy(&messages[0].1);
    assert!(content.contains("with ESMTPS id "), "{content}");
    assert!(content.contains("\ttls TLS_ECDHE_") && content.contains(" (TLSv1.2);"), "{content}");
}

/// Serves one client of `mode` over a pipe; what it hears, and after how many seconds the connection is closed.
async fn silent_client(mode: Mode, said: &[u8]) -> (Vec<u8>, u64) {
    let authority = Authority::new();
    let config = authority.certify(&Config::default());
    let (mut client, stream) = duplex(4096);
    let said = said.to_vec();
    let served = tokio::spawn(async move {
        let server = machine::server(&config, &Shelf::default()).with_tls(Tls::load(&config).unwrap());
        let session =
            Session::new(Arc::clone(&server.settings), mode, machine::client("203.0.113.9".parse().unwrap()));
        let timeouts = Timeouts { handshake: Duration::from_secs(7), ..Timeouts::default() };
        serve(stream, session, &server, &timeouts, &CancellationToken::new()).await;
    });
    client.write_all(&said).await.unwrap();
    let (started, mut heard) = (Instant::now(), Vec::new());
    client.read_to_end(&mut heard).await.unwrap();
    served.await.unwrap();
    (heard, started.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_ends_at_its_deadline_without_a_word_in_clear() {
    // The first octets of a ClientHello.
    assert_eq!(silent_client(Mode::Submissions, &[22, 3, 1, 2, 0, 1]).await, (Vec::new(), 7));
    let (heard, seconds) = silent_client(Mode::Relay, b"EHLO c.example\r\nSTARTTLS\r\n").await;
    assert!(heard.ends_with(b"220 2.0.0 Ready to start TLS\r\n"), "{}", heard.escape_ascii());
    assert_eq!(seconds, 7);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_drips_has_no_more_time_than_one_that_stalls() {
    let authority = Authority::new();
    let config = authority.certify(&Config::default());
    let (mut client, stream) = duplex(4096);
    let served = tokio::spawn(async move {
        let server = machine::server(&config, &Shelf::default()).with_tls(Tls::load(&config).unwrap());
        let peer = machine::client("203.0.113.9".parse().unwrap());
        let session = Session::new(Arc::clone(&server.settings), Mode::Submissions, peer);
        let timeouts = Timeouts { handshake: Duration::from_secs(95), ..Timeouts::default() };
        serve(stream, session, &server, &timeouts, &CancellationToken::new()).await;
    });
    let (started, mut heard) = (Instant::now(), Vec::new());
    // A ClientHello of 16 KiB, an octet every 30 seconds.
    for octet in [22, 3, 1, 64, 0, 1, 0, 0] {
        let _ = client.write_all(&[octet]).await;
        if timeout(Duration::from_secs(30), client.read_to_end(&mut heard)).await.is_ok() {
            break;
        }
    }
    served.await.unwrap();
    assert_eq!((heard, started.elapsed().as_secs()), (Vec::new(), 95));
}

#[tokio::test(start_paused = true)]
async fn octets_behind_starttls_are_not_taken_for_a_handshake() {
    let injected = b"EHLO c.example\r\nSTARTTLS\r\nMAIL FROM:<a@other.example>\r\n";
    let (heard, seconds) = silent_client(Mode::Relay, injected).await;
    assert!(heard.ends_with(b"220 2.0.0 Ready to start TLS\r\n"), "{}", heard.escape_ascii());
    assert_eq!(seconds, 7, "they were discarded, and the client's handshake never came");
}

#[tokio::test]
async fn a_listener_that_stops_does_not_wait_for_handshakes() {
    let authority = Authority::new();
    let running = submissions(&authority.certify(&Config::default()));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    while running.server.connections.count() == 0 {
        tokio::task::yield_now().await;
    }
    running.stop.cancel();
    assert_eq!(rest(&mut stream).await, "");
    running.served.await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_inside_content_without_close_notify_commits_nothing() {
    let authority = Authority::new();
    let json = r#"{"local_domains": ["test.example"], "xclient": ["127.0.0.1"]}"#;
    let running = submissions(&authority.certify(&serde_json::from_str(json).unwrap()));
    let mut stream = connect(&running, &authority.client(), "mx.test.example").await;
    let start =
        "XCLIENT LOGIN=alice\r\nEHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n";
    stream.write_all(start.as_bytes()).await.unwrap();
    while !line(&mut stream).await.starts_with("354 ") {}
    stream.write_all(b"Subject: x\r\n\r\nx\r\n").await.unwrap();
    drop(stream);
    while running.server.connections.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((running.shelf.messages().len(), running.shelf.drafts()), (0, 0));
}

#[tokio::test]
async fn where_tls_comes_first_a_client_over_the_limit_is_told_nothing() {
    let authority = Authority::new();
    let config = authority.certify(&serde_json::from_str(r#"{"limits": {"connections": 1}}"#).unwrap());
    let running = submissions(&config);
    let _first = connect(&running, &authority.client(), "mx.test.example").await;
    let mut second = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(rest(&mut second).await, "");
}

/// Refuses everybody, and says what it knows about the certificate.
struct Certificate;

impl Hook for Certificate {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        let Query::Connect(client) = query else { panic!("nobody gets further") };
        let tls = client.tls.as_ref().unwrap();
        let text = format!("{} {} {:?}", tls.version, tls.cipher, tls.certificate);
        Asked::Now(Answer::from(Verdict::Refuse(Reply::new(554, (5, 7, 1), "").with_text(text))))
    }
}

#[tokio::test]
async fn clients_certificates_are_seen_by_hooks_if_they_are_valid_and_never_insisted_on() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let config = authority.certify(&Config::default());
    let client_ca = Some(authority.file("ca.pem", &authority.certificate()));
    let running = listen(
        &Config { client_ca, ..config.clone() },
        Mode::Submissions,
        Hooks::new(vec![Arc::new(Certificate)]),
    );
    let tls = "554 5.7.1 TLSv1.3 TLS_AES_256_GCM_SHA384";
    for (own, seen) in [
        (None, "None"),
        (Some(authority.sign("client.example")), "Some(\"CN=client.example\")"),
        (Some(stranger.sign("client.example")), "None"),
    ] {
        let mut stream = connect(&running, &authority.client_with(own.as_ref()), "mx.test.example").await;
        assert_eq!(line(&mut stream).await, format!("{tls} {seen}\r\n"));
    }
    let indifferent = listen(&config, Mode::Submissions, Hooks::new(vec![Arc::new(Certificate)]));
    let own = authority.sign("client.example");
    let mut stream = connect(&indifferent, &authority.client_with(Some(&own)), "mx.test.example").await;
    assert_eq!(line(&mut stream).await, format!("{tls} None\r\n"));
}

#[test]
fn every_fault_of_a_certificate_is_told_with_its_key_and_what_to_do() {
    let authority = Authority::new();
    let entry = authority.entry(&["*"], "mx.test.example");
    let other = authority.sign("other.example");
    let file = |name: &str, content: &str| authority.file(name, content);
    let both = |certificate, key| CertificateConfig { certificate, key, ..CertificateConfig::default() };
    let (certificate, key) = (entry.certificate.clone(), entry.key.clone());
    let passphrase = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (entry, place, message) in [
        (CertificateConfig::default(), "tls[0].certificate", "is not given: name a PEM file"),
        (both("/nowhere.pem".into(), key.clone()), "tls[0].certificate", "/nowhere.pem: No such file"),
        (both(certificate.clone(), "/nowhere.key".into()), "tls[0].key", "/nowhere.key: No such file"),
        (both(key.clone(), key.clone()), "tls[0].certificate", "there is no certificate in it"),
        (both(certificate.clone(), certificate.clone()), "tls[0].key", "there is no key in it"),
        (both(file("garbage", garbage), key.clone()), "tls[0].certificate", "can't be used"),
        (both(file("cut", cut), key.clone()), "tls[0].certificate", "give a PEM file"),
        (both(certificate.clone(), file("other", &other.key)), "tls[0].key", "belong together"),
        (both(certificate.clone(), file("secret", passphrase)), "tls[0].key", "store it without one"),
    ] {
        let problems = Tls::load(&with(vec![entry.clone()])).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{entry:?}: {problems:?}") };
        assert_eq!(problem.key, place, "{problem}");
        assert!(problem.message.contains(message), "{problem}");
        assert_eq!(with(vec![entry]).validate(), problems, "`empath check` says the same");
    }
    let config = Config { client_ca: Some(key), ..with(vec![entry]) };
    let problem = Tls::load(&config).unwrap_err().remove(0);
    assert!(problem.to_string().starts_with("client_ca: "), "{problem}");
}

#[test]
fn a_certificate_that_is_not_valid_now_is_worth_a_warning() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(["mx.test.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let Pair { certificate, key } = authority.sign_with(&params);
    let entry = CertificateConfig {
        certificate: authority.file("dated.pem", &certificate),
        key: authority.file("dated.key", &key),
        ..CertificateConfig::default()
    };
    let config = with(vec![entry]);
    let warnings = |now: &str| {
        let found = Tls::warnings(&config, now.parse().unwrap());
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(warnings("2025-01-01T00:00:00Z"), "");
    assert!(warnings("2019-12-31T00:00:00Z").starts_with("tls[0].certificate: is valid from 2020-01-01"));
    assert!(warnings("2030-01-02T00:00:00Z").starts_with("tls[0].certificate: expired at 2030-01-01"));
}
