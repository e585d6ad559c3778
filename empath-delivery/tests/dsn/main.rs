//! The report about a message, read by an independent parser.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod international;
mod support;

use empath_common::{
    Body, EnhancedStatus, EnvelopeId, Mailbox, MessageNotification, OriginalRecipient, Reply, Ret,
    ReversePath,
};
use empath_delivery::{
    config::HostAddr,
    dsn::{Arrived, Delayed, News, Success},
};
use mailparse::{MailHeaderMap as _, parse_mail};

use support::{CONTENT, check, envelope, failed, make, make_of, pairs, status};

#[test]
fn a_report_tells_people_and_programs_what_happened_to_each_recipient() {
    let mut dead = failed("<carol@dead.test>", "");
    dead.host = None;
    dead.reply = None;
    dead.detail = "the domain dead.test does not exist".to_owned();
    dead.status = EnhancedStatus::new(5, 1, 2);
    let original = envelope("<alice@home.test>");
    let (envelope, content) =
        make(&original, CONTENT, &[failed("<bob@example.test>", "no such user"), dead], None).unwrap();
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert_eq!(envelope.recipients(), ["<alice@home.test>".parse().unwrap()]);
    assert_eq!((envelope.body, envelope.smtputf8), (Body::SevenBit, false));

    let mail = check(&content);
    let header = |name| mail.headers.get_first_value(name).unwrap();
    assert_eq!(header("From"), "Mail Delivery System <MAILER-DAEMON@mx.home.test>");
    assert_eq!(header("To"), "<alice@home.test>");
    assert_eq!(header("Date"), "Fri, 02 Jan 2026 03:06:00 +0000");
    assert_eq!(header("Message-ID"), "<01J00000000000000000000001@mx.home.test>");
    assert_eq!(header("Auto-Submitted"), "auto-replied");
    assert_eq!(header("MIME-Version"), "1.0");
    let text = mail.subparts[0].get_body().unwrap();
    for part in ["<bob@example.test>", "no such user", "<carol@dead.test>", "does not exist"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let groups = status(&mail);
    assert_eq!(
        pairs(&groups[0]),
        [("Reporting-MTA", "dns; mx.home.test"), ("Arrival-Date", "Fri, 02 Jan 2026 03:04:05 +0000")]
    );
    assert_eq!(
        pairs(&groups[1]),
        [
            ("Final-Recipient", "rfc822; bob@example.test"),
            ("Action", "failed"),
            ("Status", "5.1.1"),
            ("Remote-MTA", "dns; mx1.example.test"),
            ("Diagnostic-Code", "smtp; 550 no such user"),
            ("Last-Attempt-Date", "Fri, 02 Jan 2026 03:05:00 +0000"),
        ]
    );
    assert_eq!(
        pairs(&groups[2]),
        [
            ("Final-Recipient", "rfc822; carol@dead.test"),
            ("Action", "failed"),
            ("Status", "5.1.2"),
            ("Diagnostic-Code", "x-empath; the domain dead.test does not exist"),
            ("Last-Attempt-Date", "Fri, 02 Jan 2026 03:05:00 +0000"),
        ]
    );
    assert_eq!(mail.subparts[2].ctype.mimetype, "text/rfc822-headers");
    let returned = mail.subparts[2].get_body_raw().unwrap();
    assert!(returned.starts_with(b"Received: by x\r\nSubject: hello\r\nFrom: a@home.test\r\n"));
    assert!(!returned.windows(4).any(|octets| octets == b"body"));
}

#[test]
fn nobody_is_told_about_a_message_with_a_null_sender() {
    assert_eq!(make(&envelope("<>"), CONTENT, &[failed("<bob@example.test>", "no")], None), None);
}

#[test]
fn the_postmaster_of_the_configuration_is_the_author() {
    let postmaster: Mailbox = "postmaster@home.test".parse().unwrap();
    let (_, content) =
        make(&envelope("<alice@home.test>"), CONTENT, &[failed("<b@x.test>", "no")], Some(&postmaster))
            .unwrap();
    let from = check(&content).headers.get_first_value("From").unwrap();
    assert_eq!(from, "Mail Delivery System <postmaster@home.test>");
}

#[test]
fn what_a_host_says_cannot_break_the_report() {
    let hostile = "\r\n\r\n--=_01J00000000000000000000001--\r\nStatus: 2.0.0\u{1b}[2J\u{202e}é\u{0}"
        .to_owned()
        + &"very long ".repeat(5000)
        + &"x".repeat(5000);
    let (_, content) =
        make(&envelope("<alice@home.test>"), CONTENT, &[failed("<b@x.test>", &hostile)], None).unwrap();
    let mail = check(&content);
    let groups = status(&mail);
    assert_eq!(groups.len(), 2);
    let statuses: Vec<_> = groups[1].iter().filter(|(name, _)| name == "Status").collect();
    assert_eq!(statuses.len(), 1);
    assert!(content.len() < 16 * 1024);
}

#[test]
fn a_header_with_the_boundary_in_it_does_not_end_its_part() {
    let content =
        b"Subject: x\r\n--=_01J00000000000000000000001\r\n--=_01J00000000000000000000001--\r\nTo: y\r\n\r\n";
    let (_, report) =
        make(&envelope("<alice@home.test>"), content, &[failed("<b@x.test>", "no")], None).unwrap();
    let returned = check(&report).subparts[2].get_body_raw().unwrap();
    assert!(returned.ends_with(b"To: y\r\n") || returned.ends_with(b"To: y\r\n\r\n"));
}

#[test]
fn eight_bit_headers_and_long_lines_come_back_as_they_were() {
    let content =
        [b"Subject: \xff\xc3\xa9 caf\xe9\r\nX-Long: ".as_slice(), &[b'x'; 3000], b"\r\n\r\nbody"].concat();
    let (_, report) =
        make(&envelope("<alice@home.test>"), &content, &[failed("<b@x.test>", "no")], None).unwrap();
    let mail = check(&report);
    assert_eq!(mail.subparts[2].ctype.mimetype, "text/rfc822-headers");
    let returned = mail.subparts[2].get_body_raw().unwrap();
    let header = &content[..content.len() - b"\r\nbody".len()];
    assert!(returned.starts_with(header), "octet for octet");
}

#[test]
fn a_delay_is_told_with_the_time_until_which_it_is_tried() {
    let mut bob = failed("<bob@example.test>", "");
    bob.status = EnhancedStatus::new(4, 4, 1);
    bob.host = None;
    bob.reply = None;
    bob.detail = "connect: timed out".to_owned();
    let delayed = vec![Delayed { last: bob, retry_until: "2026-01-07T03:04:05Z".parse().unwrap() }];
    let mut original = envelope("<alice@home.test>");
    original.ask(MessageNotification { ret: Some(Ret::Full), envid: None });
    let (_, content) =
        make_of(&original, CONTENT, &News { delayed, ..News::default() }, false, None).unwrap();
    let mail = check(&content);
    assert_eq!(mail.headers.get_first_value("Subject").unwrap(), "Your mail is delayed");
    assert_eq!(
        pairs(&status(&mail)[1]),
        [
            ("Final-Recipient", "rfc822; bob@example.test"),
            ("Action", "delayed"),
            ("Status", "4.4.1"),
            ("Diagnostic-Code", "x-empath; connect: timed out"),
            ("Last-Attempt-Date", "Fri, 02 Jan 2026 03:05:00 +0000"),
            ("Will-Retry-Until", "Wed, 07 Jan 2026 03:04:05 +0000"),
        ]
    );
    let text = mail.subparts[0].get_body().unwrap();
    assert!(text.contains("tried until Wed, 07 Jan 2026 03:04:05 +0000"), "{text}");
    assert!(!text.contains("not be tried again"), "{text}");
}

#[test]
fn what_hosts_say_about_many_recipients_stays_small_together() {
    let failed: Vec<_> =
        (0..5000).map(|n| failed(&format!("<u{n}@example.test>"), &"no ".repeat(1000))).collect();
    let (_, content) = make(&envelope("<alice@home.test>"), CONTENT, &failed, None).unwrap();
    assert_eq!(status(&check(&content)).len(), 5001);
    assert!(content.len() < 5000 * 800, "{}", content.len());
}

#[test]
fn an_endless_header_is_returned_in_part_and_in_whole_lines() {
    let content = b"X-Line: 0123456789\r\n".repeat(10_000);
    let (_, report) =
        make(&envelope("<alice@home.test>"), &content, &[failed("<b@x.test>", "no")], None).unwrap();
    let returned = check(&report).subparts[2].get_body_raw().unwrap();
    assert!((60_000..66_000).contains(&returned.len()));
    assert_eq!(returned.trim_ascii_end().len() % 20, 18, "the last line is whole");
    for content in [b"\r\nno header\r\n".as_slice(), b"", b"no line end"] {
        let (_, report) =
            make(&envelope("<alice@home.test>"), content, &[failed("<b@x.test>", "no")], None).unwrap();
        assert!(check(&report).subparts[2].get_body_raw().unwrap().trim_ascii().is_empty());
    }
}

#[test]
fn a_hundred_failed_recipients_are_one_report() {
    let failed: Vec<_> = (0..100).map(|n| failed(&format!("<u{n}@example.test>"), "no")).collect();
    let (_, content) = make(&envelope("<alice@home.test>"), CONTENT, &failed, None).unwrap();
    assert_eq!(status(&check(&content)).len(), 101);
}

#[test]
fn a_host_is_named_by_its_literal_and_quoted_only_if_it_spoke() {
    let mut silent = failed("<bob@example.test>", "");
    silent.host = Some(HostAddr::Ip("::1".parse().unwrap()));
    silent.reply = None;
    silent.detail = "MAIL FROM: timed out".to_owned();
    let mut spoke = failed("<carol@example.test>", "no \\x1b such user");
    spoke.host = Some(HostAddr::Ip("192.0.2.1".parse().unwrap()));
    let (_, content) = make(&envelope("<alice@home.test>"), CONTENT, &[silent, spoke], None).unwrap();
    let mail = check(&content);
    let groups = status(&mail);
    assert_eq!(pairs(&groups[1])[3], ("Remote-MTA", "dns; [IPv6:::1]"));
    assert_eq!(pairs(&groups[2])[3], ("Remote-MTA", "dns; [192.0.2.1]"));
    assert_eq!(pairs(&groups[2])[4], ("Diagnostic-Code", "smtp; 550 no \\x1b such user"));
    let text = mail.subparts[0].get_body().unwrap();
    assert_eq!(text.matches(" said:").count(), 1, "{text}");
    assert!(text.contains("192.0.2.1] said:") || text.contains("192.0.2.1 said:"), "{text}");
}

fn success(recipient: &str, how: Arrived) -> Success {
    Success {
        recipient: recipient.parse().unwrap(),
        orcpt: OriginalRecipient::parse(b"rfc822;Bob+2Bx@elsewhere.test"),
        how,
        host: (how == Arrived::Relayed).then(|| HostAddr::Name("mx1.example.test".parse().unwrap())),
        reply: Reply::new(250, (2, 0, 0), "Ok"),
    }
}

#[test]
fn a_success_is_told_with_what_the_sender_knows_the_message_by() {
    let mut original = envelope("<alice@home.test>");
    let envid = EnvelopeId::parse(b"QQ+2B1+20x");
    original.ask(MessageNotification { ret: None, envid });
    let arrived = vec![
        success("<bob@example.test>", Arrived::Delivered),
        success("<carol@example.test>", Arrived::Relayed),
    ];
    let (envelope, content) =
        make_of(&original, CONTENT, &News { arrived, ..News::default() }, false, None).unwrap();
    assert_eq!(*envelope.notification(), MessageNotification::default(), "RFC 3461 §6.1: no RET");
    assert_eq!(envelope.notifications().count(), 0, "RFC 3461 §6.1: no NOTIFY but NEVER");
    let mail = check(&content);
    assert_eq!(mail.headers.get_first_value("Subject").unwrap(), "Your mail has arrived");
    let groups = status(&mail);
    assert_eq!(pairs(&groups[0])[0], ("Original-Envelope-Id", "QQ+1 x"));
    assert_eq!(
        pairs(&groups[1]),
        [
            ("Original-Recipient", "rfc822; Bob+x@elsewhere.test"),
            ("Final-Recipient", "rfc822; bob@example.test"),
            ("Action", "delivered"),
            ("Status", "2.0.0"),
        ]
    );
    assert_eq!(
        pairs(&groups[2]),
        [
            ("Original-Recipient", "rfc822; Bob+x@elsewhere.test"),
            ("Final-Recipient", "rfc822; carol@example.test"),
            ("Action", "relayed"),
            ("Status", "2.0.0"),
            ("Remote-MTA", "dns; mx1.example.test"),
            ("Diagnostic-Code", "smtp; 250 2.0.0 Ok"),
        ]
    );
    let text = mail.subparts[0].get_body().unwrap();
    assert!(!text.contains("could not be delivered"), "{text}");
    assert!(text.contains("<bob@example.test>") && text.contains("sends no reports"), "{text}");
    assert_eq!(mail.subparts[2].ctype.mimetype, "text/rfc822-headers");
}

#[test]
fn a_whole_message_comes_back_octet_for_octet_where_it_can() {
    let news = News { failed: vec![failed("<bob@example.test>", "no")], ..News::default() };
    let eight_bit: &[u8] = b"Subject: x\r\n\r\n\xff caf\xe9\r\n";
    for (whole, body, encoding) in
        [(CONTENT, Body::SevenBit, "7bit"), (eight_bit, Body::EightBitMime, "8bit")]
    {
        let (envelope, report) = make_of(&envelope("<alice@home.test>"), whole, &news, true, None).unwrap();
        assert_eq!(envelope.body, body);
        let mail = parse_mail(&report).unwrap();
        let outer = mail.headers.get_first_value("Content-Transfer-Encoding");
        assert_eq!(outer.as_deref(), Some("8bit").filter(|_| encoding == "8bit"), "RFC 2045 §6.4");
        let part = &mail.subparts[2];
        assert_eq!(part.ctype.mimetype, "message/rfc822");
        assert_eq!(part.headers.get_first_value("Content-Transfer-Encoding").unwrap(), encoding);
        assert!(part.raw_bytes.windows(whole.len()).any(|octets| octets == whole));
    }
    let long = [b"Subject: x\r\n\r\n".as_slice(), &[b'x'; 1500], b"\r\n"].concat();
    let (_, report) = make_of(&envelope("<alice@home.test>"), &long, &news, true, None).unwrap();
    assert_eq!(check(&report).subparts[2].ctype.mimetype, "text/rfc822-headers", "no line grows longer");
    let mut original = envelope("<alice@home.test>");
    original.smtputf8 = true;
    let utf8 = "Subject: δοκιμή\r\n\r\nπ\r\n".as_bytes();
    let (envelope, report) = make_of(&original, utf8, &news, true, None).unwrap();
    assert_eq!(envelope.body, Body::SevenBit);
    let mail = check(&report);
    assert_eq!(mail.subparts[2].ctype.mimetype, "message/global");
    assert_eq!(mail.subparts[2].get_body_raw().unwrap().trim_ascii_end(), utf8.trim_ascii_end());
}
