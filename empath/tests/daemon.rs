//! The real binary: what it promises about accepted mail, across kills, restarts and orders to stop.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the test"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use empath_testkit::{
    daemon::Daemon,
    peer::{Act, At, Peer, Script},
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A client that says what it is told and keeps the replies.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.reply();
        client.say("EHLO client.test");
        client
    }

    /// The last line of the reply.
    fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// Sends a message to these recipients and returns its id.
    fn send(&mut self, recipients: &[&str], subject: &str) -> String {
        self.say("MAIL FROM:<alice@home.test>");
        for recipient in recipients {
            assert!(self.say(&format!("RCPT TO:<{recipient}>")).starts_with("250 "), "{recipient}");
        }
        self.say("DATA");
        let reply = self.say(&format!("Subject: {subject}\r\n\r\nA line.\r\n..dotted\r\n."));
        let id = reply.strip_prefix("250 2.0.0 Ok: queued as ").unwrap_or_else(|| panic!("{reply}"));
        id.trim_end().to_owned()
    }
}

/// A daemon that sends mail for `example.test` to `next_hop`.
fn daemon(next_hop: SocketAddr, retry: &str) -> Daemon {
    Daemon::builder(env!("CARGO_BIN_EXE_empath"))
        .empathctl(env!("CARGO_BIN_EXE_empathctl"))
        .key(
            "delivery",
            &format!(
                r#"(retry: (base_delay: "{retry}", jitter: 0.0), smtp_timeouts: (quit: "1s"),
                    domains: {{"example.test": (mx_override: "{next_hop}")}})"#
            ),
        )
        .start()
}

fn recipient(daemon: &Daemon, id: &str) -> Value {
    let view = daemon.ctl(&["queue", "view", id]);
    view[0]["recipients"][0].clone()
}

#[test]
fn a_message_reaches_the_next_hop_with_its_content_octet_for_octet() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    let daemon = daemon(peer.address(), "1h");
    let id = Client::connect(daemon.smtp_address()).send(&["bob@example.test"], "one");
    let messages = runtime.block_on(peer.wait_for_messages(1));
    let content = String::from_utf8(messages[0].content.clone()).unwrap();
    let (trace, rest) = content.split_once("Subject:").unwrap();
    assert!(trace.starts_with("Received: from client.test ([127.0.0.1])"), "{trace}");
    assert!(trace.contains(&id) && trace.contains("for <bob@example.test>"), "{trace}");
    assert_eq!(rest, " one\r\n\r\nA line.\r\n.dotted\r\n");
    daemon.wait_for_line("delivered", |line| line["message_id"] == id.as_str());
}

#[test]
fn a_message_answered_250_survives_kill_9() {
    let runtime = Runtime::new().unwrap();
    let stalls = Script::new().on(At::Greeting, Act::Stall);
    let mut peer = runtime.block_on(Peer::start(stalls)).unwrap();
    let mut daemon = daemon(peer.address(), "1h");
    let id = Client::connect(daemon.smtp_address()).send(&["bob@example.test"], "one");
    daemon.kill();
    runtime.block_on(peer.restart_with(Script::new())).unwrap();
    daemon.restart();
    assert_eq!(runtime.block_on(peer.wait_for_messages(1)).len(), 1);
    daemon.wait_for_line("delivered", |line| line["message_id"] == id.as_str());
}

#[test]
fn a_restart_changes_neither_attempts_nor_due_times() {
    let runtime = Runtime::new().unwrap();
    let mut peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    runtime.block_on(peer.stop());
    let mut daemon = daemon(peer.address(), "1h");
    let id = Client::connect(daemon.smtp_address()).send(&["bob@example.test"], "one");
    daemon.wait_for_line("deferred", |line| line["message_id"] == id.as_str());
    let before = recipient(&daemon, &id);
    assert_eq!((&before["status"], &before["attempts"]), (&"deferred".into(), &1.into()));
    assert!(before["next_attempt_at"].is_string(), "{before}");
    assert!(before["last_reply"]["text"].as_str().unwrap().contains("refused"), "{before}");
    daemon.kill();
    daemon.restart();
    assert_eq!(recipient(&daemon, &id), before);
    runtime.block_on(peer.restart()).unwrap();
    assert_eq!(daemon.ctl(&["queue", "retry", &id])[0]["changed"], 1);
    assert_eq!(runtime.block_on(peer.wait_for_messages(1)).len(), 1);
}

#[test]
fn an_order_to_stop_lets_a_transaction_in_flight_finish() {
    let runtime = Runtime::new().unwrap();
    let slow = Script::new().on(At::EndOfData, Act::Delay(Duration::from_secs(1)));
    let peer = runtime.block_on(Peer::start(slow)).unwrap();
    let mut daemon = daemon(peer.address(), "1h");
    Client::connect(daemon.smtp_address()).send(&["bob@example.test"], "one");
    runtime.block_on(peer.wait_for_connections(1));
    assert!(daemon.terminate().success());
    assert!(daemon.log().contains(r#""message":"delivered""#), "the transaction was finished");
    daemon.restart();
    assert_eq!(daemon.ctl(&["queue", "list"]), Vec::<Value>::new(), "and its result was kept");
}

#[test]
fn a_client_that_leaves_in_mid_content_leaves_nothing_behind() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    let daemon = daemon(peer.address(), "1h");
    let mut client = Client::connect(daemon.smtp_address());
    client.say("MAIL FROM:<alice@home.test>");
    client.say("RCPT TO:<bob@example.test>");
    client.say("DATA");
    client.0.get_mut().write_all(b"Subject: half\r\n\r\nNo end of data\r\n.").unwrap();
    drop(client);
    let id = Client::connect(daemon.smtp_address()).send(&["bob@example.test"], "whole");
    runtime.block_on(peer.wait_for_messages(1));
    daemon.wait_for_line("delivered", |line| line["message_id"] == id.as_str());
    assert_eq!(daemon.log().matches(r#""message":"received""#).count(), 1);
}

#[test]
fn a_second_daemon_on_the_same_spool_names_the_first_and_does_not_start() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    let first = daemon(peer.address(), "1h");
    let text = std::fs::read_to_string(first.config_file()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("empath.config.ron");
    let spool = format!("spool: (path: \"{}\"),", first.dir().join("spool").display());
    let free = "smtp: (listeners: [(socket: \"127.0.0.1:0\")]), health: (enabled: false), metrics: (enabled: false),";
    assert!(text.contains("spool"), "{text}");
    std::fs::write(&config, format!("Empath({free} {spool} control_socket: \"control.sock\")")).unwrap();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_empath"));
    let output = second.arg("--config").arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
}

#[test]
fn without_the_space_that_must_be_free_mail_is_refused_and_delivery_goes_on() {
    let runtime = Runtime::new().unwrap();
    let mut peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    runtime.block_on(peer.stop());
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_empath"))
        .empathctl(env!("CARGO_BIN_EXE_empathctl"))
        .smtp("limits", r#"(min_free_space: "0")"#)
        .key("delivery", &format!(r#"(domains: {{"example.test": (mx_override: "{}")}})"#, peer.address()))
        .start();
    let id = Client::connect(daemon.smtp_address()).send(&["bob@example.test"], "one");
    daemon.wait_for_line("deferred", |line| line["message_id"] == id.as_str());
    let config = std::fs::read_to_string(daemon.config_file()).unwrap();
    std::fs::write(daemon.config_file(), config.replace(r#""0""#, r#""1000TiB""#)).unwrap();
    daemon.restart();

    let mut client = Client::connect(daemon.smtp_address());
    for _ in 0..3 {
        assert!(client.say("MAIL FROM:<alice@home.test>").starts_with("452 4.3.1 "));
        assert!(client.say("NOOP").starts_with("250 "));
    }
    let (status, body) = daemon.get(daemon.health_address(), "/health/ready");
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &report["spool"], &report["smtp"]), (503, &false.into(), &true.into()));
    let (_, metrics) = daemon.get(daemon.metrics_address(), "/metrics");
    assert!(metrics.contains("\nempath_smtp_short_of_space 1\n"), "{metrics}");
    assert!(metrics.contains("\nempath_smtp_short_of_space_refusals_total 3\n"), "{metrics}");
    assert_eq!(daemon.log().matches("is short of space").count(), 1);

    runtime.block_on(peer.restart()).unwrap();
    assert_eq!(daemon.ctl(&["queue", "retry", &id])[0]["changed"], 1);
    assert_eq!(runtime.block_on(peer.wait_for_messages(1)).len(), 1);
}

#[test]
fn a_restart_says_how_much_it_has_recovered_and_shows_all_of_it_at_once() {
    let runtime = Runtime::new().unwrap();
    let mut peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    runtime.block_on(peer.stop());
    let mut daemon = daemon(peer.address(), "1h");
    let mut client = Client::connect(daemon.smtp_address());
    for n in 0..20 {
        client.send(&["bob@example.test"], &n.to_string());
    }
    daemon.restart();
    assert_eq!(daemon.ctl(&["queue", "list"]).len(), 20);
    assert_eq!(daemon.wait_for("queue recovered")["messages"], 20);
    let status = daemon.ctl(&["system", "status"]);
    assert_eq!((&status[0]["queue_size"], &status[0]["recovering"]), (&20.into(), &0.into()));
}
