//! The PROXY protocol: the header alone, and listeners behind a load balancer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use empath_common::{Answer, Asked, Hook, Hooks, Query, Reply, Verdict};
use empath_smtp::server::{Config, Header, ListenerConfig, Mode, Origin, ProxyError, Server, Timeouts, Tls};
use proptest::prelude::*;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    certificates::{self, Authority},
    intake::{Shelf, Stopped},
    listener::{Running, line, rest, start},
    machine,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2.
fn binary(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[version_and_command, family], &length, rest].concat()
}

fn addresses(peer: SocketAddr, local: SocketAddr) -> (u8, Vec<u8>) {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let ports = [peer.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    let family = if peer.is_ipv4() { 0x11 } else { 0x21 };
    (family, [octets(peer.ip()), octets(local.ip()), ports].concat())
}

fn text(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = if peer.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (peer.port(), local.port());
    format!("PROXY {family} {} {} {from} {to}\r\n", peer.ip(), local.ip()).into_bytes()
}

fn origin(octets: &[u8]) -> Result<Origin, String> {
    match Header::parse(octets) {
        Ok(Header::Whole(origin, length)) if length == octets.len() => Ok(origin),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn headers_that_name_nobody_are_the_proxys_own() {
    let local: [&[u8]; 6] = [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 what ever\r\n",
        &binary(0x20, 0x00, b""),
        &binary(0x20, 0x11, b"skipped, whatever it is"),
        &binary(0x21, 0x00, b"likewise"),
        &binary(0x20, 0xff, b""),
    ];
    for octets in local {
        assert_eq!(origin(octets), Ok(Origin::Local), "{}", octets.escape_ascii());
    }
}

#[test]
fn what_is_not_a_header_to_the_letter_is_refused() {
    let good = [192, 0, 2, 1, 192, 0, 2, 25, 1, 2, 0, 25];
    let with = |extensions: &[u8]| binary(0x21, 0x11, &[&good, extensions].concat());
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    let table: [(&[u8], ProxyError); 26] = [
        (b"EHLO c.example\r\n", ProxyError::Missing),
        (b"PROXY\tTCP4", ProxyError::Missing),
        (b"proxy TCP4", ProxyError::Missing),
        (b"\r\n\r\n\0\r\nQUIT\r", ProxyError::Missing),
        (b"PROXY TCP4 192.0.2.1 192.0.2.25 1 25\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.1 192.0.2.25 1 25 \r\n", ProxyError::Malformed),
        (b"PROXY TCP4  192.0.2.1 192.0.2.25 1 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.1 192.0.2.25 1\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.1 192.0.2.25 1 65536\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.1 192.0.2.25 01 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.1 192.0.2.25 +1 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.01 192.0.2.25 1 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 ::1 ::1 1 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP6 192.0.2.1 192.0.2.25 1 25\r\n", ProxyError::Malformed),
        (b"PROXY UDP4 192.0.2.1 192.0.2.25 1 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.1 \xff 1 25\r\n", ProxyError::Malformed),
        (long.as_bytes(), ProxyError::TooLong),
        (&binary(0x11, 0x11, &good), ProxyError::Malformed),
        (&binary(0x22, 0x11, &good), ProxyError::Malformed),
        (&binary(0x21, 0x12, &good), ProxyError::Family),
        (&binary(0x21, 0x31, &[0; 216]), ProxyError::Family),
        (&binary(0x21, 0x11, &good[..11]), ProxyError::Malformed),
        (&binary(0x21, 0x21, &good), ProxyError::Malformed),
        (&with(&[1]), ProxyError::Malformed),
        (&with(&[1, 0, 5, 1, 2]), ProxyError::Malformed),
        (&binary(0x20, 0x00, &[0; 4097]), ProxyError::TooLong),
    ];
    for (octets, error) in table {
        assert_eq!(origin(octets), Err(error.to_string()), "{}", octets.escape_ascii());
    }
}

fn socket() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4], u16, u16)>().prop_map(|(a, b, p, q)| ((a, p).into(), (b, q).into())),
        any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(|(a, b, p, q)| ((a, p).into(), (b, q).into())),
    ]
}

proptest! {
    #[test]
    fn a_header_says_what_was_written_and_asks_for_no_octet_behind_it(
        (peer, local) in socket(),
        extensions in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..5),
        version_2 in any::<bool>(),
    ) {
        let octets = if version_2 {
            let (family, mut rest) = addresses(peer, local);
            for (kind, value) in extensions {
                rest.push(kind);
                rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
                rest.extend(value);
            }
            binary(0x21, family, &rest)
        } else {
            text(peer, local)
        };
        prop_assert_eq!(origin(&octets), Ok(Origin::Client { peer, local }));
        for length in 0..octets.len() {
            match Header::parse(&octets[..length]) {
                Ok(Header::Partial(more)) => prop_assert!((1..=octets.len() - length).contains(&more)),
                other => prop_assert!(false, "{} octets: {:?}", length, other),
            }
        }
        let followed = [octets.as_slice(), b"EHLO c.example\r\n"].concat();
        prop_assert!(matches!(Header::parse(&followed), Ok(Header::Whole(_, length)) if length == octets.len()));
    }

    #[test]
    fn no_octets_bring_the_parser_down(noise in prop::collection::vec(any::<u8>(), 0..200), start in 0..3_usize) {
        let start = [&b""[..], b"PROXY ", SIGNATURE][start];
        let octets = [start, &noise].concat();
        if let Ok(Header::Whole(_, length)) = Header::parse(&octets) {
            prop_assert!(length <= octets.len());
        }
    }
}

/// Refuses everybody, and says whom it sees.
struct Who;

impl Hook for Who {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        let Query::Connect(client) = query else { panic!("nobody gets further") };
        let text = format!("{} {}", client.peer, client.local);
        Asked::Now(Answer::from(Verdict::Refuse(Reply::new(554, (5, 7, 1), "").with_text(text))))
    }
}

/// A listener at which everybody from 127.0.0.1 is a load balancer.
fn balanced(
    mode: Mode,
    handshake: Duration,
    hook: Option<Arc<dyn Hook>>,
    authority: Option<&Authority>,
) -> Running {
    let json = json!({"local_domains": ["test.example"], "limits": {"connections_per_address": 1}});
    let config: Config = serde_json::from_value(json).unwrap();
    let config = authority.map_or(config.clone(), |authority| authority.certify(&config));
    let shelf = Shelf::default();
    let hooks = Hooks::new(hook.into_iter().collect());
    let server = Server::new(machine::settings(&config), hooks, shelf.clone(), Arc::new(Stopped))
        .with_tls(Tls::load(&config).unwrap());
    let listener = ListenerConfig {
        socket: "127.0.0.1:0".parse().unwrap(),
        mode,
        timeouts: Timeouts { handshake, ..Timeouts::default() },
        proxy_protocol: vec!["127.0.0.1".parse().unwrap()],
        ..ListenerConfig::default()
    };
    start(&listener, Arc::new(server), shelf)
}

const HOUR: Duration = Duration::from_hours(1);

async fn connect(running: &Running, octets: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(octets).await.unwrap();
    stream
}

#[tokio::test]
async fn the_session_is_that_of_the_client_whom_the_header_names() {
    let running = balanced(Mode::Relay, HOUR, Some(Arc::new(Who)), None);
    let (family, rest) = addresses("[2001:db8::1]:7".parse().unwrap(), "[2001:db8::25]:25".parse().unwrap());
    for (header, greeting) in [
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.25 4000 25\r\n".to_vec(),
            "554 5.7.1 192.0.2.1:4000 192.0.2.25:25\r\n",
        ),
        (binary(0x21, family, &rest), "554 5.7.1 [2001:db8::1]:7 [2001:db8::25]:25\r\n"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), "554 5.7.1 192.0.2.1:1 [::1]:2\r\n"),
    ] {
        assert_eq!(line(&mut connect(&running, &header).await).await, greeting);
    }
    let mut stream = connect(&running, &binary(0x20, 0, b"")).await;
    let own = stream.local_addr().unwrap();
    assert_eq!(line(&mut stream).await, format!("554 5.7.1 {own} {}\r\n", running.address));
}

#[tokio::test]
async fn a_load_balancer_that_does_not_say_whom_it_speaks_for_is_told_nothing() {
    let running = balanced(Mode::Relay, HOUR, None, None);
    for octets in [&b"EHLO c.example\r\n"[..], b"\r\nNOOP\r\n", b"PROXY TCP4 x\r\nEHLO c.example\r\n"] {
        let mut stream = connect(&running, octets).await;
        let mut nothing = Vec::new();
        // Unread octets may make it a reset.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut nothing).await;
        assert_eq!(nothing, b"", "{}", octets.escape_ascii());
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_ends_at_the_deadline() {
    let running = balanced(Mode::Relay, Duration::from_millis(1), None, None);
    assert_eq!(rest(&mut connect(&running, b"").await).await, "");
}

#[tokio::test]
async fn what_follows_the_header_at_once_is_not_lost() {
    let running = balanced(Mode::Relay, HOUR, None, None);
    let mut stream = connect(&running, b"PROXY UNKNOWN\r\nNOOP\r\nQUIT\r\n").await;
    let replies = rest(&mut stream).await;
    let codes: Vec<_> = replies.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "250", "221"]);
}

#[tokio::test]
async fn the_header_comes_before_the_handshake() {
    let authority = Authority::new();
    let running = balanced(Mode::Submissions, HOUR, Some(Arc::new(Who)), Some(&authority));
    let stream = connect(&running, b"PROXY TCP4 192.0.2.1 192.0.2.25 4000 465\r\n").await;
    let mut stream = certificates::handshake(&authority.client(), "mx.test.example", stream).await.unwrap();
    assert_eq!(line(&mut stream).await, "554 5.7.1 192.0.2.1:4000 192.0.2.25:465\r\n");
}

#[tokio::test]
async fn limits_by_address_are_those_of_clients_and_not_of_the_load_balancer() {
    let running = balanced(Mode::Relay, HOUR, None, None);
    let mut greetings = Vec::new();
    let mut open = Vec::new();
    for peer in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
        let header = format!("PROXY TCP4 {peer} 192.0.2.25 4000 25\r\n");
        let mut stream = connect(&running, header.as_bytes()).await;
        greetings.push(line(&mut stream).await[..3].to_owned());
        open.push(stream);
    }
    assert_eq!(greetings, ["220", "220", "421"]);
}
