use std::{io, pin::pin, sync::Arc, time::Duration};

use empath_common::{Client, Clock, Envelope, Hooks, MessageId, TlsSession};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Authenticator, Connections, Draft, Intake, IntakeError, Phase, Session, Settings, Step, Timeouts, Tls,
    auth::AuthAnswer, deadline::Deadline, log, stream::Stream, throttle::Throttle, verb::Verb,
};

/// What all listeners and sessions of a daemon share.
pub struct Server<I> {
    /// What sessions keep to.
    pub settings: Arc<Settings>,
    /// Who has a say in what is accepted.
    pub hooks: Hooks,
    /// Where content goes.
    pub intake: I,
    /// The time for `Received`.
    pub clock: Arc<dyn Clock>,
    /// Certificates, if there are any.
    pub tls: Option<Tls>,
    /// Who knows the users, if there are any.
    pub auth: Option<Arc<Authenticator>>,
    /// The sessions that there are.
    pub connections: Arc<Connections>,
    /// Log lines about connections that are refused.
    pub(super) refusals: Throttle,
}

/// How often it is logged that connections are refused.
const REFUSAL_LINES: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed by us")]
    ByUs,
    #[error("closed by the client")]
    ByClient,
    #[error("the client did not take our reply in time")]
    WriteTimeout,
    #[error("the message was not stored in time")]
    StorageTimeout,
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<I: Intake> Server<I> {
    /// What listeners need besides their own address.
    pub fn new(settings: Settings, hooks: Hooks, intake: I, clock: Arc<dyn Clock>) -> Self {
        let connections = Connections::new(&settings.limits, settings.metrics.active.clone());
        let refusals = Throttle::new(REFUSAL_LINES);
        Self {
            settings: Arc::new(settings),
            hooks,
            intake,
            clock,
            tls: None,
            auth: None,
            connections,
            refusals,
        }
    }

    /// The same with certificates.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// The same with users.
    #[must_use]
    pub fn with_auth(self, auth: Option<Authenticator>) -> Self {
        Self { auth: auth.map(Arc::new), ..self }
    }

    /// What takes the place of this for new sessions; certificates and users are to be given again. The sessions that there
    /// are count on.
    #[must_use]
    pub fn successor(&self, settings: Settings, hooks: Hooks, intake: I) -> Self {
        self.connections.limit(&settings.limits);
        Self {
            connections: Arc::clone(&self.connections),
            ..Self::new(settings, hooks, intake, Arc::clone(&self.clock))
        }
    }
}

/// Serves one client until the session ends. `stop` asks to end it before the next command.
pub async fn serve<S, I>(
    stream: S,
    mut session: Session,
    server: &Server<I>,
    timeouts: &Timeouts,
    stop: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    I: Intake,
{
    let mut stream = Stream::Clear(stream);
    let started = Instant::now();
    log::opened(session.client());
    let ended = converse(&mut stream, &mut session, server, timeouts, stop).await;
    if matches!(ended, Ended::ByUs | Ended::ByClient | Ended::Handshake(_)) {
        linger(&mut stream).await;
    }
    server.settings.metrics.session_duration.observe(started.elapsed().as_secs_f64());
    log::closed(session.client().peer, &ended);
}

async fn converse<S, I>(
    stream: &mut Stream<S>,
    session: &mut Session,
    server: &Server<I>,
    timeouts: &Timeouts,
    stop: &CancellationToken,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    I: Intake,
{
    let metrics = &server.settings.metrics;
    // Since when what the client has asked for is our business.
    let mut since = Instant::now();
    let mut deadline = Deadline::new(timeouts, since);
    let mut draft = None;
    loop {
        if !session.answered().is_empty() {
            let took = since.elapsed();
            session.answered().iter().for_each(|verb| metrics.answered(*verb, took));
            since = Instant::now();
        }
        match session.step() {
            Step::Write(replies) => {
                match timeout_at(deadline.write(Instant::now()), send(stream, replies)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => return failure.into(),
                    Err(_) => return Ended::WriteTimeout,
                }
                since = Instant::now();
            }
            Step::StartTls => tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::ByUs,
                secured = timeout(timeouts.handshake, Box::pin(start_tls(stream, server))) => match secured {
                    Ok(Ok(tls)) => {
                        metrics.encrypted(tls.version);
                        session.secured(tls);
                    }
                    Ok(Err(failure)) => {
                        metrics.handshake_failed(Some(&failure));
                        return Ended::Handshake(failure);
                    }
                    Err(_) => {
                        metrics.handshake_failed(None);
                        return Ended::HandshakeTimeout;
                    }
                },
            },
            Step::Read => {
                let (phase, asked) = (session.phase(), Instant::now());
                let may_stop = matches!(phase, Phase::Command | Phase::RestOfCommand);
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if may_stop => session.shutting_down(),
                    read = timeout_at(deadline.read(phase, asked), stream.read_buf(session.buffer())) => match read {
                        Ok(Ok(0)) => return Ended::ByClient,
                        Ok(Ok(octets)) if phase == Phase::DataBlock => deadline.content(octets, asked.elapsed()),
                        Ok(Ok(_)) => {}
                        Ok(Err(failure)) => return failure.into(),
                        Err(_) => session.timed_out(),
                    },
                }
                since = Instant::now();
            }
            Step::Ask(query) => {
                let answer = server.hooks.ask(query).await;
                session.decide(answer, server.clock.now());
            }
            Step::Authenticate(address, query) => {
                let answer = match &server.auth {
                    Some(users) => Box::pin(users.answer(address, query)).await,
                    None => AuthAnswer::Unavailable,
                };
                session.authenticated(answer);
            }
            Step::Begin => {
                deadline.begin();
                let begun = begin(session, server).await;
                session.begun(begun.map(|begun| draft = Some(begun)));
            }
            Step::Content(octets) => {
                if let Some(growing) = &mut draft
                    && let Err(error) = growing.write(octets).await
                {
                    draft = None;
                    session.refused_content(error);
                }
            }
            Step::Discard => draft = None,
            Step::Commit(envelope) => {
                let stored = store(server, session.client(), draft.take(), envelope);
                match in_time(stream, timeouts, stored).await {
                    Some(committed) => session.committed(committed),
                    None => return Ended::StorageTimeout,
                }
                metrics.answered(Verb::END_OF_DATA, since.elapsed());
                since = Instant::now();
            }
            Step::Close => return Ended::ByUs,
        }
    }
}

async fn begin<I: Intake>(session: &mut Session, server: &Server<I>) -> Result<I::Draft, IntakeError> {
    let mut draft = server.intake.begin()?;
    draft.write(session.received(draft.id(), server.clock.now()).as_bytes()).await?;
    Ok(draft)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, octets: &[u8]) -> io::Result<()> {
    stream.write_all(octets).await?;
    stream.flush().await
}

/// Encrypts the connection. After a failure it is good for nothing but closing.
async fn start_tls<S, I>(stream: &mut Stream<S>, server: &Server<I>) -> io::Result<TlsSession>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (Some(tls), Some(clear)) = (&server.tls, stream.take_clear()) else {
        return Err(io::Error::other("there is no certificate, or TLS already"));
    };
    match tls.accept(clear, server.clock.now()).await {
        Ok((encrypted, session)) => {
            *stream = Stream::Tls(Box::new(encrypted));
            Ok(session)
        }
        Err((failure, clear)) => {
            *stream = Stream::Clear(clear);
            Err(failure)
        }
    }
}

async fn store<I: Intake>(
    server: &Server<I>,
    client: &Client,
    draft: Option<I::Draft>,
    envelope: Envelope,
) -> Result<MessageId, IntakeError> {
    let Some(draft) = draft else {
        return Err(IntakeError::Failed);
    };
    server.intake.commit(draft, envelope, client).await
}

/// What became of the message. `None` when that took too long: the client hears nothing then, for the message may yet
/// become durable. It is seen to its end all the same: dropping a commit half way would leave a message that nobody
/// delivers.
async fn in_time<S: AsyncWrite + Unpin, T>(
    stream: &mut S,
    timeouts: &Timeouts,
    stored: impl Future<Output = T>,
) -> Option<T> {
    let mut stored = pin!(stored);
    tokio::select! {
        stored = &mut stored => Some(stored),
        () = sleep(timeouts.data_termination) => {
            // The client may be gone; and what became of the message is in the intake's log.
            let _ = stream.shutdown().await;
            let _ = stored.await;
            None
        }
    }
}

/// Most octets, and most time, for what the client still sends when we have closed.
const LINGER: (usize, Duration) = (64 * 1024, Duration::from_secs(1));

/// Closing a socket with unread input resets the connection, and the client would lose our last reply. So our side
/// is closed first (under TLS with a word about it), and what still comes is read for a moment.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let (most, moment) = LINGER;
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut nowhere = [0; 1024];
        let mut drained = 0;
        while drained < most {
            match stream.read(&mut nowhere).await {
                Ok(0) | Err(_) => break,
                Ok(len) => drained += len,
            }
        }
    };
    let _ = timeout(moment, drain).await;
}
