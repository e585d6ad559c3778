mod auth;

use std::{
    future::{pending, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
};

use rustls::HandshakeKind;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;

use super::{Act, At, Handshake, Log, ReceivedMessage, Script};
use crate::tls::Identity;

/// One connection.
struct Session<S> {
    stream: BufReader<S>,
    number: usize,
    log: Log,
    script: Arc<Script>,
    pipelining: bool,
    encrypted: bool,
    authenticated: bool,
    mail: Option<ReceivedMessage>,
}

/// How a dialogue ends, unless the client or the script breaks it off.
enum End {
    Quit,
    StartTls,
}

/// Counts the connection as left when it ends, however it does.
struct Open(Log);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// Whether the usual reply was given.
#[derive(PartialEq, Eq)]
enum Answered {
    AsUsual,
    Otherwise,
}

pub(super) async fn serve<S>(stream: S, log: Log, script: Arc<Script>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let number = log.connected();
    let _open = Open(log.clone());
    let mut session = Session::new(stream, number, log, script, false);
    if session.script.tls_first {
        let _ = secure(session).await;
        return;
    }
    let _ = match session.run().await {
        Ok(End::StartTls) => secure(session).await,
        // An error means that the client is gone, or that the script closes the connection.
        _ => session.stream.shutdown().await,
    };
}

async fn secure<S>(mut session: Session<S>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let script = session.script.clone();
    if let Some(act) = script.act(&At::Handshake) {
        session.stream.fill_buf().await?;
        if session.perform(act, "").await? == Answered::Otherwise {
            return session.stream.shutdown().await;
        }
    }
    let Session { stream, number, log, script, .. } = session;
    let Some(Identity(config)) = script.identity.clone() else {
        return Ok(());
    };
    let stream = TlsAcceptor::from(config).accept(stream.into_inner()).await?;
    let tls = stream.get_ref().1;
    let server_name = tls.server_name().map(String::from);
    let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    log.secured(number, Handshake { server_name, resumed });
    let mut session = Session::new(stream, number, log, script, true);
    let _ = session.run().await;
    session.stream.shutdown().await
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    fn new(stream: S, number: usize, log: Log, script: Arc<Script>, encrypted: bool) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, number, log, script, pipelining: false, encrypted, authenticated: false, mail: None }
    }

    async fn run(&mut self) -> io::Result<End> {
        if !self.encrypted || self.script.tls_first {
            if self.log.open() > self.script.most {
                self.write(b"421 4.7.0 Too many connections\r\n").await?;
                return Ok(End::Quit);
            }
            self.answer(&At::Greeting, "220 peer.test ESMTP").await?;
        }
        loop {
            let line = self.line().await?;
            self.log.said(self.number, 'C', &line);
            let line = String::from_utf8_lossy(&line).into_owned();
            let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
            // What follows BDAT is its chunk.
            if !self.pipelining && verb != "BDAT"
                || matches!(verb.as_str(), "EHLO" | "LHLO" | "HELO" | "STARTTLS" | "AUTH" | "DATA" | "QUIT")
            {
                self.check_waits(&line).await;
            }
            match verb.as_str() {
                "EHLO" if !self.script.lmtp => self.ehlo().await?,
                "LHLO" if self.script.lmtp => self.ehlo().await?,
                "HELO" if !self.script.lmtp => {
                    self.answer(&At::Helo, "250 peer.test").await?;
                }
                "STARTTLS" if self.script.identity.is_some() && !self.encrypted => {
                    if self.answer(&At::StartTls, "220 2.0.0 Go on").await? == Answered::AsUsual {
                        return Ok(End::StartTls);
                    }
                }
                "AUTH" => self.auth(&line).await?,
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.rcpt(&line).await?,
                "DATA" => self.data().await?,
                "BDAT" => self.chunk(&line).await?,
                "RSET" => {
                    self.mail = None;
                    self.answer(&At::Rset, "250 2.0.0 Ok").await?;
                }
                "NOOP" => self.write(b"250 2.0.0 Ok\r\n").await?,
                "QUIT" => {
                    self.answer(&At::Quit, "221 2.0.0 Bye").await?;
                    return Ok(End::Quit);
                }
                _ => self.write(b"500 5.5.1 What?\r\n").await?,
            }
        }
    }

    async fn ehlo(&mut self) -> io::Result<()> {
        let script = self.script.clone();
        let in_tls = script.keywords_in_tls.as_ref().filter(|_| self.encrypted);
        let keywords = in_tls.unwrap_or(&script.keywords);
        self.pipelining = keywords.iter().any(|keyword| keyword == "PIPELINING");
        let mut lines = vec!["peer.test"];
        lines.extend(keywords.iter().map(String::as_str));
        lines.extend(script.identity.as_ref().filter(|_| !self.encrypted).map(|_| "STARTTLS"));
        let last = lines.len() - 1;
        let reply: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(i, line)| format!("250{}{line}", if i == last { ' ' } else { '-' }))
            .collect();
        if self.answer(&At::Ehlo, &reply.join("\n")).await? == Answered::Otherwise {
            self.pipelining = false;
        }
        Ok(())
    }

    async fn mail(&mut self, line: &str) -> io::Result<()> {
        if self.script.login.is_some() && !self.authenticated {
            return self.write(b"530 5.7.0 AUTH first\r\n").await;
        }
        if self.mail.is_some() {
            return self.write(b"503 5.5.1 There is a transaction already\r\n").await;
        }
        let (from, params) = path(line);
        if self.answer(&At::MailFrom, "250 2.1.0 Ok").await? == Answered::AsUsual {
            let (to, content, connection) = (Vec::new(), Vec::new(), self.number);
            self.mail = Some(ReceivedMessage { from, params, to, content, connection });
        }
        Ok(())
    }

    async fn rcpt(&mut self, line: &str) -> io::Result<()> {
        if self.mail.is_none() {
            return self.write(b"503 5.5.1 MAIL first\r\n").await;
        }
        let (to, _) = path(line);
        if self.answer(&At::Recipient(to.clone()), "250 2.1.5 Ok").await? == Answered::AsUsual
            && let Some(mail) = &mut self.mail
        {
            mail.to.push(to);
        }
        Ok(())
    }

    async fn data(&mut self) -> io::Result<()> {
        // A rule decides before the state does, so that a peer can answer 354 where it should not.
        let script = self.script.clone();
        match script.act(&At::Data) {
            Some(Act::Reply(text)) if text.starts_with('3') => self.write(crlf(text).as_bytes()).await?,
            None if self.mail.as_ref().is_none_or(|mail| mail.to.is_empty()) => {
                return self.write(b"554 5.5.1 No valid recipients\r\n").await;
            }
            None => self.write(b"354 Go on\r\n").await?,
            Some(act) => {
                if self.perform(act, "354 Go on").await? == Answered::Otherwise {
                    return Ok(());
                }
            }
        }
        if let Some(act) = script.act(&At::Content) {
            self.stream.fill_buf().await?;
            self.perform(act, "").await?;
        }
        let content = self.content().await?;
        self.received(content).await
    }

    /// BDAT and its octets (RFC 3030 §2), which are read whatever the answer.
    async fn chunk(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split_whitespace().skip(1);
        let octets: Option<usize> = words.next().and_then(|octets| octets.parse().ok());
        let Some(octets) = octets else {
            return self.write(b"501 5.5.4 How many?\r\n").await;
        };
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let mut chunk = vec![0; octets];
        self.stream.read_exact(&mut chunk).await?;
        if !self.pipelining {
            self.check_waits(line).await;
        }
        let Some(mail) = self.mail.as_mut().filter(|mail| !mail.to.is_empty()) else {
            return self.write(b"503 5.5.1 RCPT first\r\n").await;
        };
        mail.content.extend_from_slice(&chunk);
        if last {
            let content = mail.content.clone();
            return self.received(content).await;
        }
        if self.answer(&At::Chunk, "250 2.0.0 Ok: chunk").await? == Answered::Otherwise {
            self.mail = None;
        }
        Ok(())
    }

    /// The end of the content: the message is taken, unless the script says otherwise.
    async fn received(&mut self, content: Vec<u8>) -> io::Result<()> {
        let script = self.script.clone();
        let mail = self.mail.take();
        if script.lmtp {
            if let Some(mail) = mail {
                self.deliver(ReceivedMessage { content, ..mail }).await?;
            }
        } else if self.answer(&At::EndOfData, "250 2.0.0 Ok: queued").await? == Answered::AsUsual
            && let Some(mail) = mail
        {
            self.log.received(ReceivedMessage { content, ..mail });
        }
        match script.act(&At::Idle) {
            Some(act) => self.perform(act, "").await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// One reply for each recipient (RFC 2033 §4.2). The message is one for those who get it.
    async fn deliver(&mut self, mut mail: ReceivedMessage) -> io::Result<()> {
        let mut taken = Vec::new();
        for to in std::mem::take(&mut mail.to) {
            if self.answer(&At::Delivery(to.clone()), "250 2.0.0 Saved").await? == Answered::AsUsual {
                taken.push(to);
            }
        }
        if !taken.is_empty() {
            self.log.received(ReceivedMessage { to: taken, ..mail });
        }
        Ok(())
    }

    /// The content, unstuffed, up to the end of data: CRLF.CRLF and nothing else.
    async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut after_crlf = true;
        loop {
            let line = self.line().await?;
            if after_crlf && line == b".\r\n" {
                self.log.said(self.number, 'C', b".");
                return Ok(content);
            }
            let stuffed = after_crlf && line.starts_with(b".");
            content.extend_from_slice(line.get(usize::from(stuffed)..).unwrap_or_default());
            after_crlf = line.ends_with(b"\r\n");
        }
    }

    async fn answer(&mut self, at: &At, usual: &str) -> io::Result<Answered> {
        let script = self.script.clone();
        match script.act(at) {
            Some(act) => self.perform(act, usual).await,
            None => self.write(crlf(usual).as_bytes()).await.map(|()| Answered::AsUsual),
        }
    }

    async fn perform(&mut self, act: &Act, usual: &str) -> io::Result<Answered> {
        match act {
            Act::Reply(text) => self.write(crlf(text).as_bytes()).await?,
            Act::Raw(octets) => self.write(octets).await?,
            Act::ReplyAndClose(text) => {
                self.write(crlf(text).as_bytes()).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Act::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
            Act::Stall => pending().await,
            Act::Delay(time) => {
                tokio::time::sleep(*time).await;
                if !usual.is_empty() {
                    if !self.pipelining {
                        self.check_waits("after a delay").await;
                    }
                    self.write(crlf(usual).as_bytes()).await?;
                }
                return Ok(Answered::AsUsual);
            }
        }
        // A reply that grants what was asked has the usual consequences.
        let granted = matches!(act, Act::Reply(text) if text.starts_with('2'));
        Ok(if granted { Answered::AsUsual } else { Answered::Otherwise })
    }

    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.log.said(self.number, 'S', octets);
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// Notes if the client has said more before its command is answered.
    async fn check_waits(&mut self, command: &str) {
        let early = poll_fn(|cx| {
            let more = pin!(self.stream.fill_buf()).poll(cx);
            Poll::Ready(matches!(more, Poll::Ready(Ok(octets)) if !octets.is_empty()))
        });
        if early.await {
            self.log.violation(format!("{} {}: more before the reply", self.number, command.trim_end()));
        }
    }
}

/// The address and the parameters of `MAIL FROM:<address> parameters`.
fn path(line: &str) -> (String, Vec<String>) {
    let inner = line.split_once('<').map_or("", |(_, inner)| inner);
    let (address, params) = inner.rsplit_once('>').unwrap_or((inner, ""));
    (address.to_owned(), params.split_whitespace().map(String::from).collect())
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n") + "\r\n"
}
