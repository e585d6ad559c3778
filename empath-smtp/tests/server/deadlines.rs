//! The driver and time. Time is tokio's and paused, so hours take no time.

use std::{sync::Arc, time::Duration};

use empath_common::ByteSize;
use empath_smtp::server::{Config, Mode, Session, Timeouts, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{intake::Shelf, machine, script::default_config};

struct Connected {
    client: DuplexStream,
    served: JoinHandle<()>,
    stop: CancellationToken,
    shelf: Shelf,
}

const TO_DATA: &str = "EHLO c.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n";

fn timeouts() -> Timeouts {
    let seconds = Duration::from_secs;
    Timeouts {
        handshake: seconds(5),
        command: seconds(10),
        data_init: seconds(20),
        data_block: seconds(30),
        content_rate: ByteSize(0),
        data_termination: seconds(40),
        connection: seconds(300),
    }
}

fn connect(shelf: Shelf, timeouts: Timeouts) -> Connected {
    let config: Config = serde_json::from_value(default_config()).unwrap();
    let (client, stream) = duplex(1024);
    let stop = CancellationToken::new();
    let (stopped, intake) = (stop.clone(), shelf.clone());
    let served = tokio::spawn(async move {
        let server = machine::server(&config, &intake);
        let session = Session::new(
            Arc::clone(&server.settings),
            Mode::Relay,
            machine::client("203.0.113.9".parse().unwrap()),
        );
        serve(stream, session, &server, &timeouts, &stopped).await;
    });
    Connected { client, served, stop, shelf }
}

impl Connected {
    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until a reply line starts with this.
    async fn until(&mut self, start: &str) {
        let mut line = Vec::new();
        loop {
            line.push(self.client.read_u8().await.unwrap());
            if line.ends_with(b"\n") {
                if line.starts_with(start.as_bytes()) {
                    return;
                }
                line.clear();
            }
        }
    }

    /// What comes until the server closes, and after how many seconds it does.
    async fn closed(&mut self) -> (String, u64) {
        let (started, mut rest) = (Instant::now(), String::new());
        self.client.read_to_string(&mut rest).await.unwrap();
        (rest, started.elapsed().as_secs())
    }
}

const TIMEOUT: &str = "421 4.4.2 Timeout exceeded; closing connection\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_sent_away_after_the_command_timeout() {
    let mut connected = connect(Shelf::default(), timeouts());
    connected.until("220").await;
    assert_eq!(connected.closed().await, (TIMEOUT.to_owned(), 10));
}

/// RFC 5321 §4.5.3.2.7
#[tokio::test(start_paused = true)]
async fn by_default_five_minutes_may_pass_between_commands() {
    let mut connected = connect(Shelf::default(), Timeouts::default());
    connected.until("220").await;
    sleep(Duration::from_secs(299)).await;
    connected.send("NOOP\r\n").await;
    connected.until("250").await;
    assert_eq!(connected.closed().await, (TIMEOUT.to_owned(), 300));
}

#[tokio::test(start_paused = true)]
async fn octets_that_end_no_command_win_no_time() {
    let mut connected = connect(Shelf::default(), timeouts());
    connected.until("220").await;
    let started = Instant::now();
    for _ in 0..9 {
        connected.send("N").await;
        sleep(Duration::from_secs(1)).await;
    }
    connected.until("421 4.4.2").await;
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn every_command_starts_the_command_timeout_anew() {
    let mut connected = connect(Shelf::default(), timeouts());
    for _ in 0..10 {
        sleep(Duration::from_secs(9)).await;
        connected.send("NOOP\r\nNO").await;
        connected.until("250").await;
        connected.send("OP\r\n").await;
        connected.until("250").await;
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_have_the_times_of_content_also_those_that_are_refused() {
    let to_bdat = TO_DATA.replace("DATA", "BDAT 5");
    let refused = "EHLO c.example\r\nBDAT 5\r\na".to_owned();
    for (said, seconds) in [
        (to_bdat.clone(), 20),
        (to_bdat.clone() + "a", 30),
        (to_bdat.clone() + "abc\r\n", 30),
        (to_bdat + "abc\r\nBDAT 2\r\na", 30),
        (refused, 30),
    ] {
        let mut connected = connect(Shelf::default(), timeouts());
        connected.send(&said).await;
        let (replies, waited) = connected.closed().await;
        assert!(replies.ends_with(TIMEOUT), "{replies}");
        assert_eq!(waited, seconds, "{said:?}");
        assert!(connected.shelf.messages().is_empty());
        connected.served.await.unwrap();
        assert_eq!(connected.shelf.drafts(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_does_not_begin_ends_the_session_after_data_init() {
    let mut connected = connect(Shelf::default(), timeouts());
    connected.send(TO_DATA).await;
    connected.until("354").await;
    assert_eq!(connected.closed().await, (TIMEOUT.to_owned(), 20));
    connected.served.await.unwrap();
    assert_eq!((connected.shelf.messages().len(), connected.shelf.drafts()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn content_that_stops_ends_the_session_after_data_block() {
    let mut connected = connect(Shelf::default(), timeouts());
    connected.send(TO_DATA).await;
    connected.until("354").await;
    connected.send("Subject: x\r\n").await;
    sleep(Duration::from_secs(29)).await;
    connected.send("\r\nx").await;
    assert_eq!(connected.closed().await, (TIMEOUT.to_owned(), 30));
    connected.served.await.unwrap();
    assert_eq!((connected.shelf.messages().len(), connected.shelf.drafts()), (0, 0));
}

/// Sends an octet a second, and says after how many seconds the server has had enough.
async fn drip(connected: &mut Connected) -> u64 {
    let started = Instant::now();
    let mut rest = String::new();
    loop {
        connected.client.write_all(b"x").await.unwrap();
        let ended = timeout(Duration::from_secs(1), connected.client.read_to_string(&mut rest)).await;
        if ended.is_ok() {
            assert_eq!(rest, TIMEOUT);
            return started.elapsed().as_secs();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_content_too_slowly_is_sent_away() {
    let mut connected = connect(Shelf::default(), Timeouts { content_rate: ByteSize(10), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    // 30 s of data_block, and a tenth of a second for each octet.
    assert_eq!(drip(&mut connected).await, 33);
    connected.served.await.unwrap();
    assert_eq!((connected.shelf.messages().len(), connected.shelf.drafts()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_fast_client_has_sent_does_not_let_it_be_slow_for_longer() {
    let mut connected = connect(Shelf::default(), Timeouts { content_rate: ByteSize(10), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    connected.send(&"0123456789\r\n".repeat(1000)).await;
    assert_eq!(drip(&mut connected).await, 33);
}

#[tokio::test(start_paused = true)]
async fn a_fast_client_may_pause_for_data_block_again_and_again() {
    let mut connected = connect(Shelf::default(), Timeouts { content_rate: ByteSize(100), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    for _ in 0..9 {
        connected.send(&"0123456789\r\n".repeat(300)).await;
        sleep(Duration::from_secs(29)).await;
    }
    connected.send(".\r\n").await;
    connected.until("250 2.0.0 Ok: queued as ").await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_leaves_the_next_all_of_its_time() {
    let mut connected = connect(Shelf::default(), Timeouts { content_rate: ByteSize(100), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    for _ in 0..2 {
        for octet in ["x", "\r", "\n"] {
            connected.send(octet).await;
            sleep(Duration::from_secs(9)).await;
        }
        connected.send(".\r\n").await;
        connected.until("250 2.0.0 Ok: queued as ").await;
        // The next content comes with its commands, so that none is waited for.
        connected.send("MAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nx").await;
        connected.until("354").await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_between_the_chunks_of_a_message_counts() {
    let mut connected = connect(Shelf::default(), Timeouts { content_rate: ByteSize(10), ..timeouts() });
    connected.send(&TO_DATA.replace("DATA", "BDAT 1\r\nx")).await;
    connected.until("250 2.0.0 1 octets").await;
    let started = Instant::now();
    let mut rest = String::new();
    while timeout(Duration::from_secs(3), connected.client.read_to_string(&mut rest)).await.is_err() {
        connected.send("BDAT 1\r\nx").await;
    }
    assert!(rest.ends_with(TIMEOUT), "{rest}");
    // 30 s of data_block, and 0.9 s for the nine octets of each chunk and its command: the 13th comes after 39 s.
    assert_eq!(started.elapsed().as_secs(), 41);
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_leaves_a_refused_chunk_all_of_its_time() {
    let mut connected = connect(Shelf::default(), Timeouts { content_rate: ByteSize(100), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    connected.send("x").await;
    sleep(Duration::from_secs(29)).await;
    connected.send("\r\n.\r\n").await;
    connected.until("250 2.0.0 Ok: queued as ").await;
    connected.send("BDAT 5\r\nab").await;
    sleep(Duration::from_secs(29)).await;
    connected.send("cde").await;
    connected.until("503 ").await;
}

#[tokio::test(start_paused = true)]
async fn time_that_storage_takes_is_not_the_clients() {
    let shelf = Shelf::slow(Duration::from_secs(7));
    let mut connected = connect(shelf, Timeouts { content_rate: ByteSize(100), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    for _ in 0..9 {
        connected.send(&"0123456789\r\n".repeat(10)).await;
    }
    connected.send(".\r\n").await;
    connected.until("250 2.0.0 Ok: queued as ").await;
}

#[tokio::test(start_paused = true)]
async fn an_authentication_has_the_time_of_one_command_however_it_drips() {
    let mut connected = connect(Shelf::default(), timeouts());
    connected.until("220").await;
    connected.send("EHLO c.example\r\n").await;
    connected.until("250 ").await;
    connected.send("AUTH PLAIN").await;
    let mut octets = 0;
    let mut rest = String::new();
    while timeout(Duration::from_secs(3), connected.client.read_to_string(&mut rest)).await.is_err() {
        connected.send("A").await;
        octets += 1;
    }
    assert_eq!((rest.as_str(), octets), (TIMEOUT, 3));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_an_octet_now_and_then_is_left_after_the_connection_timeout() {
    let seconds = Duration::from_secs;
    let connected =
        connect(Shelf::default(), Timeouts { command: seconds(60), connection: seconds(25), ..timeouts() });
    let started = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(connected.client);
    let reading = tokio::spawn(async move {
        while reader.read_exact(&mut [0; 600]).await.is_ok() {
            sleep(Duration::from_secs(7)).await;
        }
    });
    // As many as a session may have.
    let _ = writer.write_all("HELP\r\n".repeat(100).as_bytes()).await;
    connected.served.await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 25);
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_after_the_connection_timeout_however_busy_it_is() {
    let mut connected = connect(Shelf::default(), timeouts());
    let started = Instant::now();
    connected.send(TO_DATA).await;
    connected.until("354").await;
    let mut rest = String::new();
    loop {
        connected.client.write_all(b"x\r\n").await.unwrap();
        let ended = timeout(Duration::from_secs(7), connected.client.read_to_string(&mut rest)).await;
        if ended.is_ok() {
            break;
        }
    }
    assert_eq!((rest.as_str(), started.elapsed().as_secs()), (TIMEOUT, 300));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_left_after_the_command_timeout() {
    let mut connected = connect(Shelf::default(), timeouts());
    let started = Instant::now();
    // More than the pipe and the gathered replies hold, all of it answered.
    let flood = "HELP\r\n".repeat(90);
    let sent = timeout(Duration::from_mins(1), connected.client.write_all(flood.as_bytes())).await;
    assert!(sent.is_ok(), "the commands themselves fit");
    connected.served.await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn storage_that_takes_too_long_is_no_answer_but_the_message_is_seen_to_its_end() {
    let mut connected = connect(Shelf::gated(), timeouts());
    connected.send(TO_DATA).await;
    connected.until("354").await;
    connected.send("x\r\n.\r\n").await;
    assert_eq!(connected.closed().await, (String::new(), 40));
    advance(Duration::from_secs(100)).await;
    assert!(!connected.served.is_finished());
    connected.shelf.open();
    connected.served.await.unwrap();
    assert_eq!(connected.shelf.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_being_stored_gets_its_answer_after_the_connection_timeout() {
    let mut connected =
        connect(Shelf::gated(), Timeouts { connection: Duration::from_secs(5), ..timeouts() });
    connected.send(TO_DATA).await;
    connected.until("354").await;
    connected.send("x\r\n.\r\n").await;
    sleep(Duration::from_secs(30)).await;
    connected.shelf.open();
    connected.until("250 2.0.0 Ok: queued as ").await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_session_between_commands_at_once_and_a_message_first_ends() {
    let mut idle = connect(Shelf::default(), timeouts());
    idle.until("220").await;
    idle.stop.cancel();
    let farewell = "421 4.3.2 Service shutting down; closing connection\r\n".to_owned();
    assert_eq!(idle.closed().await, (farewell.clone(), 0));

    let mut busy = connect(Shelf::gated(), timeouts());
    busy.send(TO_DATA).await;
    busy.until("354").await;
    busy.stop.cancel();
    busy.send("x\r\n").await;
    sleep(Duration::from_secs(3)).await;
    busy.send("y\r\n.\r\n").await;
    sleep(Duration::from_secs(3)).await;
    busy.shelf.open();
    busy.until("250 2.0.0 Ok: queued as ").await;
    assert_eq!(busy.closed().await, (farewell, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_inside_content_commits_nothing() {
    let mut connected = connect(Shelf::default(), timeouts());
    connected.send(TO_DATA).await;
    connected.until("354").await;
    connected.send("Subject: x\r\n\r\nx\r\n.").await;
    drop(connected.client);
    connected.served.await.unwrap();
    assert_eq!((connected.shelf.messages().len(), connected.shelf.drafts()), (0, 0));
}
