//! The real binary and the DNS: what an operator sees of it, and does about it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what goes wrong here fails the test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Command,
    thread,
};

use empath_testkit::{
    daemon::Daemon,
    peer::{Peer, Script},
    zone::{Zone, ZoneServer},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const ZONE: &str = "
    example.test.     120 MX 10 mx.example.test.
    example.test.     120 MX 20 gone.example.test.
    mx.example.test.  240 A 127.0.0.1
    broken.test.      SERVFAIL
";

fn daemon(servers: SocketAddr, mx_port: u16) -> Daemon {
    let delivery = format!(
        r#"(mx_port: {mx_port}, smtp_timeouts: (quit: "1s"),
            dns: (servers: ["{servers}"], timeout: "300ms", attempts: 1))"#
    );
    Daemon::builder(env!("CARGO_BIN_EXE_empath"))
        .empathctl(env!("CARGO_BIN_EXE_empathctl"))
        .key("delivery", &delivery)
        .start()
}

/// Hands a message in for one recipient.
fn send(daemon: &Daemon, recipient: &str) {
    let mut client = BufReader::new(TcpStream::connect(daemon.smtp_address()).unwrap());
    let mut reply = String::new();
    client.read_line(&mut reply).unwrap();
    for line in
        ["HELO c.test", "MAIL FROM:<>", &format!("RCPT TO:<{recipient}>"), "DATA", "Subject: x\r\n\r\n."]
    {
        write!(client.get_mut(), "{line}\r\n").unwrap();
        reply.clear();
        client.read_line(&mut reply).unwrap();
        assert!(reply.starts_with(['2', '3']), "{line}: {reply}");
    }
}

/// What `empathctl` prints for people.
fn text(daemon: &Daemon, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_empathctl"));
    let output = command.arg("-c").arg(daemon.control_socket()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn entries(daemon: &Daemon) -> u64 {
    daemon.ctl(&["system", "status"])[0]["dns_cache_entries"].as_u64().unwrap()
}

#[test]
fn what_is_remembered_of_the_dns_is_shown_cleared_refreshed_and_counted() {
    let runtime = Runtime::new().unwrap();
    let peer = runtime.block_on(Peer::start(Script::new())).unwrap();
    let names = runtime.block_on(ZoneServer::start(Zone::parse(ZONE)));
    let daemon = daemon(names.address(), peer.address().port());
    assert_eq!(entries(&daemon), 0);
    send(&daemon, "bob@example.test");
    runtime.block_on(peer.wait_for_messages(1));
    send(&daemon, "bob@broken.test");
    daemon.wait_for("deferred");

    let listed = daemon.ctl(&["dns", "list-cache", "--domain", "Example.TEST"]);
    let shown: Vec<_> =
        listed.iter().map(|answer| json!([answer["name"], answer["type"], answer["records"]])).collect();
    assert_eq!(
        shown,
        [
            json!(["example.test", "MX", ["10 mx.example.test", "20 gone.example.test"]]),
            json!(["mx.example.test", "A", ["127.0.0.1"]]),
            json!(["mx.example.test", "AAAA", []]),
        ]
    );
    let ttl = listed[0]["expires_in_seconds"].as_u64().unwrap();
    assert!((60..=120).contains(&ttl), "{ttl}");
    assert_eq!(listed[2]["error"], "nodata");
    assert_eq!(entries(&daemon), 4);
    let table = text(&daemon, &["dns", "list-cache"]);
    assert!(
        table.contains("ANSWER") && table.contains("10 mx.example.test, 20 gone.example.test"),
        "{table}"
    );
    assert!(text(&daemon, &["system", "status"]).contains("dns cache    4 answers"));

    let (_, metrics) = daemon.get(daemon.metrics_address(), "/metrics");
    for line in [
        "empath_dns_cache_entries 4",
        "empath_dns_cache_misses_total 4",
        "empath_dns_cache_evictions_total 0",
        "empath_dns_errors_total{error=\"servfail\"} 1",
        "empath_dns_errors_total{error=\"timeout\"} 0",
        "empath_dns_lookup_duration_seconds_count 4",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }

    // What has changed is seen at once.
    names.replace(Zone::parse(&ZONE.replace("127.0.0.1", "127.0.0.9")));
    assert_eq!(daemon.ctl(&["dns", "list-cache"])[2]["records"], json!(["127.0.0.1"]));
    let refreshed = daemon.ctl(&["dns", "refresh", "example.test"]);
    let first = json!({"domain": "example.test", "preference": 10, "host": "mx.example.test",
                       "addresses": ["127.0.0.9"], "error": null});
    assert_eq!(refreshed[0], first);
    assert_eq!(refreshed[1]["error"], "the domain gone.example.test does not exist");
    assert!(text(&daemon, &["dns", "refresh", "example.test"]).contains("mx.example.test    127.0.0.9"));
    let failed = daemon.ctl_output(&["dns", "refresh", "broken.test"]);
    assert_eq!(failed.status.code(), Some(1));

    assert_eq!(daemon.ctl(&["dns", "clear-cache", "--domain", "example.test"]), [json!({"cleared": 5})]);
    assert_eq!(text(&daemon, &["dns", "clear-cache"]), "1 answers are forgotten\n");
    assert_eq!(entries(&daemon), 0);
    daemon.wait_for_line("control command", |line| line["command"] == "dns.cache.clear");
}

#[test]
fn an_operator_sends_mail_for_a_domain_elsewhere_while_the_daemon_runs() {
    let runtime = Runtime::new().unwrap();
    let elsewhere = runtime.block_on(Peer::start(Script::new())).unwrap();
    let names = runtime.block_on(ZoneServer::start(Zone::parse(ZONE)));
    let daemon = daemon(names.address(), 25);
    // It waits for its next attempt, and goes there then.
    send(&daemon, "bob@broken.test");
    daemon.wait_for("deferred");
    let host = elsewhere.address().to_string();
    let set = json!({"domain": "broken.test", "host": host});
    assert_eq!(daemon.ctl(&["dns", "set-override", "broken.test", &host]), std::slice::from_ref(&set));
    assert_eq!(daemon.ctl(&["dns", "list-overrides"]), std::slice::from_ref(&set));
    let hop = |daemon: &Daemon| daemon.ctl(&["queue", "list"])[0]["recipients"][0]["next_hop"].clone();
    assert_eq!(hop(&daemon), format!("smtp:{host}").as_str());
    daemon.ctl(&["queue", "retry", "--domain", "broken.test"]);
    runtime.block_on(elsewhere.wait_for_messages(1));

    assert_eq!(
        text(&daemon, &["dns", "remove-override", "broken.test"]),
        format!("mail for broken.test no longer goes to {host}\n")
    );
    assert_eq!(daemon.ctl(&["dns", "list-overrides"]), [Value::Null; 0]);
    assert_eq!(daemon.ctl_output(&["dns", "remove-override", "broken.test"]).status.code(), Some(1));
    send(&daemon, "carol@broken.test");
    daemon.wait_for_line("deferred", |line| line["recipient"] == "carol@broken.test");
    assert_eq!(hop(&daemon), "mx:broken.test");
}

#[test]
fn a_daemon_whose_name_servers_answer_nothing_is_not_ready() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let daemon = daemon(silent.local_addr().unwrap(), 25);
    let dns = |daemon: &Daemon| {
        let (status, body) = daemon.get(daemon.health_address(), "/health/ready");
        (status, serde_json::from_str::<Value>(&body).unwrap()["dns"].clone())
    };
    assert_eq!(dns(&daemon), (200, json!(true)));
    for domain in ["a.test", "b.test", "c.test"] {
        send(&daemon, &format!("bob@{domain}"));
    }
    daemon.wait_for("the name servers don't answer: mail whose next hop must be looked up waits");
    assert_eq!(dns(&daemon), (503, json!(false)));
    // Any answer will do.
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = silent.recv_from(&mut query) {
            // A response, REFUSED.
            (query[2], query[3]) = (0x80, 5);
            silent.send_to(&query[..length], client).unwrap();
        }
    });
    daemon.wait_for("the name servers answer again");
    assert_eq!(dns(&daemon), (200, json!(true)));
}
