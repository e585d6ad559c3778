//! Every dialogue of `tests/dialogues`, played in five ways.

use std::{fs, io, mem, path::Path, sync::Arc};

use empath_common::{EnhancedStatus, Envelope, FutureRelease};
use empath_smtp::server::{Authenticator, Session, Timeouts, Tls, serve};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::{self, Authority},
    intake::Shelf,
    machine::{self, Machine},
    script::{Message, Script, Step, matches},
    users,
};

fn scripts() -> Vec<(String, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut scripts: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), Script::parse(&text))
        })
        .collect();
    scripts.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert!(scripts.len() >= 60, "the dialogues are there");
    scripts
}

#[test]
fn the_machine_alone() {
    for (name, script) in scripts() {
        play(&format!("{name}, line by line"), &script, usize::MAX);
    }
}

#[test]
fn octet_by_octet() {
    for (name, script) in scripts() {
        play(&format!("{name}, octet by octet"), &script, 1);
    }
}

#[test]
fn all_in_one_write() {
    for (name, script) in scripts().into_iter().filter(|(_, script)| script.is_plain()) {
        let shelf = Shelf::failing(script.failing);
        let mut machine = Machine::new(&script.config, script.peer, &shelf);
        let sent = script.steps.iter().filter_map(|step| match step {
            Step::Send(octets) => Some(octets.as_slice()),
            _ => None,
        });
        machine.feed(&sent.collect::<Vec<_>>().concat());
        let context = format!("{name}, in one write");
        let output = machine.output();
        let mut lines = output.split_inclusive("\r\n");
        for step in &script.steps {
            expect(&context, step, &mut lines);
        }
        assert_eq!(lines.next(), None, "{context}: there is no further reply");
        check_messages(&context, &script.messages, &shelf);
    }
}

#[test]
fn over_tcp() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let authority = Authority::new();
    for (name, script) in over_the_network() {
        runtime.block_on(play_tcp(&format!("{name}, over TCP"), &script, &authority, false));
    }
}

#[test]
fn over_tls() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let authority = Authority::new();
    let says = |step: &Step| matches!(step, Step::Send(octets) if octets.starts_with(b"STARTTLS"));
    for (name, mut script) in over_the_network().filter(|(_, script)| !script.steps.iter().any(says)) {
        for text in script.messages.iter_mut().flat_map(|message| &mut message.trace) {
            *text = text
                .replace("SMTP id", "SMTPS id")
                .replace("ESMTPA id", "ESMTPSA id")
                .replace("with SMTPS id", "with SMTP id");
            // The clause about TLS follows.
            *text = text.trim_end_matches(';').to_owned();
        }
        runtime.block_on(play_tcp(&format!("{name}, over TLS"), &script, &authority, true));
    }
}

fn over_the_network() -> impl Iterator<Item = (String, Script)> {
    let waits = |script: &Script| script.steps.iter().any(|step| matches!(step, Step::Timeout));
    scripts().into_iter().filter(move |(_, script)| !waits(script))
}

fn play(context: &str, script: &Script, chunk: usize) {
    let shelf = Shelf::failing(script.failing);
    let mut machine = Machine::new(&script.config, script.peer, &shelf);
    let mut seen = 0;
    for step in &script.steps {
        match step {
            Step::Send(octets) => octets.chunks(chunk).for_each(|chunk| machine.feed(chunk)),
            Step::Eof => {
                machine.session.eof();
                machine.run();
            }
            Step::Timeout => {
                machine.session.timed_out();
                machine.run();
            }
            Step::Shutdown => {
                machine.stopping = true;
                machine.run();
            }
            Step::StartTls => machine.handshake(),
            Step::Line(_) | Step::Lines(_) => {
                let output = machine.output();
                let mut lines = output.get(seen..).unwrap().split_inclusive("\r\n");
                expect(context, step, &mut lines);
                seen = output.len() - lines.map(str::len).sum::<usize>();
            }
        }
    }
    assert_eq!(machine.output().get(seen..), Some(""), "{context}: there is no further reply");
    check_statuses(context, &machine.output());
    check_messages(context, &script.messages, &shelf);
    assert!(shelf.drafts() == 0 || !machine.closed, "{context}: nothing is left behind");
}

/// Takes the reply that `step` expects from `lines`.
fn expect<'a>(context: &str, step: &Step, lines: &mut impl Iterator<Item = &'a str>) {
    let mut line = || {
        let line = lines.next().unwrap_or_else(|| panic!("{context}: no reply, but expected {step:?}"));
        assert!(line.len() <= 512, "{context}: a reply line has at most 512 octets");
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{context}: {line:?} has no CRLF"))
    };
    match step {
        Step::Line(pattern) => {
            let line = line();
            assert!(matches(pattern, line), "{context}: expected {pattern:?}, got {line:?}");
        }
        Step::Lines(pattern) => loop {
            let line = line();
            if line.as_bytes().get(3) == Some(&b' ') {
                assert!(matches(pattern, line), "{context}: expected {pattern:?}, got {line:?}");
                return;
            }
            assert_eq!(line.get(..3), pattern.get(..3), "{context}: every line has the code");
        },
        _ => {}
    }
}

/// RFC 2034 §4: every line begins with a status of the class of its code, the same in all lines of a reply. The greeting,
/// 3yz and what is said to EHLO and HELO have none.
fn check_statuses(context: &str, output: &str) {
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        let mut reply = vec![line];
        while reply.last().unwrap().as_bytes().get(3) == Some(&b'-') {
            reply.extend(lines.next());
        }
        let text = line.get(4..).unwrap();
        let without = ["mx.test.example", "A domain or address literal"];
        if line.starts_with('3') || without.iter().any(|start| text.starts_with(start)) {
            continue;
        }
        let status = text.split(' ').next().unwrap();
        assert!(status.parse::<EnhancedStatus>().is_ok(), "{context}: {line}");
        assert_eq!(status.get(..1), line.get(..1), "{context}: {line}");
        assert!(reply.iter().all(|line| line.get(4..).unwrap().starts_with(status)), "{context}: {reply:?}");
    }
}

fn check_messages(context: &str, expected: &[Message], shelf: &Shelf) {
    let messages = shelf.messages();
    let envelopes: Vec<_> = messages.iter().map(|(envelope, _)| written(envelope)).collect();
    let expected_envelopes: Vec<_> = expected.iter().map(|message| message.envelope.as_str()).collect();
    assert_eq!(envelopes, expected_envelopes, "{context}: messages");
    for (message, (envelope, content)) in expected.iter().zip(&messages) {
        assert_eq!(asked(envelope), message.asked, "{context}: what the sender asked");
        let content = String::from_utf8_lossy(content);
        let (trace, content) = split_trace(&content);
        for text in &message.trace {
            assert!(trace.contains(text.as_str()), "{context}: {text:?} is in {trace:?}");
        }
        if !message.content.is_empty() {
            let lines = message.content.join("\r\n") + "\r\n";
            assert_eq!(content, lines, "{context}: content");
        }
    }
}

fn written(envelope: &Envelope) -> String {
    let recipients: Vec<_> = envelope.recipients().iter().map(ToString::to_string).collect();
    format!("{} -> {}", envelope.reverse_path, recipients.join(","))
}

/// What the sender asked, about the message and about recipients.
fn asked(envelope: &Envelope) -> Vec<String> {
    let parameter = |name: &str, value: Option<String>| value.map(|value| format!("{name}={value}"));
    let hold = envelope.future_release.map(|hold| match hold {
        FutureRelease::For(seconds) => format!("HOLDFOR={seconds}"),
        FutureRelease::Until(time) => format!("HOLDUNTIL={time}"),
    });
    let of_message = [
        parameter("RET", envelope.notification().ret.map(|ret| ret.to_string())),
        parameter("ENVID", envelope.notification().envid.as_ref().map(|id| id.as_str().to_owned())),
        hold,
        parameter("MT-PRIORITY", envelope.mt_priority.map(|priority| priority.to_string())),
    ];
    let of_recipients = envelope.notifications().map(|(number, asked)| {
        [
            Some(envelope.recipients().get(number).unwrap().to_string()),
            parameter("NOTIFY", asked.notify.map(|notify| notify.to_string())),
            parameter("ORCPT", asked.orcpt.as_ref().map(|orcpt| orcpt.as_str().to_owned())),
        ]
    });
    let line = |words: &[Option<String>]| words.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    let lines = [line(&of_message)].into_iter().chain(of_recipients.map(|words| line(&words)));
    lines.filter(|line| !line.is_empty()).collect()
}

/// The `Received` field that reception added, and the client's content.
fn split_trace(content: &str) -> (&str, &str) {
    assert!(content.starts_with("Received: from "), "{content:?}");
    let mut len = 0;
    for (i, line) in content.split_inclusive("\r\n").enumerate() {
        if i > 0 && !line.starts_with('\t') {
            break;
        }
        len += line.len();
    }
    content.split_at(len)
}

/// A client's end of a connection.
trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

struct Peer<'a> {
    stream: BufReader<Box<dyn Wire>>,
    authority: &'a Authority,
}

impl Peer<'_> {
    async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line
    }

    /// A whole reply.
    async fn reply(&mut self) -> Vec<String> {
        let mut reply = vec![self.line().await];
        while reply.last().and_then(|line| line.as_bytes().get(3)) == Some(&b'-') {
            reply.push(self.line().await);
        }
        reply
    }

    async fn encrypt(&mut self) {
        assert_eq!(self.stream.buffer(), b"", "nothing in clear text behind the reply to STARTTLS");
        let clear = mem::replace(&mut self.stream, BufReader::new(Box::new(tokio::io::empty())));
        let client = self.authority.client();
        let encrypted =
            certificates::handshake(&client, "mx.test.example", clear.into_inner()).await.unwrap();
        self.stream = BufReader::new(Box::new(encrypted));
    }

    /// Starts TLS before the dialogue begins; what the server greeted with.
    async fn encrypt_first(&mut self) -> String {
        let greeting = self.line().await;
        self.send(b"EHLO before.example\r\n").await.unwrap();
        self.reply().await;
        self.send(b"STARTTLS\r\n").await.unwrap();
        assert_eq!(self.line().await, "220 2.0.0 Ready to start TLS\r\n");
        self.encrypt().await;
        greeting
    }

    async fn play(
        &mut self,
        context: &str,
        script: &Script,
        mut greeting: Option<String>,
        stop: &CancellationToken,
    ) {
        for step in &script.steps {
            match step {
                // The server may have closed already.
                Step::Send(octets) => drop(self.send(octets).await),
                Step::Eof => self.stream.shutdown().await.unwrap(),
                Step::Shutdown => stop.cancel(),
                Step::StartTls => self.encrypt().await,
                Step::Timeout => {}
                Step::Line(_) | Step::Lines(_) => {
                    let reply = match (greeting.take(), step) {
                        (Some(greeting), _) => vec![greeting],
                        (None, Step::Lines(_)) => self.reply().await,
                        (None, _) => vec![self.line().await],
                    };
                    expect(context, step, &mut reply.iter().map(String::as_str));
                }
            }
        }
        drop(self.stream.shutdown().await);
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "", "{context}: there is no further reply");
    }
}

async fn play_tcp(context: &str, script: &Script, authority: &Authority, encrypt: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let shelf = Shelf::failing(script.failing);
    let needed = encrypt || !script.config.tls.is_empty();
    let mut config = if needed { authority.certify(&script.config) } else { script.config.clone() };
    if let Some(file) = &mut config.auth.users_file {
        *file = authority.file("users", users::FILE);
    }
    let auth = Authenticator::load(&config.auth).unwrap();
    let server = machine::server(&config, &shelf).with_tls(Tls::load(&config).unwrap()).with_auth(auth);
    let client = machine::client(script.peer);
    let session = Session::new(Arc::clone(&server.settings), machine::mode(&config), client);
    let stop = CancellationToken::new();
    let (timeouts, stopped) = (Timeouts::default(), stop.clone());
    let served = async { serve(accepted, session, &server, &timeouts, &stopped).await };
    let client = async {
        let mut peer = Peer { stream: BufReader::new(Box::new(stream)), authority };
        let greeting = if encrypt { Some(peer.encrypt_first().await) } else { None };
        peer.play(context, script, greeting, &stop).await;
    };
    tokio::join!(served, client);
    check_messages(context, &script.messages, &shelf);
    assert_eq!(shelf.drafts(), 0, "{context}: nothing is left behind");
}
