//! What operators see of a session.

use std::sync::Arc;

use empath_common::Domain;
use empath_metrics::Registry;
use empath_smtp::server::{Config, Metrics, Mode, Server, Session, Settings, Timeouts, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

use crate::{
    intake::{Shelf, Stopped},
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
        DATA\r\n12345678\r\n.\r\nQUIT\r\n";
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
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
