use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, UCred},
    },
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    Answers, Failure, FailureCode, Request, SocketError,
    socket::{self, Place},
    wire::{MAX_REQUEST, parse},
};

/// Clients at a time; more are told so.
const MAX_CLIENTS: usize = 256;

/// A client that takes longer than this for a request, or between two, is disconnected.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// What is still read of a client that is about to be disconnected, in octets and in time.
const DRAIN: u64 = 1 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long requests under way may take when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// How long nothing is accepted after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the daemon does with requests.
pub trait Handler: Send + Sync + 'static {
    /// Does what `request` asks and sends the objects that its documentation names. It must not block the thread.
    fn handle(
        &self,
        request: Request,
        answers: &mut Answers,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A control socket that is bound and does not answer yet. The socket is removed when this is dropped.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    _place: Place,
}

impl ControlServer {
    /// Binds the control socket at `path`, for its owner only. A socket that a dead daemon has left there is replaced;
    /// one that a living daemon serves is an error. Must be called within a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, place) = socket::bind(path)?;
        let source = |source| SocketError::Bind { path: path.to_owned(), source };
        listener.set_nonblocking(true).map_err(source)?;
        Ok(Self { listener: UnixListener::from_std(listener).map_err(source)?, _place: place })
    }

    /// Answers until `stop` is cancelled, then finishes the requests under way.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, stop: CancellationToken) {
        let clients = TaskTracker::new();
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => {
                            let (handler, stop) = (Arc::clone(&handler), stop.clone());
                            clients.spawn(async move {
                                converse(stream, &*handler, &stop).await;
                                drop(place);
                            });
                        }
                        Err(_) => turn_away(&stream),
                    },
                    Err(error) => {
                        warn!(%error, "the control socket can't accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let _ = stop.run_until_cancelled(accept).await;
        clients.close();
        if timeout(GRACE, clients.wait()).await.is_err() {
            warn!("control clients were cut off: they took too long");
        }
    }
}

/// One line that fits into the socket's buffer: nobody waits for a client that has no place.
fn turn_away(stream: &UnixStream) {
    let busy = br#"{"v":1,"error":{"code":"busy","message":"too many control clients"}}"#;
    let _ = stream.try_write(busy).and_then(|_| stream.try_write(b"\n"));
}

async fn converse<H: Handler>(stream: UnixStream, handler: &H, stop: &CancellationToken) {
    let Ok(peer) = stream.peer_cred() else { return };
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut answers = Answers::new(writer);
    loop {
        let line = stop.run_until_cancelled(timeout(READ_TIMEOUT, read_line(&mut reader))).await;
        // Otherwise the daemon stops, or the client is too slow, has failed or has finished.
        let Some(Ok(Ok(Some(line)))) = line else { return };
        let outcome = match line {
            Line::Whole(line) => answer(&line, handler, &mut answers, peer).await,
            Line::TooLong => {
                let message = format!("a control request has at most {MAX_REQUEST} octets");
                Err(Failure::new(FailureCode::TooLarge, message))
            }
        };
        let too_long = outcome.as_ref().is_err_and(|failure| failure.code == FailureCode::TooLarge);
        if answers.finish(outcome.as_ref().copied()).await.is_err() {
            return;
        }
        if too_long {
            answers.close().await;
            let drained = drain(&mut reader);
            let _ = stop.run_until_cancelled(timeout(DRAIN_TIMEOUT, drained)).await;
            return;
        }
    }
}

/// Reads what the client still sends. Without this the kernel would reset the connection, and the client might never
/// see why.
async fn drain(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<u64> {
    tokio::io::copy(&mut reader.take(DRAIN), &mut tokio::io::sink()).await
}

async fn answer<H: Handler>(
    line: &[u8],
    handler: &H,
    answers: &mut Answers,
    peer: UCred,
) -> Result<(), Failure> {
    let (uid, pid) = (peer.uid(), peer.pid());
    let request = match parse(line) {
        Ok(request) => request,
        Err(failure) => {
            info!(target: "audit", uid, pid, outcome = %failure.code, "control request not understood");
            return Err(failure);
        }
    };
    let command = request.command();
    // JSON has no control characters, so the log line stays one line.
    let arguments = serde_json::to_string(&request).unwrap_or_default();
    let outcome = handler.handle(request, answers).await;
    match &outcome {
        Ok(()) => info!(target: "audit", command, arguments, uid, pid, outcome = "ok", "control command"),
        Err(failure) => {
            info!(target: "audit", command, arguments, uid, pid, outcome = %failure.code, "control command");
        }
    }
    outcome
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// The next line without its newline; `None` at the end. A line that the client left unfinished is no request.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    reader.take(limit).read_until(b'\n', &mut line).await?;
    Ok(match line.pop() {
        Some(b'\n') => Some(Line::Whole(line)),
        Some(_) if line.len() + 1 == MAX_REQUEST => Some(Line::TooLong),
        Some(_) | None => None,
    })
}
