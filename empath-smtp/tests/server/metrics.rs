//! What operators see of a session.

use std::{sync::Arc, time::Duration};

use empath_common::{Asked, Domain, Hook, Hooks, Query, Verdict};
use empath_metrics::Registry;
use empath_smtp::server::{Config, Metrics, Mode, Server, Session, Settings, Timeouts, Tls, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::{Authority, handshake},
    intake::{Shelf, Stopped},
    listener::line,
    machine,
    script::default_config,
};

#[tokio::test]
async fn a_session_is_counted_with_its_message_and_its_errors() {
    let config: Config = serde_json::from_value(default_config()).unwrap();
    let registry = Registry::default();
    let settings = Settings::new(&config, Domain::parse("mx.test.example").unwrap(), Metrics::new(&registry));
    assert!(
        registry.encode().contains("empath_smtp_errors_total{code=\"550\"} 0"),
        "zero is there from the start"
    );
    let hooks = machine::hooks(&config, Vec::new());
    let server = Server::new(settings, hooks, Shelf::default(), Arc::new(Stopped));
    let session = Session::new(
        Arc::clone(&server.settings),
        Mode::Relay,
        machine::client("203.0.113.9".parse().unwrap()),
    );
    let (mut client, stream) = duplex(4096);
    let admitted = server.connections.admit("203.0.113.9".parse().unwrap()).unwrap();
    assert!(registry.encode().contains("empath_smtp_connections_active 1\n"));
    let commands = "EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<a@other.example>\r\nRCPT TO:<b@test.example>\r\n\
        DATA\r\n12345678\r\n.\r\nX{x=\"y\"}\r\nQUIT\r\n";
    let spoken = async {
        client.write_all(commands.as_bytes()).await.unwrap();
        client.read_to_string(&mut String::new()).await.unwrap();
        drop(client);
    };
    let (timeouts, stop) = (Timeouts::default(), CancellationToken::new());
    tokio::join!(serve(stream, session, &server, &timeouts, &stop), spoken);
    drop(admitted);
    let text = registry.encode();
    for line in [
        "empath_smtp_connections_total 1",
        "empath_smtp_connections_active 0",
        "empath_smtp_messages_received_total 1",
        "empath_smtp_message_size_bytes_sum 10",
        "empath_smtp_errors_total{code=\"550\"} 1",
        "empath_smtp_errors_total{code=\"421\"} 0",
        "empath_smtp_session_duration_seconds_count 1",
        "empath_smtp_command_duration_seconds_count{command=\"MAIL\"} 1",
        "empath_smtp_command_duration_seconds_count{command=\"RCPT\"} 2",
        "empath_smtp_command_duration_seconds_count{command=\"DATA\"} 1",
        "empath_smtp_command_duration_seconds_count{command=\"end of data\"} 1",
        "empath_smtp_command_duration_seconds_count{command=\"QUIT\"} 1",
        "empath_smtp_command_duration_seconds_count{command=\"other\"} 1",
        "empath_smtp_command_duration_seconds_count{command=\"NOOP\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

/// Waits for a hook, as for a plugin module.
struct Slow;

impl Hook for Slow {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        match query {
            Query::MailFrom(..) => Asked::Later(Box::pin(async {
                sleep(Duration::from_secs(3)).await;
                Verdict::Accept.into()
            })),
            _ => Asked::Now(Verdict::Accept.into()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_command_is_ours_and_not_the_clients() {
    let (config, registry) = (Config::default(), Registry::default());
    let settings = Settings::new(&config, Domain::parse("mx.test.example").unwrap(), Metrics::new(&registry));
    let hooks = Hooks::new(vec![Arc::new(Slow)]);
    let server = Server::new(settings, hooks, Shelf::default(), Arc::new(Stopped));
    let client = machine::client("203.0.113.9".parse().unwrap());
    let session = Session::new(Arc::clone(&server.settings), Mode::Relay, client);
    let (mut client, stream) = duplex(4096);
    let spoken = async {
        for line in ["EHLO c.example\r\nMA", "IL FROM:<>\r\n", "RSET\r\n", "QUIT\r\n"] {
            sleep(Duration::from_mins(1)).await;
            client.write_all(line.as_bytes()).await.unwrap();
        }
        client.read_to_string(&mut String::new()).await.unwrap();
        drop(client);
    };
    let (timeouts, stop) = (Timeouts::default(), CancellationToken::new());
    tokio::join!(serve(stream, session, &server, &timeouts, &stop), spoken);
    let text = registry.encode();
    let seconds = |command: &str| {
        let name = format!("empath_smtp_command_duration_seconds_sum{{command=\"{command}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap()
    };
    assert_eq!(["EHLO", "MAIL", "RSET", "QUIT"].map(seconds), ["0", "3", "0", "0"]);
}

/// Serves a client of the port for TLS; the metrics afterwards.
async fn tls<F: Future<Output = ()>>(speak: impl FnOnce(DuplexStream, Authority) -> F) -> String {
    let (authority, registry) = (Authority::new(), Registry::default());
    let config = authority.certify(&Config::default());
    let settings = Settings::new(&config, Domain::parse("mx.test.example").unwrap(), Metrics::new(&registry));
    let server = Server::new(settings, Hooks::default(), Shelf::default(), Arc::new(Stopped))
        .with_tls(Tls::load(&config).unwrap());
    let client = machine::client("203.0.113.9".parse().unwrap());
    let session = Session::new(Arc::clone(&server.settings), Mode::Submissions, client);
    let (client, stream) = duplex(4096);
    let (timeouts, stop) = (Timeouts::default(), CancellationToken::new());
    tokio::join!(serve(stream, session, &server, &timeouts, &stop), speak(client, authority));
    let text = registry.encode();
    text.lines().filter(|line| line.starts_with("empath_smtp_tls_") && !line.ends_with(" 0")).collect()
}

#[tokio::test(start_paused = true)]
async fn handshakes_are_counted_by_version_or_by_what_went_wrong() {
    let modern = tls(async |stream, authority| {
        line(&mut handshake(&authority.client(), "mx.test.example", stream).await.unwrap()).await;
    });
    assert_eq!(modern.await, "empath_smtp_tls_sessions_total{version=\"TLSv1.3\"} 1");
    let old = tls(async |stream, authority| {
        line(&mut handshake(&authority.old_client(), "mx.test.example", stream).await.unwrap()).await;
    });
    assert_eq!(old.await, "empath_smtp_tls_sessions_total{version=\"TLSv1.2\"} 1");
    let garbage = tls(async |mut stream, _| {
        stream.write_all(b"EHLO c.example\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(garbage.await, "empath_smtp_tls_handshake_failures_total{reason=\"protocol\"} 1");
    let gone = tls(async |stream, _| drop(stream));
    assert_eq!(gone.await, "empath_smtp_tls_handshake_failures_total{reason=\"closed\"} 1");
    let silent = tls(async |mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(silent.await, "empath_smtp_tls_handshake_failures_total{reason=\"timeout\"} 1");
}
