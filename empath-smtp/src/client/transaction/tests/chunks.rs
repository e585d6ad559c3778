use super::*;

/// Plays the first transaction of a connection, and what it has shown for the next.
fn play_first(offered: &str, dialogue: &str) -> (Vec<String>, Chunks) {
    let message = message("<a@home.test>", &["<b@x.test>", "<c@x.test>"], CONTENT);
    let mut transaction = Transaction::new(&message, offers(offered), Protocol::Smtp, Chunks::Untried);
    let sent = play_through(&mut transaction, &message, dialogue);
    assert!(sent.reusable);
    (results(&sent), transaction.chunks())
}

#[test]
fn one_octet_goes_out_before_a_chunk_was_accepted() {
    let (results, chunks) = play_first(
        "PIPELINING, CHUNKING",
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test>
         C: BDAT 1
         S: 250 Ok
         S: 550 5.1.1 no
         S: 250 Ok
         S: 250 2.0.0 1 octets
         C: BDAT 10
         C: BDAT 10
         C: BDAT 1 LAST
         S: 250 2.0.0 10 octets
         S: 250 2.0.0 10 octets
         S: 250 2.0.0 queued",
    );
    assert_eq!(results, ["RCPT TO: 550 5.1.1 no", "250 2.0.0 queued"]);
    assert_eq!(chunks, Chunks::Taken);
    let (results, chunks) = play_first(
        "CHUNKING",
        "C: MAIL FROM:<a@home.test>
         S: 250 Ok
         C: RCPT TO:<b@x.test>
         S: 250 Ok
         C: RCPT TO:<c@x.test>
         S: 250 Ok
         C: BDAT 1
         S: 500 5.5.2 what?
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results, ["content: 500 5.5.2 what?"; 2]);
    assert_eq!(chunks, Chunks::Untried);
}

#[test]
fn where_nobody_is_to_get_it_the_first_chunk_says_only_whether_chunks_are_taken() {
    for (answer, taken) in
        [("250 2.0.0 1 octets", Chunks::Taken), ("503 5.5.1 no valid recipients", Chunks::Untried)]
    {
        let (results, chunks) = play_first(
            "PIPELINING, CHUNKING",
            &format!(
                "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test>
         C: BDAT 1
                 S: 250 Ok
                 S: 550 5.1.1 no
                 S: 450 4.2.1 later
                 S: {answer}
                 C: RSET
                 S: 250 Ok"
            ),
        );
        assert_eq!(results, ["RCPT TO: 550 5.1.1 no", "RCPT TO: 450 4.2.1 later"]);
        assert_eq!(chunks, taken);
    }
}

#[test]
fn an_octet_that_a_server_took_for_the_beginning_of_a_command_spoils_no_other_message() {
    let message = message("<a@home.test>", &["<b@x.test>"], CONTENT);
    for (answer, reset, reusable) in [
        ("500 5.5.2 what?", "500 5.5.2 what?", false),
        ("500 5.5.2 what?", "250 Ok", true),
        ("250 Ok", "250 Ok", true),
    ] {
        let offered = offers("PIPELINING, CHUNKING");
        let mut transaction = Transaction::new(&message, offered, Protocol::Smtp, Chunks::Untried);
        let sent = play_through(
            &mut transaction,
            &message,
            &format!(
                "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test>
                 C: BDAT 1
                 S: 550 5.7.1 not you
                 S: 503 5.5.1 MAIL first
                 S: {answer}
                 C: RSET
                 S: {reset}"
            ),
        );
        assert_eq!(results(&sent), ["MAIL FROM: 550 5.7.1 not you"]);
        assert_eq!(sent.reusable, reusable);
    }
}

#[test]
fn what_is_too_short_for_a_command_goes_without_a_trial() {
    let message = message("<>", &["<b@x.test>"], "x");
    let offered = offers("PIPELINING, CHUNKING");
    let mut transaction = Transaction::new(&message, offered, Protocol::Smtp, Chunks::Untried);
    let sent = play_through(
        &mut transaction,
        &message,
        "C: MAIL FROM:<> | RCPT TO:<b@x.test>
         S: 250 Ok
         S: 250 Ok
         C: BDAT 1 LAST
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["250 Ok"]);
}

#[test]
fn chunks_take_the_place_of_data_and_are_pipelined() {
    let sent = play(
        &message("<a@home.test>", &["<b@x.test>", "<c@x.test>"], CONTENT),
        offers("PIPELINING, CHUNKING, SIZE"),
        "C: MAIL FROM:<a@home.test> SIZE=22 | RCPT TO:<b@x.test> | RCPT TO:<c@x.test>
         S: 250 Ok
         S: 250 Ok
         S: 550 5.1.1 no
         C: BDAT 10
         C: BDAT 10
         C: BDAT 2 LAST
         S: 250 2.0.0 10 octets
         S: 250 2.0.0 10 octets
         S: 250 2.0.0 queued",
    );
    assert_eq!(results(&sent), ["250 2.0.0 queued", "RCPT TO: 550 5.1.1 no"]);
    assert!(sent.reusable);
}

#[test]
fn without_pipelining_every_chunk_waits_for_its_reply() {
    let sent = play(
        &message("<a@home.test>", &["<b@x.test>"], CONTENT),
        offers("CHUNKING"),
        "C: MAIL FROM:<a@home.test>
         S: 250 Ok
         C: RCPT TO:<b@x.test>
         S: 250 Ok
         C: BDAT 10
         S: 250 Ok
         C: BDAT 10
         S: 250 Ok
         C: BDAT 2 LAST
         S: 250 2.0.0 queued",
    );
    assert_eq!(results(&sent), ["250 2.0.0 queued"]);
    assert!(sent.reusable);
}

#[test]
fn no_chunk_goes_out_for_nobody() {
    let sent = play(
        &message("<a@home.test>", &["<b@x.test>"], CONTENT),
        offers("PIPELINING, CHUNKING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test>
         S: 250 Ok
         S: 550 5.1.1 no
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no"]);
    assert!(sent.reusable);
}

#[test]
fn a_refused_chunk_fails_the_transaction_and_is_followed_by_none_but_by_rset() {
    let message = message("<a@home.test>", &["<b@x.test>"], CONTENT);
    let sent = play(
        &message,
        offers("CHUNKING"),
        "C: MAIL FROM:<a@home.test>
         S: 250 Ok
         C: RCPT TO:<b@x.test>
         S: 250 Ok
         C: BDAT 10
         S: 552 5.3.4 too large
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["content: 552 5.3.4 too large"]);
    assert!(sent.reusable);

    // Pipelined: the first reply counts, those to what follows mean nothing.
    let sent = play(
        &message,
        offers("PIPELINING, CHUNKING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test>
         S: 250 Ok
         S: 250 Ok
         C: BDAT 10
         C: BDAT 10
         C: BDAT 2 LAST
         S: 451 4.3.0 not now
         S: 503 5.5.1 what
         S: 250 2.0.0 queued
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["content: 451 4.3.0 not now"]);
    assert!(sent.reusable);

    let sent = play(
        &message,
        offers("PIPELINING, CHUNKING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test>
         S: 250 Ok
         S: 250 Ok
         C: BDAT 10
         C: BDAT 10
         C: BDAT 2 LAST
         S: 250 Ok
         S: 250 Ok
         S: 554 5.7.1 spam
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["end of data: 554 5.7.1 spam"]);
    assert!(sent.reusable);
}

#[test]
fn a_server_that_does_not_answer_chunks_is_not_given_a_whole_message() {
    let message = message("<a@home.test>", &["<b@x.test>"], &"x".repeat(1000));
    let mut transaction =
        Transaction::new(&message, offers("PIPELINING, CHUNKING"), Protocol::Smtp, Chunks::Taken);
    assert!(matches!(transaction.step(), Step::Write(..)));
    transaction.reply(reply("250 Ok"));
    transaction.reply(reply("250 Ok"));
    for _ in 0..MAX_CHUNKS {
        assert!(matches!(transaction.step(), Step::Chunk(usize::MAX)));
        transaction.chunk(10, false);
    }
    assert!(matches!(transaction.step(), Step::Read(Stage::Content)));
    transaction.reply(reply("250 Ok"));
    assert!(matches!(transaction.step(), Step::Chunk(usize::MAX)));
}

#[test]
fn a_message_without_octets_is_one_empty_chunk() {
    let sent = play(
        &message("<>", &["<b@x.test>"], ""),
        offers("PIPELINING, CHUNKING"),
        "C: MAIL FROM:<> | RCPT TO:<b@x.test>
         S: 250 Ok
         S: 250 Ok
         C: BDAT 0 LAST
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["250 Ok"]);
}
