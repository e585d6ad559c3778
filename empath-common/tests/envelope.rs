//! Envelopes and their metadata have bounds; small values have one spelling.
#![expect(clippy::unwrap_used, reason = "what does not parse fails the test")]

use empath_common::{
    ByteSize, EnhancedStatus, Envelope, Escaped, ForwardPath, MessageId, MessageNotification, Metadata,
    MetadataFull, Notify, OriginalRecipient, Problem, RecipientNotification, Reply, Ret, ReversePath,
    TooManyRecipients,
};

fn to(address: &str) -> ForwardPath {
    format!("<{address}>").parse().unwrap()
}

#[test]
fn recipients_keep_their_order_and_count_once() {
    let mut envelope = Envelope::new(ReversePath::Null, to("a@one.test"));
    for address in ["b@one.test", "a@ONE.test", "Postmaster", "POSTMASTER", "A@one.test", "b@one.test"] {
        envelope.add(to(address), 100).unwrap();
    }
    let kept: Vec<&str> = envelope.recipients().iter().map(ForwardPath::as_str).collect();
    assert_eq!(kept, ["a@one.test", "b@one.test", "Postmaster", "A@one.test"]);
}

#[test]
fn one_recipient_more_than_the_maximum_is_refused_and_a_duplicate_is_not() {
    let mut envelope = Envelope::new(ReversePath::Null, to("0@a.test"));
    for n in 1..3 {
        envelope.add(to(&format!("{n}@a.test")), 3).unwrap();
    }
    assert_eq!(envelope.add(to("3@a.test"), 3), Err(TooManyRecipients));
    assert_eq!(envelope.add(to("2@a.test"), 3), Ok(()));
    assert_eq!(envelope.recipients().len(), 3);
}

#[test]
fn what_was_asked_about_a_recipient_first_stays_and_costs_nothing_where_nothing_was() {
    let never = RecipientNotification { notify: Some(Notify::NEVER), orcpt: None };
    let orcpt = OriginalRecipient::parse(b"rfc822;a@b.test");
    let meant = RecipientNotification { notify: None, orcpt };
    let mut envelope = Envelope::new(ReversePath::Null, to("a@one.test"));
    let plain = envelope.clone();
    envelope.ask(MessageNotification::default());
    envelope.ask_about(0, RecipientNotification::default());
    envelope.ask_about(1, never.clone());
    assert_eq!(envelope, plain, "nothing was asked about anybody who is there");
    envelope.ask_about(0, never.clone());
    envelope.ask_about(0, meant);
    envelope.ask(MessageNotification { ret: Some(Ret::Full), envid: None });
    assert_eq!((envelope.notification_of(0), envelope.notifications().count()), (&never, 1));
    assert_eq!(envelope.notification_of(1), &RecipientNotification::default());
    assert_eq!(envelope.notification().ret, Some(Ret::Full));
}

#[test]
fn metadata_takes_what_fits_to_the_octet() {
    let mut metadata = Metadata::default();
    let value = "v".repeat(Metadata::MAX_OCTETS - 4);
    metadata.insert("name".into(), value.clone()).unwrap();
    assert_eq!(metadata.insert("x".into(), String::new()), Err(MetadataFull));
    assert_eq!(metadata.insert("name".into(), format!("{value}v")), Err(MetadataFull));
    assert_eq!(metadata.get("name"), Some(&*value), "a refused value leaves the old one");
    metadata.insert("name".into(), "short".into()).unwrap();
    metadata.insert("x".into(), value[9..].to_owned()).unwrap();
    assert_eq!(metadata.iter().count(), 2);
}

#[test]
fn merged_metadata_wins_and_what_does_not_fit_is_left_out() {
    let of = |pairs: &[(&str, String)]| {
        let mut metadata = Metadata::default();
        for (name, value) in pairs {
            metadata.insert((*name).into(), value.clone()).unwrap();
        }
        metadata
    };
    let mut metadata = of(&[("a", "old".into()), ("b", "kept".into())]);
    assert_eq!(metadata.merge(of(&[("a", "new".into())])), Ok(()));
    assert_eq!((metadata.get("a"), metadata.get("b")), (Some("new"), Some("kept")));
    let big = "x".repeat(Metadata::MAX_OCTETS - 1);
    assert_eq!(metadata.clone().merge(of(&[("c", big)])), Err(MetadataFull));
    assert!(Metadata::default().is_empty() && !metadata.is_empty());
}

#[test]
fn controls_and_look_alike_directions_are_escaped() {
    for (octets, shown) in [
        ("plain é 日本".as_bytes(), "plain é 日本"),
        (b"a\r\nb\tc\0\x1b[31m\x7f", r"a\r\nb\tc\x00\x1b[31m\x7f"),
        (b"back\\slash", r"back\\slash"),
        (b"\xff\xc3(", r"\xff\xc3("),
        ("\u{85}\u{202e}\u{2066}\u{2028}\u{feff}".as_bytes(), r"\u{85}\u{202e}\u{2066}\u{2028}\u{feff}"),
    ] {
        assert_eq!(Escaped(octets).to_string(), shown);
    }
}

#[test]
fn sizes_are_read_with_their_units() {
    for (text, octets) in [
        ("0", 0),
        ("1024", 1024),
        ("7B", 7),
        ("1KiB", 1024),
        ("25MiB", 26_214_400),
        ("1.5GiB", 1_610_612_736),
        ("1 TiB", 1 << 40),
        ("3kB", 3000),
        ("2MB", 2_000_000),
        ("1.25GB", 1_250_000_000),
        ("1TB", 1_000_000_000_000),
    ] {
        assert_eq!(text.parse(), Ok(ByteSize(octets)), "{text}");
    }
    for wrong in [
        "",
        "B",
        "MiB",
        "-1",
        "+1",
        "1.",
        ".5MiB",
        "1.2.3",
        "1mib",
        "1 M",
        "1e3",
        "20000000TiB",
        "18446744073709551616",
        "1.0000001KiB",
    ] {
        assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
    }
    assert_eq!(ByteSize(1536 << 10).to_string(), "1536KiB");
    assert!(
        serde_json::from_str::<ByteSize>("-1").is_err() && serde_json::from_str::<ByteSize>("1.5").is_err()
    );
}

#[test]
fn an_id_that_would_overflow_is_none() {
    assert!("7ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<MessageId>().is_ok());
    for wrong in [
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "",
        "01",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "../../../../../../etc/pass",
    ] {
        assert!(wrong.parse::<MessageId>().is_err(), "{wrong}");
        assert!(serde_json::from_value::<MessageId>(wrong.into()).is_err(), "{wrong}");
    }
}

#[test]
fn enhanced_statuses_have_three_numbers() {
    for wrong in [
        "", "5", "5.1", "5.1.1.1", "3.1.1", "6.0.0", "5.1000.1", "5.-1.1", "5.+1.1", "5..1", "5.1.1 ",
        "x.y.z",
    ] {
        assert!(wrong.parse::<EnhancedStatus>().is_err(), "{wrong}");
    }
}

#[test]
fn a_reply_is_shown_on_one_line() {
    let reply = Reply::new(550, (5, 1, 1), "no such\nuser");
    assert_eq!(reply.to_string(), "550 5.1.1 no such user");
    assert_eq!(Reply::plain(354, "go on").with_text("other").to_string(), "354 other");
    assert_eq!(Reply::plain(99, "impossible").code.get(), 451);
}

#[test]
fn a_problem_is_placed_from_the_root() {
    let problem = Problem::new("[0].socket", "in use").within("listeners").within("smtp");
    assert_eq!(problem.to_string(), "smtp.listeners[0].socket: in use");
    assert_eq!(Problem::new("", "wrong").within("smtp").key, "smtp");
}

#[test]
fn many_recipients_are_told_apart_as_few_are() {
    let path = |number: usize, domain: &str| format!("<u{number}@{domain}>").parse().unwrap();
    let mut envelope = Envelope::new(ReversePath::Null, path(0, "x.test"));
    for _ in 0..2 {
        (0..500).for_each(|number| envelope.add(path(number, "x.test"), 500).unwrap());
        (0..500).for_each(|number| envelope.add(path(number, "X.TEST"), 500).unwrap());
    }
    assert_eq!(envelope.recipients().len(), 500);
    assert_eq!(envelope.add(path(500, "x.test"), 500), Err(TooManyRecipients));
    assert_eq!(envelope, envelope.clone());
}
