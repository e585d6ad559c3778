//! Every dialogue of `tests/dialogues`, played in four ways.

use std::{fs, path::Path, sync::Arc};

use empath_common::Envelope;
use empath_smtp::server::{Session, Timeouts, serve};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    intake::Shelf,
    machine::{self, Machine},
    script::{Message, Script, Step, matches},
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
    for (name, script) in scripts() {
        if !script.steps.iter().any(|step| matches!(step, Step::Timeout)) {
            runtime.block_on(play_tcp(&format!("{name}, over TCP"), &script));
        }
    }
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
            Step::Line(_) | Step::Lines(_) => {
                let output = machine.output();
                let mut lines = output.get(seen..).unwrap().split_inclusive("\r\n");
                expect(context, step, &mut lines);
                seen = output.len() - lines.map(str::len).sum::<usize>();
            }
        }
    }
    assert_eq!(machine.output().get(seen..), Some(""), "{context}: there is no further reply");
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

fn check_messages(context: &str, expected: &[Message], shelf: &Shelf) {
    let messages = shelf.messages();
    let envelopes: Vec<_> = messages.iter().map(|(envelope, _)| written(envelope)).collect();
    let expected_envelopes: Vec<_> = expected.iter().map(|message| message.envelope.as_str()).collect();
    assert_eq!(envelopes, expected_envelopes, "{context}: messages");
    for (message, (_, content)) in expected.iter().zip(&messages) {
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

async fn play_tcp(context: &str, script: &Script) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let shelf = Shelf::failing(script.failing);
    let server = machine::server(&script.config, &shelf);
    let session = Session::new(Arc::clone(&server.settings), machine::client(script.peer));
    let stop = CancellationToken::new();
    let (timeouts, stopped) = (Timeouts::default(), stop.clone());
    let served = async { serve(accepted, session, &server, &timeouts, &stopped).await };
    let client = async {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        for step in &script.steps {
            match step {
                // The server may have closed already.
                Step::Send(octets) => drop(write.write_all(octets).await),
                Step::Eof => write.shutdown().await.unwrap(),
                Step::Shutdown => stop.cancel(),
                Step::Timeout => {}
                Step::Line(_) | Step::Lines(_) => {
                    let mut reply = Vec::new();
                    loop {
                        let mut line = String::new();
                        read.read_line(&mut line).await.unwrap();
                        let more = matches!(step, Step::Lines(_)) && line.as_bytes().get(3) == Some(&b'-');
                        reply.push(line);
                        if !more {
                            break;
                        }
                    }
                    expect(context, step, &mut reply.iter().map(String::as_str));
                }
            }
        }
        drop(write.shutdown().await);
        let mut rest = String::new();
        read.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "", "{context}: there is no further reply");
    };
    tokio::join!(served, client);
    check_messages(context, &script.messages, &shelf);
    assert_eq!(shelf.drafts(), 0, "{context}: nothing is left behind");
}
