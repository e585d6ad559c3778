//! What comes before the first transaction: the greeting, TLS, and who we are.

use std::{io, sync::Arc};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use empath_common::Reply;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    super::{
        Chunks, Credentials, Dial, Expected, Extensions, Failure, FailureKind, Feature, GarbledReason, Hello,
        Protocol, Stage, Target, Timeouts, Tls, Way,
        auth::Exchange,
        reply::{RawReply, ReplyParser},
        stream::Stream,
    },
    Connection, INPUT,
};
use crate::tls;

/// Random octets in a nonce.
const NONCE: usize = 18;

impl Connection {
    /// Connects, waits for the greeting and says EHLO, or HELO to a server that doesn't know it
    /// (RFC 5321 §3.2); LHLO over LMTP.
    pub async fn open(
        dial: &dyn Dial,
        way: Way<'_>,
        hello: Hello<'_>,
        timeouts: Arc<Timeouts>,
    ) -> Result<Self, Failure> {
        Self::dial(dial, way, hello.protocol, timeouts).await?.greeted(hello).await
    }

    /// Connects to a server that speaks TLS from the first octet (RFC 8314 §3), and goes on as [`open`](Self::open) does.
    pub async fn open_tls(
        dial: &dyn Dial,
        way: Way<'_>,
        (tls, expected): (&Tls, &Expected<'_>),
        hello: Hello<'_>,
        timeouts: Arc<Timeouts>,
    ) -> Result<Self, Failure> {
        let connection = Self::dial(dial, way, hello.protocol, timeouts).await?;
        connection.encrypted(tls, expected).await?.greeted(hello).await
    }

    async fn dial(
        dial: &dyn Dial,
        way: Way<'_>,
        protocol: Protocol,
        timeouts: Arc<Timeouts>,
    ) -> Result<Self, Failure> {
        let stream = match timeout(timeouts.connect, dial.dial(way.target, way.from)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Stage::Connect.failed(error.into())),
            Err(_) => return Err(Stage::Connect.failed(FailureKind::Timeout)),
        };
        Ok(Self {
            stream: Stream::Clear(stream),
            peer: way.target.clone(),
            protocol,
            timeouts,
            offered: Extensions::default(),
            tls: None,
            input: BytesMut::with_capacity(INPUT),
            parser: ReplyParser::default(),
            mails: 0,
            idle: false,
            chunks: Chunks::Untried,
            in_doubt: false,
            deadline: None,
        })
    }

    async fn greeted(mut self, hello: Hello<'_>) -> Result<Self, Failure> {
        positive(Stage::Greeting, self.read(Stage::Greeting).await)?;
        self.hello(hello, Stage::Ehlo).await?;
        Ok(self)
    }

    /// Encrypts the connection and says EHLO anew: what the server said in clear text counts no longer (RFC 3207 §4.2).
    /// After a failure nothing can be said on it any more.
    pub async fn start_tls(
        mut self,
        tls: &Tls,
        expected: &Expected<'_>,
        hello: Hello<'_>,
    ) -> Result<Self, Failure> {
        if !self.offered.starttls {
            self.quit().await;
            return Err(Stage::StartTls.failed(FailureKind::Unsupported(Feature::StartTls)));
        }
        self.idle = false;
        positive(Stage::StartTls, self.say(Stage::StartTls, b"STARTTLS\r\n").await)?;
        if !self.input.is_empty() {
            return Err(Stage::StartTls.garbled(GarbledReason::BehindStartTls));
        }
        self = self.encrypted(tls, expected).await?;
        self.hello(hello, Stage::EhloAgain).await?;
        Ok(self)
    }

    /// Does the handshake.
    async fn encrypted(mut self, tls: &Tls, expected: &Expected<'_>) -> Result<Self, Failure> {
        let Stream::Clear(stream) = self.stream else {
            return Err(Stage::StartTls.garbled(GarbledReason::Unexpected));
        };
        let handshake = timeout(self.timeouts.starttls, tls.connect(stream, expected));
        let stream = handshake.await.unwrap_or(Err(FailureKind::Timeout));
        let stream = stream.map_err(|kind| Stage::Handshake.failed(kind))?;
        self.tls = Some(tls::session(stream.get_ref().1, None));
        self.stream = Stream::Tls(Box::new(stream));
        Ok(self)
    }

    /// Shows who we are, which it never does in clear text. `host` is the server's name, for mechanisms that say whom they are meant
    /// for. After a failure nothing can be said on it any more.
    pub async fn authenticate(
        mut self,
        credentials: Credentials,
        host: Option<&str>,
    ) -> Result<Self, Failure> {
        let failed = |kind| Stage::Auth.failed(kind);
        if self.tls.is_none() {
            self.quit().await;
            return Err(failed(FailureKind::Unsupported(Feature::StartTls)));
        }
        let mut nonce = [0; NONCE];
        // Without randomness no connection could have been encrypted.
        rand::fill(&mut nonce).map_err(|_| failed(FailureKind::Io(io::ErrorKind::Other)))?;
        let server = match &self.peer {
            Target::Tcp(address) => host.map(|host| (host, address.port())),
            Target::Unix(_) => None,
        };
        let begun = Exchange::begin(credentials, &self.offered, &STANDARD.encode(nonce), server);
        let (mut exchange, mut line) = match begun {
            Ok(begun) => begun,
            Err(kind) => {
                self.quit().await;
                return Err(failed(kind));
            }
        };
        self.idle = false;
        loop {
            line.push_str("\r\n");
            let reply = self.say(Stage::Auth, line.as_bytes()).await;
            let challenge = match reply {
                Ok(raw) if raw.code.get() == 334 => raw,
                reply => {
                    if let Err(Failure { kind, .. }) = positive(Stage::Auth, reply) {
                        return Err(failed(exchange.refused(kind)));
                    }
                    exchange.accepted().map_err(failed)?;
                    self.idle = true;
                    return Ok(self);
                }
            };
            // The keys of SCRAM take as long as the server says.
            let respond = spawn_blocking(move || exchange.respond(challenge.challenge()));
            let response = respond.await.map_err(|_| failed(FailureKind::Io(io::ErrorKind::Other)))?;
            (exchange, line) = response.map_err(failed)?;
        }
    }

    async fn hello(&mut self, Hello { protocol, name }: Hello<'_>, ehlo: Stage) -> Result<(), Failure> {
        if protocol == Protocol::Lmtp {
            // RFC 2033 §4.1: there is nothing older to fall back to.
            let reply = self.say(Stage::Lhlo, format!("LHLO {name}\r\n").as_bytes()).await;
            self.offered = positive(Stage::Lhlo, reply)?.extensions();
            self.idle = true;
            return Ok(());
        }
        let reply = self.say(ehlo, format!("EHLO {name}\r\n").as_bytes()).await;
        self.offered = match reply {
            Ok(reply) if reply.code.is_permanent() => {
                let reply = self.say(ehlo, format!("HELO {name}\r\n").as_bytes()).await;
                positive(ehlo, reply)?;
                Extensions::default()
            }
            reply => positive(ehlo, reply)?.extensions(),
        };
        self.idle = true;
        Ok(())
    }
}

/// The reply, if it is 2yz.
fn positive(stage: Stage, reply: Result<RawReply, FailureKind>) -> Result<RawReply, Failure> {
    match reply {
        Ok(raw) if raw.code.is_positive() => Ok(raw),
        Ok(raw) if raw.code.is_intermediate() => Err(stage.garbled(GarbledReason::Unexpected)),
        Ok(raw) => Err(stage.refused(Reply::from(raw))),
        Err(kind) => Err(stage.failed(kind)),
    }
}
