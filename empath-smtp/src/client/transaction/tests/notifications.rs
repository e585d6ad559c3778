use super::*;

/// A message whose sender asked for everything.
fn asking() -> Outgoing {
    let asked = |notify: &str, orcpt: &str| RecipientNotification {
        notify: Notify::parse(notify.as_bytes()),
        orcpt: OriginalRecipient::parse(orcpt.as_bytes()),
    };
    Outgoing {
        notification: MessageNotification { ret: Some(Ret::Headers), envid: EnvelopeId::parse(b"QQ+2Bab") },
        notifications: vec![
            asked("SUCCESS,DELAY", "RFC822;Bob+2B@Other.test"),
            asked("NEVER", ""),
            asked("", "utf-8;\u{3b1}@other.test"),
        ],
        ..message("<a@home.test>", &["<b@x.test>", "<c@x.test>", "<d@x.test>", "<e@x.test>"], CONTENT)
    }
}

#[test]
fn what_the_sender_asked_of_reports_is_passed_on_unchanged_where_it_can_be() {
    let sent = play(
        &asking(),
        offers("PIPELINING, DSN"),
        "C: MAIL FROM:<a@home.test> RET=HDRS ENVID=QQ+2Bab | \
            RCPT TO:<b@x.test> NOTIFY=SUCCESS,DELAY ORCPT=RFC822;Bob+2B@Other.test | \
            RCPT TO:<c@x.test> NOTIFY=NEVER | RCPT TO:<d@x.test> ORCPT=utf-8;\\x{3B1}@other.test | \
            RCPT TO:<e@x.test> | DATA
         S: 550 no
         S: 503 no
         S: 503 no
         S: 503 no
         S: 503 no
         S: 503 no",
    );
    assert!(sent.notifies);
    let asking =
        Outgoing { smtputf8: true, reverse_path: "<\u{3b1}@home.test>".parse().unwrap(), ..asking() };
    play(
        &asking,
        offers("PIPELINING, DSN, SMTPUTF8"),
        "C: MAIL FROM:<\u{3b1}@home.test> SMTPUTF8 RET=HDRS ENVID=QQ+2Bab | \
            RCPT TO:<b@x.test> NOTIFY=SUCCESS,DELAY ORCPT=RFC822;Bob+2B@Other.test | \
            RCPT TO:<c@x.test> NOTIFY=NEVER | RCPT TO:<d@x.test> ORCPT=utf-8;\u{3b1}@other.test | \
            RCPT TO:<e@x.test> | DATA
         S: 550 no
         S: 503 no
         S: 503 no
         S: 503 no
         S: 503 no
         S: 503 no",
    );
}

#[test]
fn where_nothing_can_be_asked_of_reports_nothing_is() {
    let sent = play(
        &asking(),
        offers("PIPELINING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | RCPT TO:<d@x.test> | \
            RCPT TO:<e@x.test> | DATA
         S: 550 no
         S: 503 no
         S: 503 no
         S: 503 no
         S: 503 no
         S: 503 no",
    );
    assert!(!sent.notifies);
}
