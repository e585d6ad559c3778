use super::*;

const TO: [&str; 3] = ["<b@x.test>", "<c@x.test>", "<d@x.test>"];

fn play_lmtp(offered: &str, dialogue: &str) -> Sent {
    play_over(Protocol::Lmtp, &message("<a@home.test>", &TO, CONTENT), offers(offered), dialogue)
}

#[test]
fn each_recipient_that_was_accepted_has_its_own_reply_after_the_content() {
    let sent = play_lmtp(
        "PIPELINING",
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | RCPT TO:<d@x.test> | DATA
         S: 250 Ok
         S: 250 Ok
         S: 550 5.1.1 no
         S: 250 Ok
         S: 354 go on
         C: CONTENT
         S: 452 4.2.2 full
         S: 250 2.0.0 saved",
    );
    assert_eq!(results(&sent), ["end of data: 452 4.2.2 full", "RCPT TO: 550 5.1.1 no", "250 2.0.0 saved"]);
    assert!(sent.reusable);
}

#[test]
fn the_last_chunk_has_a_reply_for_each_recipient_and_the_others_have_one() {
    let sent = play_lmtp(
        "PIPELINING, CHUNKING",
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | RCPT TO:<d@x.test>
         S: 250 Ok
         S: 250 Ok
         S: 550 5.1.1 no
         S: 250 Ok
         C: BDAT 10
         C: BDAT 10
         C: BDAT 2 LAST
         S: 250 Ok
         S: 250 Ok
         S: 250 2.0.0 saved
         S: 550 5.2.1 disabled",
    );
    assert_eq!(
        results(&sent),
        ["250 2.0.0 saved", "RCPT TO: 550 5.1.1 no", "end of data: 550 5.2.1 disabled"]
    );
    assert!(sent.reusable);
}

#[test]
fn a_connection_with_a_refused_chunk_before_the_last_is_of_no_more_use() {
    let sent = play_lmtp(
        "PIPELINING, CHUNKING",
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | RCPT TO:<d@x.test>
         S: 250 Ok
         S: 250 Ok
         S: 250 Ok
         S: 250 Ok
         C: BDAT 10
         C: BDAT 10
         C: BDAT 2 LAST
         S: 452 4.3.1 no room",
    );
    assert_eq!(results(&sent), ["content: 452 4.3.1 no room"; 3]);
    assert!(!sent.reusable);
}

#[test]
fn what_was_answered_stays_when_the_server_goes_away_among_the_replies() {
    let message = message("<a@home.test>", &TO, CONTENT);
    let mut transaction = Transaction::new(&message, offers("PIPELINING"), Protocol::Lmtp, Chunks::Taken);
    let mut replies = ["250 Ok", "250 Ok", "250 Ok", "250 Ok", "354 go on", "250 2.0.0 saved"].into_iter();
    let sent = loop {
        match transaction.step() {
            Step::Read(stage) => match replies.next() {
                Some(line) => transaction.reply(reply(line)),
                None => transaction.failed(stage, FailureKind::Closed),
            },
            Step::Done(sent) => break sent,
            _ => {}
        }
    };
    let closed = "end of data: the server closed the connection";
    assert_eq!(results(&sent), ["250 2.0.0 saved", closed, closed]);
    assert!(!sent.reusable);
}
