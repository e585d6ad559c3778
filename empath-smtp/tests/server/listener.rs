//! Listeners and their sessions over real sockets.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use empath_common::{Answer, Asked, Hook, Hooks, Query, Reply, Verdict};
use empath_smtp::server::{Authenticator, Config, Listener, ListenerConfig, Server, Tls};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::Authority,
    intake::{Shelf, Stopped},
    machine, users,
};

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) server: Arc<Server<Shelf>>,
    pub(crate) shelf: Shelf,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
}

/// A listener on a free port whose clients, at 127.0.0.1, are outsiders.
fn run(limits: &Value) -> Running {
    let json = json!({"relay_networks": [], "local_domains": ["test.example"], "limits": limits});
    let config: Config = serde_json::from_value(json).unwrap();
    let shelf = Shelf::default();
    let server = Arc::new(machine::server(&config, &shelf));
    start(&listener(BTreeMap::new()), server, shelf)
}

fn listener(context: BTreeMap<String, String>) -> ListenerConfig {
    ListenerConfig { socket: "127.0.0.1:0".parse().unwrap(), context, ..ListenerConfig::default() }
}

pub(crate) fn start(config: &ListenerConfig, server: Arc<Server<Shelf>>, shelf: Shelf) -> Running {
    let listener = Listener::bind(config).unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let served =
        tokio::spawn(listener.serve(watch::Sender::new(Arc::clone(&server)).subscribe(), stop.clone()));
    Running { address, server, shelf, stop, served }
}

/// A line, or what comes before the server closes.
pub(crate) async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        match stream.read_u8().await {
            Ok(octet) => line.push(octet),
            Err(_) => break,
        }
    }
    String::from_utf8(line).unwrap()
}

async fn connect(running: &Running) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let greeting = line(&mut stream).await;
    (stream, greeting)
}

/// Everything until the server closes.
pub(crate) async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn fifty_recipients_in_one_segment_have_fifty_two_replies() {
    let running = run(&json!({}));
    let (mut stream, _) = connect(&running).await;
    stream.write_all(b"EHLO c.example\r\n").await.unwrap();
    while !line(&mut stream).await.starts_with("250 ") {}
    let recipients: Vec<_> = (0..50).map(|n| format!("RCPT TO:<u{n}@test.example>\r\n")).collect();
    let recipients = recipients.concat();
    stream.write_all(format!("MAIL FROM:<a@o.example>\r\n{recipients}DATA\r\n").as_bytes()).await.unwrap();
    let mut replies = Vec::new();
    for _ in 0..52 {
        replies.push(line(&mut stream).await);
    }
    assert!(replies[0].starts_with("250 2.1.0"));
    assert!(replies[1..51].iter().all(|reply| reply.starts_with("250 2.1.5")));
    assert!(replies[51].starts_with("354 "));
    stream.write_all(b"x\r\n.\r\nQUIT\r\n").await.unwrap();
    let farewell = rest(&mut stream).await;
    assert!(farewell.starts_with("250 2.0.0 Ok: queued as ") && farewell.ends_with("221 2.0.0 Bye\r\n"));
    assert_eq!(running.shelf.messages()[0].0.recipients().len(), 50);
}

#[tokio::test]
async fn a_client_over_the_limit_of_its_address_is_told_so_until_a_session_ends() {
    let running = run(&json!({"connections_per_address": 1}));
    let (mut first, greeting) = connect(&running).await;
    assert!(greeting.starts_with("220 "), "{greeting}");
    let (mut second, refusal) = connect(&running).await;
    assert_eq!(refusal, "421 4.7.0 Too many connections from your address\r\n");
    assert_eq!(rest(&mut second).await, "");
    first.write_all(b"QUIT\r\n").await.unwrap();
    rest(&mut first).await;
    drop(first);
    while running.server.connections.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(connect(&running).await.1.starts_with("220 "));
}

#[tokio::test]
async fn a_client_over_the_limit_of_all_is_told_so() {
    let running = run(&json!({"connections": 1}));
    let (_first, _) = connect(&running).await;
    assert_eq!(connect(&running).await.1, "421 4.3.2 Too many connections; try again later\r\n");
}

#[tokio::test]
async fn a_client_gone_inside_content_commits_nothing_and_the_next_is_served() {
    let running = run(&json!({}));
    let (mut stream, _) = connect(&running).await;
    let start = "EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n";
    stream.write_all(start.as_bytes()).await.unwrap();
    while !line(&mut stream).await.starts_with("354 ") {}
    stream.write_all(b"Subject: x\r\n\r\nx\r\n").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    while running.server.connections.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((running.shelf.messages().len(), running.shelf.drafts()), (0, 0));
    assert!(connect(&running).await.1.starts_with("220 "));
}

#[tokio::test]
async fn the_last_reply_arrives_although_the_client_sent_more() {
    let running = run(&json!({"errors": 1}));
    let (mut stream, _) = connect(&running).await;
    stream.write_all("BAD\r\n".repeat(5000).as_bytes()).await.unwrap();
    let replies = rest(&mut stream).await;
    assert_eq!(replies.lines().count(), 2, "{replies}");
    assert!(replies.ends_with("421 4.7.0 Too many errors; closing connection\r\n"), "{replies}");
}

#[tokio::test]
async fn a_stopped_listener_takes_nobody_and_ends_with_its_sessions() {
    let running = run(&json!({}));
    let (mut stream, _) = connect(&running).await;
    running.stop.cancel();
    assert_eq!(rest(&mut stream).await, "421 4.3.2 Service shutting down; closing connection\r\n");
    drop(stream);
    timeout(Duration::from_secs(10), running.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let running = run(&json!({}));
    let taken = ListenerConfig { socket: running.address, ..ListenerConfig::default() };
    let error = Listener::bind(&taken).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", running.address)), "{error}");
}

#[tokio::test]
async fn a_wildcard_ipv6_listener_takes_ipv4_clients_and_sees_them_as_such() {
    /// Greets nobody, and says whom it sees.
    struct Who;
    impl Hook for Who {
        fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
            let Query::Connect(client) = query else { panic!("nobody gets further") };
            let text = format!("{} {:?}", client.peer.ip(), client.context.get("service"));
            Asked::Now(Answer::from(Verdict::Refuse(Reply::new(554, (5, 7, 1), "").with_text(text))))
        }
    }
    let config = Config::default();
    let shelf = Shelf::default();
    let hooks = Hooks::new(vec![Arc::new(Who)]);
    let server = Server::new(machine::settings(&config), hooks, shelf.clone(), Arc::new(Stopped));
    let context = BTreeMap::from([("service".to_owned(), "smtp".to_owned())]);
    let wildcard = ListenerConfig { socket: "[::]:0".parse().unwrap(), ..listener(context) };
    let mut running = start(&wildcard, Arc::new(server), shelf);
    running.address.set_ip("127.0.0.1".parse().unwrap());
    assert_eq!(connect(&running).await.1, "554 5.7.1 127.0.0.1 Some(\"smtp\")\r\n");
}

#[tokio::test]
async fn somebody_who_is_no_load_balancer_can_not_speak_for_others() {
    let running = run(&json!({}));
    let (mut stream, _) = connect(&running).await;
    stream.write_all(b"PROXY TCP4 198.51.100.7 192.0.2.25 4000 25\r\nQUIT\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await, "500 5.5.1 Command not recognized\r\n221 2.0.0 Bye\r\n");
}

#[tokio::test]
async fn a_client_may_reset_in_every_state_and_the_next_is_served() {
    let authority = Authority::new();
    let json = json!({
        "local_domains": ["test.example"],
        "auth": {"users_file": authority.file("users", users::FILE), "require_tls": false},
    });
    let config = authority.certify(&serde_json::from_value(json).unwrap());
    let shelf = Shelf::default();
    let server = machine::server(&config, &shelf)
        .with_tls(Tls::load(&config).unwrap())
        .with_auth(Authenticator::load(&config.auth).unwrap());
    let running = start(&listener(BTreeMap::new()), Arc::new(server), shelf);
    let mail = "EHLO c.example\r\nMAIL FROM:<>\r\n";
    let rcpt = format!("{mail}RCPT TO:<b@test.example>\r\n");
    for (said, heard) in [
        ("", "220"),
        ("EH", "220"),
        ("EHLO c.example\r\n", "250 "),
        ("EHLO c.example\r\nAUTH SCRAM-SHA-256 biwsbj11LHI9eA==\r\n", "334"),
        ("EHLO c.example\r\nAUTH PLAIN\r\nAAAA", "334"),
        ("EHLO c.example\r\nSTARTTLS\r\n", "220 2.0.0"),
        ("EHLO c.example\r\nSTARTTLS\r\n\x16\x03", "220 2.0.0"),
        (mail, "250 2.1.0"),
        (&rcpt, "250 2.1.5"),
        (&format!("{rcpt}DATA\r\n"), "354"),
        (&format!("{rcpt}DATA\r\nSubject: x\r\n\r\nx\r\n."), "354"),
        (&format!("{rcpt}DATA\r\nSubject: x\nx"), "354"),
        ("QUIT\r\n", "221"),
    ] {
        for reset in [true, false] {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            while !line(&mut stream).await.starts_with(heard) {}
            if reset {
                stream.set_zero_linger().unwrap();
            } else {
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            drop(stream);
            while running.server.connections.count() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!((running.shelf.messages().len(), running.shelf.drafts()), (0, 0), "{said:?}");
        }
    }
    assert!(connect(&running).await.1.starts_with("220 "));
}
