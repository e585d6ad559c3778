use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn a_message_arrives_as_it_is_and_the_connection_takes_the_next() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    assert_eq!(*connection.peer(), peer.address().into());
    for to in ["bob@example.test", "carol@example.test"] {
        let sent = send(&mut connection, &[to]).await;
        assert_eq!(sent.recipients, [Ok(Reply::new(250, (2, 0, 0), "Ok: queued"))]);
        assert!(sent.reusable);
    }
    connection.quit().await;
    let messages = peer.wait_for_messages(2).await;
    assert_eq!(messages[0].from, "alice@home.test");
    assert_eq!(messages[0].to, ["bob@example.test"]);
    assert_eq!(messages[0].params, [format!("SIZE={}", CONTENT.len())]);
    assert_eq!(messages[0].content, CONTENT.as_bytes());
    assert_eq!(messages[1].to, ["carol@example.test"]);
    assert_eq!((messages[0].connection, messages[1].connection), (0, 0));
    assert_eq!(peer.violations(), Vec::<String>::new());
    assert!(peer.transcript().contains("0 C: EHLO client.test\n"), "{}", peer.transcript());
    assert!(peer.transcript().ends_with("0 C: QUIT\n0 S: 221 2.0.0 Bye\n"), "{}", peer.transcript());
}

#[tokio::test]
async fn a_server_without_pipelining_is_never_rushed() {
    let pause = Act::Delay(Duration::from_millis(20));
    let script = Script::new()
        .offer([])
        .on(At::MailFrom, pause.clone())
        .on(At::RcptTo, pause.clone())
        .on(At::Data, pause);
    let (peer, sent) = send_to(script, &["bob@example.test", "carol@example.test"]).await;
    assert!(sent.recipients.iter().all(Result::is_ok) && sent.reusable, "{sent:?}");
    assert_eq!(peer.violations(), Vec::<String>::new());
    assert_eq!(peer.messages()[0].params, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_does_not_know_ehlo_gets_helo() {
    let script = Script::new().on(At::Ehlo, Act::reply("502 5.5.1 What?"));
    let (peer, sent) = send_to(script, &["bob@example.test"]).await;
    assert!(sent.recipients[0].is_ok(), "{sent:?}");
    let plain = "0 C: HELO client.test\n0 S: 250 peer.test\n0 C: MAIL FROM:<alice@home.test>\n";
    assert!(peer.transcript().contains(plain), "{}", peer.transcript());
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_willing_fails_to_open() {
    let mut peer = Peer::start(Script::new()).await.unwrap();
    peer.stop().await;
    let refused = failure(Stage::Connect, FailureKind::Io(io::ErrorKind::ConnectionRefused));
    assert_eq!(open(&peer).await.unwrap_err(), refused);

    let no = || FailureKind::Refused(Reply::plain(554, "no service here"));
    let unexpected = FailureKind::Garbled(GarbledReason::Unexpected);
    let greeting = |act| Script::new().on(At::Greeting, act);
    let ehlo = |act: Act| Script::new().on(At::Ehlo, act.clone()).on(At::Helo, act);
    for (script, stage, kind) in [
        (greeting(Act::Close), Stage::Greeting, FailureKind::Closed),
        (greeting(Act::reply("554 no service here")), Stage::Greeting, no()),
        (
            greeting(Act::reply("SSH-2.0-OpenSSH_9.2")),
            Stage::Greeting,
            FailureKind::Garbled(GarbledReason::NoCode),
        ),
        (greeting(Act::reply("354 go on")), Stage::Greeting, unexpected.clone()),
        (greeting(Act::reply("220 hello\n220 more")), Stage::Ehlo, unexpected),
        (ehlo(Act::Close), Stage::Ehlo, FailureKind::Closed),
        (ehlo(Act::reply("554 no service here")), Stage::Ehlo, no()),
    ] {
        peer.restart_with(script).await.unwrap();
        assert_eq!(open(&peer).await.unwrap_err(), failure(stage, kind));
    }
}

#[tokio::test]
async fn a_host_that_does_not_take_the_connection_is_not_waited_for_forever() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let short = Duration::from_millis(100);
    let timeouts = Arc::new(Timeouts { connect: short, greeting: short, ..Timeouts::default() });
    // Nobody accepts: when the queue is full, the system answers no more.
    for _ in 0..10 {
        let failed = Connection::open(
            &Sockets,
            (&Target::from(address)).into(),
            Hello::smtp("client.test"),
            timeouts.clone(),
        )
        .await
        .unwrap_err();
        assert_eq!(failed.kind, FailureKind::Timeout);
        if failed.stage == Stage::Connect {
            return;
        }
    }
    panic!("the connection was always taken");
}

#[tokio::test]
async fn a_server_that_closes_at_any_step_defers_everybody() {
    for (at, stage) in [
        (At::MailFrom, Stage::MailFrom),
        (At::RcptTo, Stage::RcptTo),
        (At::Data, Stage::Data),
        // The final dot is out: the server may have the message, and did not say so.
        (At::EndOfData, Stage::EndOfData),
    ] {
        for keywords in [&["PIPELINING"][..], &[]] {
            let script = Script::new().offer(keywords.iter().copied()).on(at.clone(), Act::Close);
            let (_, sent) = send_to(script, &["bob@example.test", "carol@example.test"]).await;
            let closed = Err(failure(stage, FailureKind::Closed));
            assert_eq!(
                sent,
                Sent { recipients: vec![closed; 2], notifies: false, reusable: false },
                "{at:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_421_at_any_step_is_the_result_and_the_end() {
    for (at, stage) in [
        (At::MailFrom, Stage::MailFrom),
        (At::RcptTo, Stage::RcptTo),
        (At::Data, Stage::Data),
        (At::EndOfData, Stage::EndOfData),
    ] {
        let script = Script::new().on(at.clone(), Act::reply_and_close("421 4.3.2 shutting down"));
        let (_, sent) = send_to(script, &["bob@example.test"]).await;
        let bye = Err(failure(stage, FailureKind::Refused(Reply::new(421, (4, 3, 2), "shutting down"))));
        assert_eq!(sent, Sent { recipients: vec![bye], notifies: false, reusable: false }, "{at:?}");
    }
}

#[tokio::test]
async fn garbage_in_place_of_a_reply_defers_and_ends_the_connection() {
    for (octets, reason) in [
        ("ok\r\n".to_owned(), GarbledReason::NoCode),
        ("999 ok\r\n".to_owned(), GarbledReason::Code),
        ("250-ok\r\n251 ok\r\n".to_owned(), GarbledReason::MixedCodes),
        ("2".repeat(MAX_LINE + 1), GarbledReason::LineTooLong),
        ("250-ok\r\n".repeat(1000), GarbledReason::TooLong),
    ] {
        let script = Script::new().on(At::EndOfData, Act::raw(octets));
        let (_, sent) = send_to(script, &["bob@example.test"]).await;
        let garbled = Err(failure(Stage::EndOfData, FailureKind::Garbled(reason)));
        assert_eq!(sent, Sent { recipients: vec![garbled], notifies: false, reusable: false });
    }
}

#[tokio::test]
async fn recipients_are_told_apart_and_the_next_message_starts_clean() {
    let script = Script::new()
        .on(At::Recipient("bob@example.test".into()), Act::reply("550-5.1.1 no\n550 5.1.1 such user"))
        .nth(At::Recipient("carol@example.test".into()), 1, Act::reply("451 4.7.1 greylisted"));
    let peer = Peer::start(script).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    let refused = |reply| Err(failure(Stage::RcptTo, FailureKind::Refused(reply)));
    let no = refused(Reply::new(550, (5, 1, 1), "no\nsuch user"));
    let wait = refused(Reply::new(451, (4, 7, 1), "greylisted"));

    let sent = send(&mut connection, &["bob@example.test", "carol@example.test"]).await;
    assert_eq!(sent, Sent { recipients: vec![no.clone(), wait], notifies: false, reusable: true });
    let to = ["bob@example.test", "carol@example.test", "dave@example.test"];
    let sent = send(&mut connection, &to).await;
    assert_eq!(sent.recipients[0], no);
    assert!(sent.recipients[1].is_ok() && sent.recipients[2].is_ok() && sent.reusable, "{sent:?}");
    assert_eq!(peer.messages().len(), 1);
    assert_eq!(peer.messages()[0].to, ["carol@example.test", "dave@example.test"]);
}

#[tokio::test]
async fn content_for_nobody_is_a_lone_dot() {
    let script = Script::new()
        .on(At::RcptTo, Act::reply("550 5.1.1 no such user"))
        .on(At::Data, Act::reply("354 go on"));
    let (peer, sent) = send_to(script, &["bob@example.test"]).await;
    assert!(sent.recipients[0].is_err() && sent.reusable, "{sent:?}");
    assert!(peer.messages().iter().all(|message| message.content.is_empty() && message.to.is_empty()));
    assert!(peer.transcript().contains("0 S: 354 go on\n0 C: .\n"), "{}", peer.transcript());
}

#[tokio::test]
async fn large_content_passes_and_so_does_content_that_must_be_changed() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    let clean = format!("{}\r\n", "x".repeat(98)).repeat(30_000);
    let dirty = clean.replace("\r\n", "\n.\n");
    let canonical = clean.replace("\r\n", "\r\n.\r\n");
    for (content, arrives) in [(clean.clone(), clean), (dirty, canonical)] {
        let sent = send_content(&mut connection, &["bob@example.test"], content).await;
        assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
        assert!(peer.messages().pop().unwrap().content == arrives.into_bytes());
    }
}

#[tokio::test]
async fn content_in_pieces_arrives_as_if_it_were_one() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    let pieces = ["Subject: hi\r", "\n\r\n.dot", "\r\n", ".", "\r\n..\r\nno end", ".\r", "\r\n", "", "\n."];
    let pieces = || Pieces(pieces.into_iter().map(|piece| Ok(piece.into())).collect());
    let survey = Survey::of(pieces()).await.unwrap();
    let sent = connection.send(&message(&["bob@example.test"], survey), pieces()).await;
    assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
    let arrived = String::from_utf8(peer.messages().pop().unwrap().content).unwrap();
    assert_eq!(arrived, "Subject: hi\r\n\r\n.dot\r\n.\r\n..\r\nno end.\r\n\r\n\r\n.\r\n");
}

#[tokio::test]
async fn content_that_cannot_be_read_to_its_end_is_never_ended() {
    let piece = || Ok(Bytes::from_static(b"Subject: hi\r\n\r\n"));
    let damaged = || Err(io::ErrorKind::InvalidData.into());
    for pieces in [vec![damaged()], vec![piece(), damaged()], vec![piece(), piece(), damaged()]] {
        let peer = Peer::start(Script::new()).await.unwrap();
        let mut connection = open(&peer).await.unwrap();
        let survey = Survey::of(Bytes::from_static(CONTENT.as_bytes())).await.unwrap();
        let message = message(&["bob@example.test", "carol@example.test"], survey);
        let sent = connection.send(&message, Pieces(pieces.into())).await;
        let unreadable = Err(failure(Stage::Content, FailureKind::Unreadable));
        assert_eq!(sent, Sent { recipients: vec![unreadable; 2], notifies: false, reusable: false });
        connection.quit().await;
        peer.wait_until_left().await;
        assert_eq!(peer.messages().len(), 0);
        assert!(peer.transcript().contains("S: 354"), "the content had begun: {}", peer.transcript());
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_the_content_is_heard() {
    let large = Bytes::from(format!("{}\r\n", "x".repeat(998)).repeat(16_000));
    let refused = FailureKind::Refused(Reply::new(552, (5, 3, 4), "too large"));
    let unexpected = FailureKind::Garbled(GarbledReason::Unexpected);
    for (act, kinds) in [
        (Act::reply("552 5.3.4 too large"), [&refused, &refused]),
        (Act::reply_and_close("552 5.3.4 too large"), [&refused, &FailureKind::Closed]),
        // It can't have accepted what it has not read.
        (Act::reply("250 2.0.0 fine"), [&unexpected, &unexpected]),
        (Act::reply_and_close("250 2.0.0 fine"), [&unexpected, &FailureKind::Closed]),
        (Act::Close, [&FailureKind::Closed, &FailureKind::Closed]),
    ] {
        let peer = Peer::start(Script::new().on(At::Content, act)).await.unwrap();
        let mut connection = open(&peer).await.unwrap();
        let sent = send_content(&mut connection, &["bob@example.test"], large.clone()).await;
        let [Err(Failure { stage: Stage::Content, kind })] = &sent.recipients[..] else { panic!("{sent:?}") };
        assert!(kinds.contains(&kind), "{kind:?} is none of {kinds:?}");
        assert!(!sent.reusable);
    }
}

/// Pieces of content, the third of which waits until it may come.
struct Halting(u32, Option<oneshot::Receiver<()>>);

impl Source for Halting {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0 += 1;
        if self.0 == 3
            && let Some(go_on) = self.1.take()
        {
            go_on.await.unwrap();
        }
        Ok((self.0 <= 3).then(|| "x\r\n".into()))
    }
}

#[tokio::test]
async fn an_acceptance_of_content_that_is_still_to_come_is_none() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (said, heard) = oneshot::channel();
    tokio::spawn(async move {
        theirs.write_all(b"220 x\r\n").await.unwrap();
        for reply in ["250 x\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", "250 2.0.0 fine\r\n"] {
            while theirs.read_u8().await.unwrap() != b'\n' {}
            theirs.write_all(reply.as_bytes()).await.unwrap();
        }
        said.send(()).unwrap();
        while theirs.read_u8().await.is_ok() {}
    });
    let mut connection = greet(ours, Timeouts::default()).await.unwrap();
    let survey = Survey::of(Halting(0, None)).await.unwrap();
    let sent = connection.send(&message(&["bob@example.test"], survey), Halting(0, Some(heard))).await;
    let unexpected = Err(failure(Stage::Content, FailureKind::Garbled(GarbledReason::Unexpected)));
    assert_eq!(sent, Sent { recipients: vec![unexpected], notifies: false, reusable: false });
}

#[tokio::test]
async fn a_server_that_refuses_the_content_before_it_has_any_of_it_is_heard() {
    let unexpected = FailureKind::Garbled(GarbledReason::Unexpected);
    for (said, kind) in [
        ("550 5.7.1 not from you", FailureKind::Refused(Reply::new(550, (5, 7, 1), "not from you"))),
        ("421 4.3.2 bye", FailureKind::Refused(Reply::new(421, (4, 3, 2), "bye"))),
        ("250 2.0.0 fine", unexpected),
    ] {
        let script = Script::new().on(At::Data, Act::reply_and_close(format!("354 go on\n{said}")));
        let (_peer, sent) = send_to(script, &["bob@example.test"]).await;
        let refused = Err(failure(Stage::Content, kind));
        assert_eq!(sent, Sent { recipients: vec![refused], notifies: false, reusable: false });
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_server_ends_is_noticed() {
    for act in [Act::Close, Act::reply("421 4.4.2 idle too long")] {
        let peer = Peer::start(Script::new().nth(At::Idle, 1, act)).await.unwrap();
        let mut connection = open(&peer).await.unwrap();
        assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
        connection.closed().await;
        let sent = send(&mut connection, &["carol@example.test"]).await;
        let closed = Err(failure(Stage::MailFrom, FailureKind::Closed));
        assert_eq!(sent, Sent { recipients: vec![closed], notifies: false, reusable: false });
        connection.quit().await;
        assert_eq!(peer.messages().len(), 1);
    }
}

#[tokio::test]
async fn an_idle_connection_that_lives_is_left_alone() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    tokio::select! {
        biased;
        () = connection.closed() => panic!("closed"),
        () = std::future::ready(()) => {}
    }
    assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
}

#[tokio::test]
async fn a_connection_left_in_the_middle_takes_no_further_message() {
    let peer = Peer::start(Script::new().on(At::MailFrom, Act::Stall)).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    tokio::select! {
        biased;
        sent = send(&mut connection, &["bob@example.test"]) => panic!("{sent:?}"),
        () = std::future::ready(()) => {}
    }
    let sent = send(&mut connection, &["carol@example.test"]).await;
    assert_eq!(sent.recipients, [Err(failure(Stage::MailFrom, FailureKind::Closed))]);
    assert!(!sent.reusable);
}
