mod authentication;
mod commands;
mod content;
mod decisions;
mod keywords;
mod step;

pub use step::{Phase, Step};

use std::{fmt, mem, sync::Arc};

use bytes::{Buf, BytesMut};
use empath_common::{Client, Domain, ForwardPath, MessageId, RecipientNotification, Reply, TlsSession};
use jiff::Timestamp;

use step::Next;

use super::{
    AuthConfig, BareNewlines, Config, Limits, Metrics, Mode, Network,
    auth::{Exchange, Identity},
    chunk::Chunk,
    line::Lines,
    log, reply,
    trace::Protocol,
    transaction::{Mail, State},
    verb::Verb,
};

/// What all sessions have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name that we greet with.
    pub hostname: Domain,
    /// How much a client may use.
    pub limits: Limits,
    /// What becomes of bare CR and LF in content.
    pub bare_newlines: BareNewlines,
    /// Whether there are certificates, so that TLS can be offered.
    pub starttls: bool,
    /// Clients from here may schedule messages and choose their priority.
    pub relay_networks: Vec<Network>,
    /// Who may say for whom a connection is.
    pub xclient: Vec<Network>,
    /// How users authenticate, and what they may send as.
    pub auth: AuthConfig,
    /// Whether there will be reports of what becomes of messages, so that they can be asked for (RFC 3461).
    pub dsn: bool,
    /// What is counted.
    pub metrics: Metrics,
}

impl Settings {
    /// The settings that `config` asks for.
    pub fn new(config: &Config, hostname: Domain, metrics: Metrics) -> Self {
        Self {
            hostname,
            limits: config.limits.clone(),
            bare_newlines: config.bare_newlines,
            starttls: !config.tls.is_empty(),
            relay_networks: config.relay_networks.clone(),
            xclient: config.xclient.clone(),
            auth: config.auth.clone(),
            dsn: true,
            metrics,
        }
    }
}

/// The server's side of one SMTP session (RFC 5321), without socket, file, clock or task.
///
/// The driver calls [`step`](Self::step), does what it says, and calls it again:
///
/// | step | before the next step |
/// | --- | --- |
/// | [`Write`](Step::Write) | send the octets |
/// | [`Read`](Step::Read) | put octets into [`buffer`](Self::buffer), or call [`eof`](Self::eof), [`timed_out`](Self::timed_out) or [`shutting_down`](Self::shutting_down) |
/// | [`Ask`](Step::Ask) | call [`decide`](Self::decide) |
/// | [`Authenticate`](Step::Authenticate) | call [`authenticated`](Self::authenticated) |
/// | [`StartTls`](Step::StartTls) | call [`secured`](Self::secured) after the handshake, or close the connection |
/// | [`Begin`](Step::Begin) | call [`begun`](Self::begun) |
/// | [`Content`](Step::Content) | append the octets, or call [`refused_content`](Self::refused_content) |
/// | [`Discard`](Step::Discard) | forget the content |
/// | [`Commit`](Step::Commit) | call [`committed`](Self::committed) |
/// | [`Close`](Step::Close) | nothing: the session is over |
///
/// A client that sends before it is greeted is served in order: what it says waits in the buffer.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    mode: Mode,
    client: Client,
    speaker: Speaker,
    /// What the users file says about the client's user.
    identity: Option<Identity>,
    protocol: Protocol,
    state: State,
    waiting: Waiting,
    /// What was read and not yet consumed. At `Read` no more than the start of a command line is left in it.
    input: BytesMut,
    /// Octets at the start of the input that the driver is working on.
    lent: usize,
    lines: Lines,
    /// What was read last completed a command.
    progress: bool,
    /// Replies that were not sent yet.
    output: Vec<u8>,
    /// The driver is sending the output.
    sending: bool,
    /// The command that has no reply yet.
    working: Option<Verb>,
    /// Those that the last step has answered.
    answered: Vec<Verb>,
    errors: u32,
    idle_commands: u32,
    messages: u32,
    /// Id and time of the message that is starting.
    starting: Option<(MessageId, Timestamp)>,
    driver_has: DriverHas,
    closing: bool,
}

/// Who has connected, whoever it speaks for by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    /// It may say for whom it speaks.
    Proxy,
}

/// What the driver keeps for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DriverHas {
    Nothing,
    /// The octets of a message so far.
    Content,
}

/// Whose answer the session waits for.
#[derive(Debug, Default)]
enum Waiting {
    #[default]
    Nothing,
    /// The client's handshake.
    StartTls,
    Connect,
    /// The client's name is the new one already; this restores it.
    Ehlo(Protocol, Option<Box<str>>),
    Mail(Mail),
    Rcpt(ForwardPath, RecipientNotification),
    Auth(Exchange),
    /// DATA, or the first chunk.
    Data(Option<Chunk>),
    Begin(Option<Chunk>),
    /// The storage works on a message of this many octets.
    Commit(u64),
}

/// Replies are gathered up to this many octets, then sent before any further command is looked at: a client that
/// sends and never reads comes to a halt.
const OUTPUT: usize = 4096;

/// Room for reading while commands are expected; what an idle session holds.
const COMMAND_INPUT: usize = 4096;

/// Least and most room for reading content. It grows with the message.
const CONTENT_INPUT: (usize, usize) = (8 * 1024, 64 * 1024);

impl Session {
    /// A session with a client that has just connected.
    pub fn new(settings: Arc<Settings>, mode: Mode, client: Client) -> Self {
        settings.metrics.connections.increment();
        let mut client = client;
        client.peer.set_ip(client.peer.ip().to_canonical());
        client.local.set_ip(client.local.ip().to_canonical());
        // RFC 8314 §3.3: what comes first is a handshake.
        let waiting = if mode == Mode::Submissions { Waiting::StartTls } else { Waiting::Connect };
        let may_xclient = Network::any(&settings.xclient, client.peer.ip());
        let speaker = if may_xclient { Speaker::Proxy } else { Speaker::Client };
        Self {
            settings,
            mode,
            client,
            speaker,
            identity: None,
            protocol: Protocol::Smtp,
            state: State::default(),
            waiting,
            input: BytesMut::new(),
            lent: 0,
            lines: Lines::default(),
            progress: true,
            output: Vec::new(),
            sending: false,
            working: None,
            answered: Vec::new(),
            errors: 0,
            idle_commands: 0,
            messages: 0,
            starting: None,
            driver_has: DriverHas::Nothing,
            closing: false,
        }
    }

    /// Who is at the other end.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The commands that were answered since the last step began.
    pub(super) fn answered(&self) -> &[Verb] {
        &self.answered
    }

    /// Goes on until somebody else is needed.
    pub fn step(&mut self) -> Step<'_> {
        self.input.advance(mem::take(&mut self.lent));
        self.answered.clear();
        if mem::take(&mut self.sending) {
            self.output.clear();
        }
        match self.next() {
            Next::Write => {
                self.sending = true;
                Step::Write(&self.output)
            }
            Next::Read => Step::Read,
            Next::StartTls => Step::StartTls,
            Next::Ask => self.question().map_or(Step::Close, Step::Ask),
            Next::Authenticate => {
                let address = self.client.peer.ip();
                self.auth_query().map_or(Step::Close, |query| Step::Authenticate(address, query))
            }
            Next::Begin => Step::Begin,
            Next::Mended => match &self.state {
                State::Content(content) => Step::Content(content.mended()),
                _ => Step::Close,
            },
            Next::Content(len) => {
                self.lent = len;
                Step::Content(self.input.get(..len).unwrap_or_default())
            }
            Next::Crlf => Step::Content(b"\r\n"),
            Next::Discard => {
                self.driver_has = DriverHas::Nothing;
                Step::Discard
            }
            Next::Commit(envelope) => {
                self.driver_has = DriverHas::Nothing;
                Step::Commit(envelope)
            }
            Next::Close => Step::Close,
        }
    }

    fn next(&mut self) -> Next {
        loop {
            if self.output.len() >= OUTPUT {
                return Next::Write;
            }
            match self.waiting {
                Waiting::Nothing => {}
                Waiting::StartTls if !self.output.is_empty() => return Next::Write,
                Waiting::StartTls => return Next::StartTls,
                Waiting::Begin(_) => return Next::Begin,
                Waiting::Auth(_) => return Next::Authenticate,
                // A driver that has no answer must not go on.
                Waiting::Commit(_) => return Next::Close,
                _ => return Next::Ask,
            }
            let progress = match self.state {
                _ if self.closing => Some(Next::Close),
                // The transaction has ended between two chunks.
                _ if self.driver_has == DriverHas::Content && !self.state.has_content() => {
                    Some(Next::Discard)
                }
                State::Content(_) => self.content(),
                State::Refused(_) => self.refused_chunk(),
                State::Auth(_) => self.response(),
                _ => self.command(),
            };
            match progress {
                None => {}
                Some(Next::Read | Next::Close) if !self.output.is_empty() => return Next::Write,
                Some(next) => return next,
            }
        }
    }

    /// Where to put what the client sends. It is never more than what is asked for at a time.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let (least, most) = CONTENT_INPUT;
        let room = match &self.state {
            State::Content(content) => usize::try_from(content.expected()).unwrap_or(most).clamp(least, most),
            State::Refused(_) => least,
            _ => COMMAND_INPUT,
        };
        if self.input.is_empty() && self.input.capacity() > room.max(least) {
            self.input = BytesMut::new();
        }
        self.progress = false;
        self.input.reserve(room);
        &mut self.input
    }

    /// What the client is waited for with.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Content(content) if content.has_begun() => Phase::DataBlock,
            State::Content(_) => Phase::DataInit,
            State::Chunks(_) | State::Refused(_) => Phase::DataBlock,
            _ if !self.progress && self.lines.is_inside(&self.input) => Phase::RestOfCommand,
            _ => Phase::Command,
        }
    }

    /// The connection is encrypted. The session starts over, and forgets what it was told in clear text, what stands in
    /// the buffer included: somebody else may have said it (RFC 3207 §4.2).
    pub fn secured(&mut self, tls: TlsSession) {
        log::secured(&self.client, &tls);
        let greeted = self.mode != Mode::Submissions;
        self.waiting = if greeted { Waiting::Nothing } else { Waiting::Connect };
        self.client.tls = Some(tls);
        self.start_over();
        self.input.clear();
        self.lines = Lines::default();
        self.progress = true;
        self.errors = 0;
        self.idle_commands = 0;
    }

    /// Back to before EHLO.
    fn start_over(&mut self) {
        self.client.helo = None;
        self.client.user = None;
        self.identity = None;
        self.protocol = Protocol::Smtp;
        self.state = State::Connected;
    }

    /// The client has closed its side.
    pub fn eof(&mut self) {
        self.closing = true;
    }

    /// The client was too slow.
    pub fn timed_out(&mut self) {
        self.close_with(&reply::TIMED_OUT);
    }

    /// The daemon is going down. Called while a command is waited for.
    pub fn shutting_down(&mut self) {
        self.close_with(&reply::SHUTTING_DOWN);
    }

    /// Policy, a limit or the storage says no.
    fn refuse(&mut self, what: &'static str, subject: &dyn fmt::Display, reply: &Reply) {
        log::refused(&self.client, what, subject, reply);
        self.reply(reply);
    }

    /// Every reply goes out here, so that every error is counted.
    fn reply(&mut self, reply: &Reply) {
        if reply.code.is_permanent() {
            self.errors += 1;
            if self.errors > self.settings.limits.errors {
                return self.close_with(&reply::TOO_MANY_ERRORS);
            }
        }
        if reply.code.is_permanent() || reply.code.is_transient() {
            self.settings.metrics.errors.with(&reply.code.to_string()).increment();
        }
        reply::encode(reply, &mut self.output);
        self.answered.extend(self.working.take());
    }

    fn close_with(&mut self, reply: &Reply) {
        self.reply(reply);
        self.closing = true;
    }
}
