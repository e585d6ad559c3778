//! CHUNKING (RFC 3030) and LIMITS (RFC 9422).

use super::*;

const KEYWORDS: [&str; 3] = ["PIPELINING", "CHUNKING", "LIMITS MAILMAX=2"];

fn chunking() -> Script {
    Script::new().offer(["PIPELINING", "CHUNKING", "SIZE"])
}

#[tokio::test]
async fn content_goes_in_chunks_where_they_are_offered_and_nothing_is_stuffed() {
    for keywords in [&["PIPELINING", "CHUNKING"][..], &["CHUNKING"]] {
        let peer = Peer::start(Script::new().offer(keywords.iter().copied())).await.unwrap();
        let mut connection = open(&peer).await.unwrap();
        let large = format!("{}\r\n.\r\n", "x".repeat(93)).repeat(30_000);
        for content in [CONTENT.to_owned(), large] {
            let sent = send_content(&mut connection, &["bob@example.test"], content.clone()).await;
            assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
            assert!(peer.messages().pop().unwrap().content == content.into_bytes());
        }
        assert!(!peer.transcript().contains("C: DATA") && !peer.transcript().contains("C: ."));
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn content_in_pieces_is_several_chunks_and_only_the_last_is_said_to_be() {
    let peer = Peer::start(chunking()).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    let pieces = || Pieces(["Subject: hi\r", "\n\r\n.dot\n", "no end"].map(|piece| Ok(piece.into())).into());
    let survey = Survey::of(pieces()).await.unwrap();
    let sent = connection.send(&message(&["bob@example.test"], survey), pieces()).await;
    assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
    assert_eq!(peer.messages()[0].content, b"Subject: hi\r\n\r\n.dot\r\nno end\r\n");
    let said = peer.transcript();
    let chunks: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("0 C: BDAT ")).collect();
    assert_eq!(chunks, ["1", "12", "8", "8 LAST"], "{said}");
}

#[tokio::test]
async fn content_that_cannot_be_read_to_its_end_has_no_last_chunk() {
    let peer = Peer::start(chunking()).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    let survey = Survey::of(Bytes::from_static(CONTENT.as_bytes())).await.unwrap();
    let pieces =
        Pieces(vec![Ok("a\r\n".into()), Ok("b\r\n".into()), Err(io::ErrorKind::InvalidData.into())].into());
    let sent = connection.send(&message(&["bob@example.test"], survey), pieces).await;
    let unreadable = Err(failure(Stage::Content, FailureKind::Unreadable));
    assert_eq!(sent, Sent { recipients: vec![unreadable], notifies: false, reusable: false });
    drop(connection);
    peer.wait_until_left().await;
    assert_eq!(peer.messages().len(), 0);
    assert!(!peer.transcript().contains("LAST"), "{}", peer.transcript());
}

#[tokio::test]
async fn a_refused_chunk_is_the_result_and_the_next_message_passes() {
    let too_large = Act::reply("552 5.3.4 too large");
    let peer = Peer::start(chunking().nth(At::Chunk, 2, too_large)).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    let pieces = || Pieces((0..40).map(|_| Ok("x\r\n".into())).collect());
    let survey = Survey::of(pieces()).await.unwrap();
    let sent = connection.send(&message(&["bob@example.test"], survey), pieces()).await;
    let refused = FailureKind::Refused(Reply::new(552, (5, 3, 4), "too large"));
    assert_eq!(sent.recipients, [Err(failure(Stage::Content, refused))]);
    assert!(sent.reusable);
    assert!(!peer.transcript().contains("LAST"), "it is heard before all is sent: {}", peer.transcript());
    assert!(send(&mut connection, &["carol@example.test"]).await.recipients[0].is_ok());
    assert_eq!(peer.messages().len(), 1);
}

#[tokio::test]
async fn a_server_that_closes_among_chunks_is_heard() {
    for (act, expected) in [
        (Act::Close, FailureKind::Closed),
        (Act::reply_and_close("421 4.3.2 bye"), FailureKind::Refused(Reply::new(421, (4, 3, 2), "bye"))),
    ] {
        for keywords in [&["PIPELINING", "CHUNKING"][..], &["CHUNKING"]] {
            let script = Script::new().offer(keywords.iter().copied()).nth(At::Chunk, 1, act.clone());
            let (_peer, connection) = served(script, Timeouts::default()).await;
            let pieces = || Pieces((0..9).map(|_| Ok("x\r\n".into())).collect());
            let survey = Survey::of(pieces()).await.unwrap();
            let sent = connection.unwrap().send(&message(&["bob@example.test"], survey), pieces()).await;
            let result = Err(failure(Stage::Content, expected.clone()));
            assert_eq!(sent, Sent { recipients: vec![result], notifies: false, reusable: false });
        }
    }
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_is_not_one_to_a_chunk() {
    for keywords in [&["PIPELINING", "CHUNKING"][..], &["CHUNKING"]] {
        let script = Script::new()
            .offer(keywords.iter().copied())
            .on(At::RcptTo, Act::reply("250 2.1.5 Ok\n250 2.0.0 queued"))
            .on(At::EndOfData, Act::reply("554 5.7.1 no"));
        let (_, sent) = send_to(script, &["bob@example.test"]).await;
        let unexpected = FailureKind::Garbled(GarbledReason::Unexpected);
        let result = Err(failure(Stage::Content, unexpected));
        assert_eq!(sent, Sent { recipients: vec![result], notifies: false, reusable: false });
    }
}

#[tokio::test]
async fn what_is_forgone_is_not_used() {
    let peer = Peer::start(Script::new().offer(KEYWORDS)).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    connection.forgo(true, true);
    assert!(send(&mut connection, &["bob@example.test"]).await.recipients[0].is_ok());
    let said = peer.transcript();
    assert!(said.contains("C: RCPT TO:<bob@example.test>\n0 S: 250 2.1.5 Ok\n0 C: DATA"), "{said}");
}

#[tokio::test]
async fn a_connection_takes_no_more_messages_than_the_server_does() {
    let peer = Peer::start(Script::new().offer(KEYWORDS)).await.unwrap();
    let mut connection = open(&peer).await.unwrap();
    assert!(send(&mut connection, &["bob@example.test"]).await.reusable);
    let last = send(&mut connection, &["bob@example.test"]).await;
    assert!(last.recipients[0].is_ok() && !last.reusable, "{last:?}");
}
