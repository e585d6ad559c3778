mod chunks;
mod lmtp;
mod notifications;
mod priority;

use empath_common::{
    Body, EnhancedStatus, EnvelopeId, MessageNotification, Notify, OriginalRecipient, RecipientNotification,
    ReplyCode, Ret,
};

use super::*;
use crate::client::{FailureKind, Feature, SizeLimit, Survey};

const CONTENT: &str = "Subject: hi\r\n\r\nhello\r\n";

fn offers(keywords: &str) -> Extensions {
    Extensions::parse(format!("mx.test\n{}", keywords.replace(", ", "\n")).as_bytes())
}

fn message(from: &str, to: &[&str], content: &str) -> Outgoing {
    Outgoing {
        reverse_path: from.parse().unwrap(),
        recipients: to.iter().map(|to| to.parse().unwrap()).collect(),
        body: Body::SevenBit,
        smtputf8: false,
        mt_priority: None,
        notification: MessageNotification::default(),
        notifications: Vec::new(),
        survey: Survey {
            octets: content.len() as u64,
            eight_bit: !content.is_ascii(),
            eight_bit_header: content.split("\r\n\r\n").next().is_some_and(|header| !header.is_ascii()),
        },
    }
}

fn reply(line: &str) -> Reply {
    let (code, text) = line.split_once(' ').unwrap();
    let (status, text) = text.split_once(' ').unwrap_or((text, ""));
    let code = ReplyCode::new(code.parse().unwrap()).unwrap();
    match status.parse::<EnhancedStatus>() {
        Ok(status) => Reply { code, enhanced: Some(status), text: text.to_owned().into() },
        Err(_) => Reply { code, enhanced: None, text: line.split_once(' ').unwrap().1.to_owned().into() },
    }
}

/// Plays a dialogue. Lines `C:` are one write each, with ` | ` between its lines; `S:` is a reply. In chunks, content is
/// `message.survey.octets` octets, 10 in each chunk.
fn play(message: &Outgoing, offered: Extensions, dialogue: &str) -> Sent {
    play_over(Protocol::Smtp, message, offered, dialogue)
}

/// The server is known to take chunks if it offers to.
fn play_over(protocol: Protocol, message: &Outgoing, offered: Extensions, dialogue: &str) -> Sent {
    play_through(&mut Transaction::new(message, offered, protocol, Chunks::Taken), message, dialogue)
}

fn play_through(transaction: &mut Transaction<'_>, message: &Outgoing, dialogue: &str) -> Sent {
    let mut left = usize::try_from(message.survey.octets).unwrap();
    let mut lines = dialogue.lines().map(str::trim).filter(|line| !line.is_empty());
    loop {
        let said = match transaction.step() {
            Step::Write(_, commands) => String::from_utf8(commands.into()).unwrap(),
            Step::Content => "CONTENT".into(),
            Step::Chunk(most) => {
                let octets = left.min(10).min(most);
                left -= octets;
                String::from_utf8(transaction.chunk(octets, left == 0).into()).unwrap()
            }
            Step::Read(_) => {
                let line = lines.next().expect("a reply");
                transaction.reply(reply(line.strip_prefix("S: ").expect(line)));
                continue;
            }
            Step::Done(sent) => {
                assert_eq!(lines.next(), None, "the dialogue goes on");
                return sent;
            }
        };
        let said = format!("C: {}", said.trim_end().replace("\r\n", " | "));
        assert_eq!(lines.next(), Some(said.as_str()));
    }
}

/// One line for each recipient.
fn results(sent: &Sent) -> Vec<String> {
    let line = |result: &Result<Reply, Failure>| match result {
        Ok(reply) => reply.to_string(),
        Err(failure) => failure.to_string(),
    };
    sent.recipients.iter().map(line).collect()
}

#[test]
fn without_pipelining_every_command_waits_for_its_reply() {
    let sent = play(
        &message("<a@home.test>", &["<b@x.test>", "<c@x.test>"], CONTENT),
        offers(""),
        "C: MAIL FROM:<a@home.test>
         S: 250 Ok
         C: RCPT TO:<b@x.test>
         S: 250 Ok
         C: RCPT TO:<c@x.test>
         S: 550 5.1.1 no
         C: DATA
         S: 354 go on
         C: CONTENT
         S: 250 2.0.0 queued",
    );
    assert_eq!(results(&sent), ["250 2.0.0 queued", "RCPT TO: 550 5.1.1 no"]);
    assert!(sent.reusable);
}

#[test]
fn with_pipelining_everything_up_to_data_is_one_write() {
    let sent = play(
        &message("<>", &["<b@x.test>", "<Postmaster>"], CONTENT),
        offers("PIPELINING, SIZE 1000, 8BITMIME, SMTPUTF8"),
        "C: MAIL FROM:<> SIZE=22 | RCPT TO:<b@x.test> | RCPT TO:<Postmaster> | DATA
         S: 250 Ok
         S: 450 4.2.0 later
         S: 251 Ok
         S: 354 go on
         C: CONTENT
         S: 299 fine",
    );
    assert_eq!(results(&sent), ["RCPT TO: 450 4.2.0 later", "299 fine"]);
    assert!(sent.reusable);
}

#[test]
fn a_refused_mail_fails_everybody_without_asking_further() {
    let sent = play(
        &message("<a@home.test>", &["<b@x.test>", "<c@x.test>"], CONTENT),
        offers(""),
        "C: MAIL FROM:<a@home.test>
         S: 550 5.7.1 not you",
    );
    assert_eq!(results(&sent), ["MAIL FROM: 550 5.7.1 not you"; 2]);
    assert!(sent.reusable);
}

#[test]
fn a_refused_mail_under_pipelining_wins_over_the_replies_behind_it() {
    let sent = play(
        &message("<a@home.test>", &["<b@x.test>"], CONTENT),
        offers("PIPELINING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | DATA
         S: 450 4.7.1 wait
         S: 503 5.5.1 MAIL first
         S: 503 5.5.1 RCPT first",
    );
    assert_eq!(results(&sent), ["MAIL FROM: 450 4.7.1 wait"]);
    assert!(sent.reusable);
}

#[test]
fn when_nobody_gets_the_message_no_content_goes_out_and_the_transaction_is_reset() {
    let to = ["<b@x.test>", "<c@x.test>"];
    let sent = play(
        &message("<a@home.test>", &to, CONTENT),
        offers(""),
        "C: MAIL FROM:<a@home.test>
         S: 250 Ok
         C: RCPT TO:<b@x.test>
         S: 550 5.1.1 no
         C: RCPT TO:<c@x.test>
         S: 450 4.2.1 busy
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no", "RCPT TO: 450 4.2.1 busy"]);
    assert!(sent.reusable);

    let sent = play(
        &message("<a@home.test>", &to, CONTENT),
        offers("PIPELINING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | DATA
         S: 250 Ok
         S: 550 5.1.1 no
         S: 550 5.1.1 no
         S: 554 5.5.1 no valid recipients
         C: RSET
         S: 500 what",
    );
    assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no"; 2]);
    assert!(!sent.reusable);
}

#[test]
fn a_server_that_wants_content_for_nobody_gets_a_lone_dot_and_its_answer_means_nothing() {
    for answer in ["250 2.0.0 queued", "554 5.5.1 no valid recipients"] {
        let sent = play(
            &message("<a@home.test>", &["<b@x.test>"], CONTENT),
            offers("PIPELINING"),
            &format!(
                "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | DATA
                 S: 250 Ok
                 S: 550 5.1.1 no
                 S: 354 go on
                 C: .
                 S: {answer}"
            ),
        );
        assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no"]);
        assert!(sent.reusable);
    }
}

#[test]
fn a_refusal_of_data_or_of_the_content_is_for_those_that_were_accepted() {
    let to = ["<b@x.test>", "<c@x.test>"];
    let sent = play(
        &message("<a@home.test>", &to, CONTENT),
        offers("PIPELINING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | DATA
         S: 250 Ok
         S: 550 5.1.1 no
         S: 250 Ok
         S: 451 4.3.0 not now
         C: RSET
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no", "DATA: 451 4.3.0 not now"]);
    assert!(sent.reusable);

    let sent = play(
        &message("<a@home.test>", &to, CONTENT),
        offers("PIPELINING"),
        "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | DATA
         S: 250 Ok
         S: 250 Ok
         S: 452 4.5.3 too many
         S: 354 go on
         C: CONTENT
         S: 554 5.7.1 spam",
    );
    assert_eq!(results(&sent), ["end of data: 554 5.7.1 spam", "RCPT TO: 452 4.5.3 too many"]);
    assert!(sent.reusable);
}

#[test]
fn many_recipients_go_in_groups_and_data_waits_until_somebody_is_left() {
    let to: Vec<_> = (0..150).map(|i| format!("<u{i}@x.test>")).collect();
    let to: Vec<_> = to.iter().map(String::as_str).collect();
    let rcpt = |range: std::ops::Range<usize>| {
        range.map(|i| format!("RCPT TO:<u{i}@x.test>")).collect::<Vec<_>>().join(" | ")
    };
    let no = |times| "S: 550 5.1.1 no\n".repeat(times);
    let dialogue = format!(
        "C: MAIL FROM:<a@home.test> | {}\nS: 250 Ok\n{}C: {} | DATA\n{}S: 554 5.5.1 nobody\nC: RSET\nS: 250 Ok",
        rcpt(0..MAX_GROUP - 1),
        no(MAX_GROUP - 1),
        rcpt(MAX_GROUP - 1..150),
        no(150 - (MAX_GROUP - 1)),
    );
    let sent = play(&message("<a@home.test>", &to, CONTENT), offers("PIPELINING"), &dialogue);
    assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no"; 150]);

    // All are refused when the group is full to the brim: DATA is not asked for.
    let to = &to[..MAX_GROUP - 1];
    let dialogue = format!(
        "C: MAIL FROM:<a@home.test> | {}\nS: 250 Ok\n{}C: RSET\nS: 250 Ok",
        rcpt(0..MAX_GROUP - 1),
        no(MAX_GROUP - 1),
    );
    let sent = play(&message("<a@home.test>", to, CONTENT), offers("PIPELINING"), &dialogue);
    assert!(sent.reusable);
}

#[test]
fn a_421_ends_everything_wherever_it_comes() {
    let mut said = "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | RCPT TO:<c@x.test> | DATA\n".to_owned();
    for (stage, go_on) in [
        ("MAIL FROM", "S: 250 Ok\n"),
        ("RCPT TO", "S: 250 Ok\n"),
        ("RCPT TO", "S: 250 Ok\n"),
        ("DATA", "S: 354 Ok\nC: CONTENT\n"),
        ("end of data", ""),
    ] {
        let sent = play(
            &message("<a@home.test>", &["<b@x.test>", "<c@x.test>"], CONTENT),
            offers("PIPELINING"),
            &format!("{said}S: 421 4.3.2 bye"),
        );
        assert_eq!(results(&sent), vec![format!("{stage}: 421 4.3.2 bye"); 2]);
        assert!(!sent.reusable);
        said.push_str(go_on);
    }
}

#[test]
fn a_reply_that_does_not_fit_the_command_is_garbled() {
    let start = "C: MAIL FROM:<a@home.test> | RCPT TO:<b@x.test> | DATA\n";
    for (replies, stage) in [
        ("S: 354 go on", "MAIL FROM"),
        ("S: 250 Ok\nS: 354 go on", "RCPT TO"),
        ("S: 250 Ok\nS: 250 Ok\nS: 250 Ok", "DATA"),
        ("S: 250 Ok\nS: 250 Ok\nS: 354 Ok\nC: CONTENT\nS: 354 again", "end of data"),
    ] {
        let sent = play(
            &message("<a@home.test>", &["<b@x.test>"], CONTENT),
            offers("PIPELINING"),
            &format!("{start}{replies}"),
        );
        assert_eq!(results(&sent), [format!("{stage}: garbled reply: a code that doesn't fit the command")]);
        assert!(!sent.reusable);
    }
}

#[test]
fn a_broken_dialogue_fails_only_those_without_a_result() {
    let message = message("<a@home.test>", &["<b@x.test>", "<c@x.test>"], CONTENT);
    let mut transaction = Transaction::new(&message, offers("PIPELINING"), Protocol::Smtp, Chunks::Taken);
    assert!(matches!(transaction.step(), Step::Write(Stage::MailFrom, _)));
    transaction.reply(reply("250 Ok"));
    transaction.reply(reply("550 5.1.1 no"));
    assert!(matches!(transaction.step(), Step::Read(Stage::RcptTo)));
    transaction.failed(Stage::RcptTo, FailureKind::Closed);
    let Step::Done(sent) = transaction.step() else { panic!("not done") };
    assert_eq!(results(&sent), ["RCPT TO: 550 5.1.1 no", "RCPT TO: the server closed the connection"]);
    assert!(!sent.reusable);
}

#[test]
fn parameters_are_given_only_where_they_are_offered_and_needed() {
    let plain = message("<a@home.test>", &["<b@x.test>"], CONTENT);
    let eight_bit = message("<a@home.test>", &["<b@x.test>"], "A: b\r\n\r\né\r\n");
    let declared = Outgoing { body: Body::EightBitMime, ..plain.clone() };
    let utf8_header =
        Outgoing { smtputf8: true, ..message("<a@home.test>", &["<b@x.test>"], "A: é\r\n\r\nb\r\n") };
    let utf8_flag = Outgoing { smtputf8: true, ..plain.clone() };
    let all = "SIZE, 8BITMIME, SMTPUTF8";
    for (message, offered, expected) in [
        (&plain, "", ""),
        (&plain, all, " SIZE=22"),
        (&declared, "", ""),
        (&declared, "8BITMIME", " BODY=8BITMIME"),
        (&eight_bit, all, " SIZE=12 BODY=8BITMIME"),
        (&utf8_header, all, " SIZE=12 BODY=8BITMIME SMTPUTF8"),
        (&utf8_flag, all, " SIZE=22"),
        (&utf8_flag, "", ""),
    ] {
        let mut transaction = Transaction::new(message, offers(offered), Protocol::Smtp, Chunks::Taken);
        let Step::Write(_, line) = transaction.step() else { panic!("{offered}: nothing written") };
        assert_eq!(line, format!("MAIL FROM:<a@home.test>{expected}\r\n"), "{offered}");
    }
}

#[test]
fn what_the_server_can_not_take_fails_without_being_asked_for() {
    let utf8 =
        |from: &str, content: &str| Outgoing { smtputf8: true, ..message(from, &["<b@x.test>"], content) };
    for (message, offered, feature) in [
        (message("<a@h.test>", &["<b@x.test>"], "\r\né\r\n"), "SMTPUTF8", Feature::EightBitMime),
        (utf8("<a@h.test>", "A: é\r\n\r\n"), "8BITMIME", Feature::Smtputf8),
        (utf8("<é@h.test>", CONTENT), "8BITMIME", Feature::Smtputf8),
        (message("<a@h.test>", &["<b@x.test>"], CONTENT), "SIZE 21", Feature::Size),
    ] {
        let sent = play(&message, offers(offered), "");
        let failure = Stage::MailFrom.failed(FailureKind::Unsupported(feature));
        assert_eq!(
            sent,
            Sent { recipients: vec![Err(failure)], notifies: false, reusable: true },
            "{offered}"
        );
    }
    assert!(SizeLimit::Octets(22).allows(22));
}

#[test]
fn one_recipient_in_utf8_does_not_hold_up_the_others() {
    let message = message("<a@h.test>", &["<é@x.test>", "<b@bücher.test>"], CONTENT);
    let sent = play(
        &message,
        offers(""),
        "C: MAIL FROM:<a@h.test>
         S: 250 Ok
         C: RCPT TO:<b@xn--bcher-kva.test>
         S: 250 Ok
         C: DATA
         S: 354 go on
         C: CONTENT
         S: 250 Ok",
    );
    assert_eq!(results(&sent), ["MAIL FROM: the server does not support SMTPUTF8", "250 Ok"]);
    let mut transaction =
        Transaction::new(&message, offers("PIPELINING, SMTPUTF8"), Protocol::Smtp, Chunks::Taken);
    let Step::Write(_, group) = transaction.step() else { panic!("nothing written") };
    assert_eq!(
        group,
        "MAIL FROM:<a@h.test> SMTPUTF8\r\nRCPT TO:<é@x.test>\r\nRCPT TO:<b@bücher.test>\r\nDATA\r\n"
            .as_bytes()
    );
}
