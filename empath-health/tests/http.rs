//! The pages as a supervisor and Prometheus see them.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{net::SocketAddr, time::Duration};

use empath_health::{HttpServer, Part, Readiness, health, metrics};
use empath_metrics::Registry;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(pages: axum::Router) -> Running {
    let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), pages).await.unwrap();
    let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(server.serve(stop.clone()));
    Running { address, stop, task }
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn readiness_follows_the_parts() {
    let readiness = Readiness::new(5);
    let running = start(health(readiness.clone(), "1.2.3")).await;

    let (head, body) = get(running.address, "/health/ready").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"ready": false, "smtp": false, "spool": false, "delivery": false, "dns": false,
               "queue_size": 0, "max_queue_size": 5})
    );

    for part in [Part::Smtp, Part::Spool, Part::Delivery, Part::Dns] {
        readiness.set(part, true);
    }
    readiness.queue_size(|| 3);
    let (head, body) = get(running.address, "/health/ready").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["ready"], &body["queue_size"]), (&json!(true), &json!(3)));
}

#[tokio::test]
async fn a_daemon_that_is_not_ready_is_alive_and_tells_about_itself() {
    let running = start(health(Readiness::new(5), "1.2.3")).await;
    assert!(get(running.address, "/health/live").await.0.starts_with("HTTP/1.1 200"));
    let (head, body) = get(running.address, "/health/detailed").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["version"], "1.2.3");
    assert_eq!(body["uptime_seconds"], 0);
    assert_eq!(body["spool"], false);
    assert!(get(running.address, "/elsewhere").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn prometheus_gets_its_page_with_its_media_type() {
    let registry = Registry::default();
    registry.counter("empath_test_total", "A test.").add(2);
    let running = start(metrics(registry)).await;
    let (head, body) = get(running.address, "/metrics").await;
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.ends_with("\nempath_test_total 2\n"), "{body}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let running = start(metrics(Registry::default())).await;
    let error = HttpServer::bind(running.address, metrics(Registry::default())).await.unwrap_err();
    assert!(error.to_string().contains(&running.address.to_string()), "{error}");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let running = start(metrics(Registry::default())).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /metr").await.unwrap();
    running.stop.cancel();
    timeout(Duration::from_secs(10), running.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_from_an_answer() {
    let running = start(metrics(Registry::default())).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(running.address).await.unwrap());
    }
    let answer = timeout(Duration::from_secs(4), get(running.address, "/metrics")).await.unwrap();
    assert!(answer.0.starts_with("HTTP/1.1 200"));
    drop(idle);
}
