//! The protocol over a real socket: what `socat` sees, and what the client makes of it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use empath_control::{
    Answers, Changed, Client, ClientError, ControlServer, Failure, FailureCode, Handler, Pong, Request,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Answers `list` with as many objects as its limit says, knows no message, and has never had so much to say as
/// about statistics.
struct Fake;

impl Handler for Fake {
    async fn handle(&self, request: Request, answers: &mut Answers) -> Result<(), Failure> {
        match request {
            Request::Ping {} => answers.send(&Pong { pong: true, version: "1.2.3".to_owned() }).await,
            Request::List { limit, .. } => {
                for n in 0..limit.unwrap_or(0) {
                    answers.send(&json!({ "n": n, "pad": "x".repeat(1000) })).await?;
                }
                Ok(())
            }
            Request::Stats {} => answers.send(&"x".repeat(17 << 20)).await,
            Request::Retry { .. } => answers.send(&Changed { matched: 2, changed: 1 }).await,
            Request::SpoolVerify {} => {
                answers.during(sleep(Duration::from_hours(1))).await?;
                answers.send(&json!({ "clean": true })).await
            }
            _ => Err(Failure::new(FailureCode::NotFound, "there is no such message")),
        }
    }
}

struct Running {
    directory: TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = ControlServer::bind(&directory.path().join("control.sock")).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(Arc::new(Fake), stop.clone()));
        Self { directory, stop, task }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    async fn raw(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.path()).await.unwrap())
    }
}

async fn line(stream: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_in_order() {
    let running = Running::start();
    let mut stream = running.raw().await;
    let requests = concat!(
        r#"{"v":1,"command":"system.ping"}"#,
        "\n",
        r#"{"v":1,"command":"queue.view","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}"#,
        "\n",
        "nonsense\n",
        r#"{"v":7,"command":"system.ping"}"#,
        "\n",
        r#"{"v":1,"command":"queue.retry","messages":"all"}"#,
        "\n",
    );
    stream.write_all(requests.as_bytes()).await.unwrap();
    assert_eq!(line(&mut stream).await, json!({"v": 1, "ok": {"pong": true, "version": "1.2.3"}}));
    assert_eq!(line(&mut stream).await, json!({"v": 1, "end": true}));
    let missing = json!({"code": "not_found", "message": "there is no such message"});
    assert_eq!(line(&mut stream).await, json!({"v": 1, "error": missing}));
    assert_eq!(line(&mut stream).await.pointer("/error/code").unwrap(), "bad_request");
    assert_eq!(line(&mut stream).await.pointer("/error/code").unwrap(), "unsupported_version");
    assert_eq!(line(&mut stream).await, json!({"v": 1, "ok": {"matched": 2, "changed": 1}}));
}

#[tokio::test]
async fn the_client_reads_a_long_stream_to_its_end() {
    let running = Running::start();
    let mut client = Client::connect(&running.path()).await.unwrap();
    client
        .send(&Request::List { filter: empath_control::Filter::default(), limit: Some(1000) })
        .await
        .unwrap();
    let mut count = 0;
    while let Some(object) = client.next::<Value>().await.unwrap() {
        assert_eq!(object.get("n").unwrap(), count);
        count += 1;
    }
    assert_eq!(count, 1000);
    assert!(client.ask::<Pong>(&Request::Ping {}).await.unwrap().pong);
}

#[tokio::test]
async fn a_failure_reaches_the_client_as_it_is() {
    let running = Running::start();
    let mut client = Client::connect(&running.path()).await.unwrap();
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    let error = client.ask::<Value>(&Request::View { id }).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(Failure { code: FailureCode::NotFound, .. })), "{error}");
}

#[tokio::test]
async fn without_a_daemon_the_client_says_where_it_looked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody.sock");
    let error = Client::connect(&path).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(error.to_string().contains("nobody.sock"), "{error}");
}

#[tokio::test]
async fn an_endless_request_is_cut_off() {
    let running = Running::start();
    let mut stream = running.raw().await;
    // The daemon doesn't close while we still write, within reason, and what it said can be read.
    stream.write_all(&vec![b'x'; 512 << 10]).await.unwrap();
    assert_eq!(line(&mut stream).await.pointer("/error/code").unwrap(), "too_large");
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    // What is without end is cut off all the same.
    assert!(stream.write_all(&vec![b'x'; 2 << 20]).await.is_err());
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_a_failure_and_not_sent() {
    let running = Running::start();
    let mut client = Client::connect(&running.path()).await.unwrap();
    let error = client.ask::<Value>(&Request::Stats {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(Failure { code: FailureCode::TooLarge, .. })), "{error}");
}

#[tokio::test]
async fn half_a_request_is_none() {
    let running = Running::start();
    let mut stream = running.raw().await;
    stream.write_all(br#"{"v":1,"command":"system.ping"}"#).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
}

#[tokio::test]
async fn too_many_clients_are_turned_away_with_a_reason_and_the_others_are_served() {
    let running = Running::start();
    let mut clients = Vec::new();
    for _ in 0..256 {
        let mut client = Client::connect(&running.path()).await.unwrap();
        client.ask::<Pong>(&Request::Ping {}).await.unwrap();
        clients.push(client);
    }
    let mut late = Client::connect(&running.path()).await.unwrap();
    let error = late.ask::<Pong>(&Request::Ping {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(Failure { code: FailureCode::Busy, .. })), "{error}");
    for client in &mut clients {
        client.ask::<Pong>(&Request::Ping {}).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_disconnected() {
    let running = Running::start();
    let mut stream = running.raw().await;
    stream.write_all(b"{").await.unwrap();
    let mut rest = String::new();
    assert_eq!(stream.read_to_string(&mut rest).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_an_hour_is_waited_for() {
    let running = Running::start();
    let mut client = Client::connect(&running.path()).await.unwrap();
    let answer = client.ask::<Value>(&Request::SpoolVerify {}).await.unwrap();
    assert_eq!(answer, json!({"clean": true}));
    assert!(client.ask::<Pong>(&Request::Ping {}).await.unwrap().pong);
}

#[tokio::test]
async fn idle_clients_do_not_hold_up_the_end_and_the_socket_goes() {
    let running = Running::start();
    let path = running.path();
    let mut client = Client::connect(&path).await.unwrap();
    client.ask::<Pong>(&Request::Ping {}).await.unwrap();
    running.stop.cancel();
    timeout(Duration::from_secs(10), running.task).await.unwrap().unwrap();
    assert!(!path.exists());
}

/// Collects the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_command_leaves_a_line_that_says_who_asked_for_what_and_how_it_ended() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let running = Running::start();
    let mut client = Client::connect(&running.path()).await.unwrap();
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    client.ask::<Value>(&Request::View { id }).await.unwrap_err();
    client.ask::<Changed>(&Request::Retry { messages: empath_control::Selection::All }).await.unwrap();
    let mut stream = running.raw().await;
    stream.write_all(b"nonsense\n").await.unwrap();
    line(&mut stream).await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let audit: Vec<_> = lines.iter().filter(|line| line.get("target").unwrap() == "audit").collect();
    let field =
        |name: &str| audit.iter().map(|line| line.pointer(&format!("/fields/{name}"))).collect::<Vec<_>>();
    let (view, retry) = (json!("queue.view"), json!("queue.retry"));
    assert_eq!(field("command"), [Some(&view), Some(&retry), None]);
    let outcomes = [json!("not_found"), json!("ok"), json!("bad_request")];
    assert_eq!(field("outcome"), outcomes.iter().map(Some).collect::<Vec<_>>());
    let pid = json!(std::process::id());
    assert_eq!(field("pid"), [Some(&pid); 3]);
    assert!(field("uid").iter().all(Option::is_some));
}
