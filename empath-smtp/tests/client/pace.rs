//! Time, which is paused.

use tokio::time::timeout;

use super::*;

#[tokio::test(start_paused = true)]
async fn every_step_has_its_own_time() {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts {
        connect: 99 * second,
        greeting: 2 * second,
        ehlo: 3 * second,
        starttls: 98 * second,
        mail_from: 4 * second,
        rcpt_to: 5 * second,
        data: 6 * second,
        data_block: 7 * second,
        data_termination: 8 * second,
        transaction: 99 * second,
        quit: 9 * second,
    };
    for (at, stage, seconds) in [
        (At::Greeting, Stage::Greeting, 2),
        (At::Ehlo, Stage::Ehlo, 3),
        (At::MailFrom, Stage::MailFrom, 4),
        (At::RcptTo, Stage::RcptTo, 5),
        (At::Data, Stage::Data, 6),
        (At::Content, Stage::Content, 7),
        (At::EndOfData, Stage::EndOfData, 8),
    ] {
        let start = tokio::time::Instant::now();
        let (_peer, connection) = served(Script::new().on(at.clone(), Act::Stall), timeouts.clone()).await;
        let failed = match connection {
            Err(failure) => failure,
            Ok(mut connection) => send_long(&mut connection).await.recipients.remove(0).unwrap_err(),
        };
        assert_eq!(failed, failure(stage, FailureKind::Timeout), "{at:?}");
        assert_eq!(start.elapsed().as_secs(), seconds, "{at:?}");
    }

    // RSET and QUIT: nobody's result depends on them.
    let start = tokio::time::Instant::now();
    let script = Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no")).on(At::Rset, Act::Stall);
    let (_peer, connection) = served(script, timeouts.clone()).await;
    let sent = send_long(&mut connection.unwrap()).await;
    assert!(matches!(sent.recipients[0], Err(Failure { stage: Stage::RcptTo, .. })), "{sent:?}");
    assert!(!sent.reusable);
    assert_eq!(start.elapsed().as_secs(), 9);

    let start = tokio::time::Instant::now();
    let (_peer, connection) = served(Script::new().on(At::Quit, Act::Stall), timeouts).await;
    connection.unwrap().quit().await;
    assert_eq!(start.elapsed().as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_waited_for() {
    let seconds = |seconds| Act::Delay(Duration::from_secs(seconds));
    let script = Script::new()
        .on(At::Greeting, seconds(280))
        .on(At::MailFrom, seconds(280))
        .on(At::RcptTo, seconds(280))
        .on(At::Data, seconds(110))
        .on(At::Content, seconds(170))
        .on(At::EndOfData, seconds(590));
    let (_peer, connection) = served(script, Timeouts::default()).await;
    let sent = send_long(&mut connection.unwrap()).await;
    assert!(sent.recipients[0].is_ok(), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_without_a_sign_of_life_has_ended_and_is_not_waited_for_long() {
    let (minutes, seconds) = (Duration::from_mins(5), Duration::from_secs(4));
    for (was_idle, mail_from, kind, waited) in [
        (true, minutes, FailureKind::Closed, 10),
        (true, seconds, FailureKind::Closed, 4),
        (false, minutes, FailureKind::Timeout, 300),
    ] {
        let script = Script::new().nth(At::MailFrom, 2, Act::Stall);
        let (_peer, connection) = served(script, Timeouts { mail_from, ..Timeouts::default() }).await;
        let mut connection = connection.unwrap();
        assert!(send_long(&mut connection).await.recipients[0].is_ok());
        if was_idle {
            timeout(Duration::from_mins(1), connection.closed()).await.unwrap_err();
        }
        let start = tokio::time::Instant::now();
        let sent = send_long(&mut connection).await;
        assert_eq!(sent.recipients, [Err(failure(Stage::MailFrom, kind))]);
        assert_eq!(start.elapsed().as_secs(), waited);
        assert!(!sent.reusable);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_shows_life_is_waited_for_as_any_other() {
    let slow = |seconds| Act::Delay(Duration::from_secs(seconds));
    let script = Script::new().on(At::MailFrom, slow(9)).on(At::RcptTo, slow(280)).on(At::Data, slow(110));
    let (_peer, connection) = served(script, Timeouts::default()).await;
    let mut connection = connection.unwrap();
    timeout(Duration::from_mins(1), connection.closed()).await.unwrap_err();
    assert!(send_long(&mut connection).await.recipients[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dribbles_its_reply_is_not_waited_for_forever() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    tokio::spawn(async move {
        while theirs.write_all(b"2").await.is_ok() {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
    });
    let start = tokio::time::Instant::now();
    let opened = greet(ours, Timeouts::default()).await;
    assert_eq!(opened.unwrap_err(), failure(Stage::Greeting, FailureKind::Timeout));
    assert_eq!(start.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_the_content_octet_by_octet_is_not_waited_for_forever() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    tokio::spawn(async move {
        theirs.write_all(b"220 x\r\n").await.unwrap();
        for reply in ["250-x\r\n250 SIZE\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n"] {
            while theirs.read_u8().await.unwrap() != b'\n' {}
            theirs.write_all(reply.as_bytes()).await.unwrap();
        }
        while theirs.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
    });
    let mut connection = greet(ours, Timeouts::default()).await.unwrap();
    let start = tokio::time::Instant::now();
    let content = "x\r\n".repeat(32 * 1024);
    let sent = send_content(&mut connection, &["bob@example.test"], content).await;
    assert_eq!(sent.recipients, [Err(failure(Stage::Content, FailureKind::Timeout))]);
    assert!(!sent.reusable);
    assert_eq!(start.elapsed().as_secs(), 3600 + 3 * 32 / 16, "an hour, and a second for each 16 KiB");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_each_command_just_in_time_is_not_waited_for_forever() {
    let script = Script::new().offer([]).on(At::RcptTo, Act::Delay(Duration::from_secs(299)));
    let (_peer, connection) = served(script, Timeouts::default()).await;
    let start = tokio::time::Instant::now();
    let to: Vec<_> = (0..100).map(|i| format!("user{i}@example.test")).collect();
    let to: Vec<_> = to.iter().map(String::as_str).collect();
    let sent = send(&mut connection.unwrap(), &to).await;
    assert!(
        sent.recipients.iter().all(|result| *result == Err(failure(Stage::RcptTo, FailureKind::Timeout)))
    );
    assert_eq!(start.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_the_content_is_waited_for_whatever_the_time_before() {
    let script = Script::new()
        .on(At::RcptTo, Act::Delay(Duration::from_secs(9)))
        .on(At::EndOfData, Act::Delay(Duration::from_mins(9)));
    let timeouts = Timeouts { transaction: Duration::from_secs(10), ..Timeouts::default() };
    let (_peer, connection) = served(script, timeouts).await;
    let sent = send(&mut connection.unwrap(), &["bob@example.test"]).await;
    assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_before_it_reads_on_does_not_lock_up() {
    // The pipe holds no whole group and no two replies: each side must read for the other to write on.
    let (ours, mut theirs) = tokio::io::duplex(64);
    tokio::spawn(async move {
        theirs.write_all(b"220 x\r\n").await.unwrap();
        let mut line = Vec::new();
        loop {
            line.push(theirs.read_u8().await.unwrap());
            if line.ends_with(b"\n") {
                let reply = if line.starts_with(b"EHLO") {
                    "250-x\r\n250 PIPELINING\r\n".to_owned()
                } else {
                    format!("550 5.1.1 {}\r\n", "no ".repeat(15))
                };
                theirs.write_all(reply.as_bytes()).await.unwrap();
                line.clear();
            }
        }
    });
    let mut connection = greet(ours, Timeouts::default()).await.unwrap();
    let to: Vec<_> = (0..90).map(|i| format!("user{i}@example.test")).collect();
    let to: Vec<_> = to.iter().map(String::as_str).collect();
    let sent = send(&mut connection, &to).await;
    let refused =
        |result: &_| matches!(result, Err(Failure { stage: Stage::MailFrom, kind: FailureKind::Refused(_) }));
    assert!(sent.recipients.iter().all(refused) && sent.reusable, "{sent:?}");
}

#[test]
fn a_timeout_of_zero_is_a_problem() {
    assert_eq!(Timeouts::default().validate(), []);
    let zero = Timeouts { data_block: Duration::ZERO, ..Timeouts::default() };
    let keys: Vec<_> = zero.validate().into_iter().map(|problem| problem.key).collect();
    assert_eq!(keys, ["data_block"]);
}
