//! Clients that do too much of everything: the session answers, holds little, and serves on.

use empath_smtp::server::{Config, Mode};
use serde_json::{Value, json};

use crate::{
    intake::Shelf,
    machine::Machine,
    memory::flow,
    script::{default_config, merge},
};

const START: &str = "EHLO evil.example\r\nMAIL FROM:<a@o.example>\r\n";
const TO_DATA: &str = "EHLO evil.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n";

/// Room for content while it is read.
const ROOM: usize = 128 * 1024;

fn config(more: Value) -> Config {
    let mut config = default_config();
    merge(&mut config, more);
    serde_json::from_value(config).unwrap()
}

fn machine(more: Value) -> (Machine, Shelf) {
    let shelf = Shelf::default();
    (Machine::new(&config(more), "203.0.113.9".parse().unwrap(), &shelf), shelf)
}

/// How often each code was answered, greeting and all.
fn count(machine: &Machine, code: u16) -> usize {
    machine.codes().into_iter().filter(|found| *found == code).count()
}

/// Sends a line and returns the reply to it.
fn exchange(machine: &mut Machine, line: &[u8]) -> String {
    let before = machine.output.len();
    flow(machine, &[line, b"\r\n"].concat());
    String::from_utf8(machine.output.split_off(before)).unwrap()
}

#[test]
fn a_line_of_100_mb_is_held_nowhere() {
    let megabyte = vec![b'x'; 1_000_000];
    for (start, end, codes) in [
        ("", "\r\nNOOP\r\n", vec![220, 500, 250]),
        (TO_DATA, "\r\n\r\n.\r\nNOOP\r\n", vec![220, 250, 250, 250, 354, 554, 250]),
        (&format!("{TO_DATA}Subject: "), "\r\n\r\n.\r\nNOOP\r\n", vec![220, 250, 250, 250, 354, 554, 250]),
        (
            &format!("{TO_DATA}Subject: x\r\n\r\n"),
            "\r\n.\r\nNOOP\r\n",
            vec![220, 250, 250, 250, 354, 554, 250],
        ),
    ] {
        let (mut machine, shelf) = machine(json!({}));
        machine.feed(start.as_bytes());
        let room = (0..100).map(|_| flow(&mut machine, &megabyte)).max().unwrap();
        assert!(room <= ROOM, "{room}");
        assert_eq!(shelf.drafts(), 0, "what is refused is forgotten at once");
        machine.feed(end.as_bytes());
        assert_eq!(machine.codes(), codes);
        assert!(shelf.messages().is_empty());
    }
}

#[test]
fn a_header_is_bounded_although_lines_are_not() {
    for mode in [Mode::Relay, Mode::Submission] {
        let (mut machine, shelf) = machine(json!({
            "listeners": [{"mode": mode}],
            "auth": {"users_file": "users", "require_tls": false},
            "limits": {"content_line": 1 << 30, "message_size": "1GiB"},
        }));
        let user = "EHLO c.example\r\nAUTH PLAIN AGFsaWNlQHRlc3QuZXhhbXBsZQBzZWNyZXQ=\r\n\
            MAIL FROM:<alice@test.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nFrom: ";
        machine.feed(user.as_bytes());
        let room = (0..20).map(|_| flow(&mut machine, &vec![b'x'; 1_000_000])).max().unwrap();
        assert!(room <= ROOM, "{room}");
        assert_eq!(shelf.drafts(), 0, "{mode:?}: it is refused long before its end");
        machine.feed(b"\r\n\r\n.\r\nQUIT\r\n");
        assert_eq!(machine.codes(), [220, 250, 235, 250, 250, 354, 552, 221], "{mode:?}");
    }
}

#[test]
fn a_hundred_thousand_header_fields_are_refused_and_where_they_are_allowed_taken() {
    let header = "X: y\r\n".repeat(100_000);
    let folded = format!("Subject: x\r\n{}", " x\r\n".repeat(100_000));
    let large = json!({"limits": {"header_fields": 100_000, "header_size": "1MiB"}});
    for (config, code) in [(json!({}), 552), (large, 250)] {
        for header in [&header, &folded] {
            let (mut machine, _) = machine(config.clone());
            machine.feed(TO_DATA.as_bytes());
            flow(&mut machine, header.as_bytes());
            machine.feed(b"\r\nx\r\n.\r\nNOOP\r\n");
            assert_eq!(machine.codes(), [220, 250, 250, 250, 354, code, 250]);
        }
    }
}

#[test]
fn a_hundred_thousand_recipients_are_452_but_for_the_first_hundred() {
    let (mut machine, _) = machine(json!({"limits": {"recipients": 100}}));
    machine.feed(START.as_bytes());
    for n in 0..100_000 {
        machine.feed(format!("RCPT TO:<u{n}@test.example>\r\n").as_bytes());
    }
    assert_eq!((count(&machine, 250), count(&machine, 452)), (102, 99_900));
    machine.feed(b"DATA\r\nx\r\n.\r\n");
    assert_eq!(machine.codes().last(), Some(&250));
}

#[test]
fn a_recipient_named_ten_thousand_times_is_one_and_unknown_ones_are_not_asked_about_for_long() {
    let (mut same, shelf) = machine(json!({}));
    same.feed(START.as_bytes());
    flow(&mut same, "RCPT TO:<b@test.example>\r\n".repeat(10_000).as_bytes());
    same.feed(b"DATA\r\nx\r\n.\r\n");
    assert_eq!((count(&same, 250), count(&same, 354)), (10_003, 1));
    assert_eq!(shelf.messages()[0].0.recipients().len(), 1);

    let (mut unknown, _) = machine(json!({}));
    unknown.feed(START.as_bytes());
    flow(&mut unknown, "RCPT TO:<x@elsewhere.example>\r\n".repeat(10_000).as_bytes());
    assert!(unknown.closed);
    assert_eq!((count(&unknown, 550), count(&unknown, 421)), (20, 1));
}

#[test]
fn commands_without_a_message_end_a_session_and_where_they_may_not_a_hundred_thousand_are_answered() {
    let commands = "NOOP\r\nRSET\r\n".repeat(50_000);
    let (mut short, _) = machine(json!({}));
    flow(&mut short, commands.as_bytes());
    assert!(short.closed);
    assert_eq!((count(&short, 250), count(&short, 421)), (100, 1));
    let (mut long, _) = machine(json!({"limits": {"idle_commands": 100_000}}));
    flow(&mut long, commands.as_bytes());
    assert_eq!(count(&long, 250), 100_000);
    assert!(long.session.buffer().capacity() <= 8192);
}

#[test]
fn addresses_that_are_none_are_5yz_and_the_session_goes_on() {
    let strange = [
        b"<@>".to_vec(),
        b"<a@>".to_vec(),
        b"<a@b".to_vec(),
        b"a@b>".to_vec(),
        b"<\"a@test.example>".to_vec(),
        b"<\"a\\\"@test.example>".to_vec(),
        [b"<a@[IPv6:", &b"f".repeat(1500)[..], b"]>"].concat(),
        [b"<a@[IPv6:", &b"f".repeat(10_000)[..], b"]>"].concat(),
        [&b"x".repeat(65_536)[..], b"@test.example>"].concat(),
        [b"<", &b"x".repeat(1900)[..], b"@test.example>"].concat(),
        [b"<a@", &b"d.".repeat(900)[..], b"test.example>"].concat(),
        [b"<", &b"@r.example,".repeat(150)[..], b"@r.example:a@other.example>"].concat(),
        b"<b@test.example.>".to_vec(),
        b"<b@.test.example>".to_vec(),
        b"<b@xn--zz-.example>".to_vec(),
        b"<b@xn--a.example>".to_vec(),
        b"<b@test.example\0>".to_vec(),
        b"<b@test.example\xff>".to_vec(),
        b"<b\x1b[31m@test.example>".to_vec(),
        b"<b@test.example><c@test.example>".to_vec(),
        b"<<b@test.example>>".to_vec(),
        b"< b@test.example >".to_vec(),
        b"<b@test.example".to_vec(),
        b"<b\t@test.example>".to_vec(),
    ];
    for address in strange {
        let (mut machine, _) = machine(json!({}));
        machine.feed(START.as_bytes());
        let reply = exchange(&mut machine, &[b"RCPT TO:", &address[..]].concat());
        assert!(reply.starts_with('5'), "{}: {reply}", address.escape_ascii());
        assert!(reply.lines().count() == 1 && reply.is_ascii(), "{reply}");
        assert!(!reply.contains('\x1b'), "{reply}");
        assert!(exchange(&mut machine, b"DATA").starts_with("503 "), "{}", address.escape_ascii());
        assert!(exchange(&mut machine, b"RCPT TO:<b@test.example>").starts_with("250 "));
    }
}

#[test]
fn addresses_that_mean_something_to_shells_and_file_systems_are_only_addresses() {
    for address in
        ["../../etc/x@test.example", "|cmd@test.example", "-oQ/tmp@test.example", "/etc/passwd@test.example"]
    {
        let (mut machine, shelf) = machine(json!({}));
        machine.feed(format!("{START}RCPT TO:<{address}>\r\nDATA\r\nx\r\n.\r\n").as_bytes());
        for (envelope, _) in shelf.messages() {
            assert_eq!(envelope.recipients()[0].to_string(), format!("<{address}>"));
        }
        assert!(exchange(&mut machine, b"NOOP").starts_with("250 "));
    }
}

#[test]
fn parameters_that_are_none_are_5yz_and_the_session_goes_on() {
    let many = " A=b".repeat(500);
    let same = " SIZE=1".repeat(250);
    for parameters in [
        " SIZE=1 SIZE=1",
        " BODY=8BITMIME BODY=8BITMIME",
        " SMTPUTF8 SMTPUTF8",
        " SIZE=",
        " SIZE= BODY=7BIT",
        " BODY=",
        " =",
        " =x",
        "\tSIZE=1",
        " SIZE=1\tBODY=7BIT",
        " SIZE=\t1",
        "SIZE=1",
        " SIZE=123456789012345678901",
        " SIZE=99999999999999999999",
        " SIZE=+5",
        " SIZE=0x10",
        " SMTPUTF8=yes",
        " FOO",
        "RCPT TO:<b@test.example>",
        " RCPT TO:<b@test.example>",
        &many,
        &same,
    ] {
        let (mut machine, _) = machine(json!({"limits": {"command_line": 4096}}));
        machine.feed(b"EHLO c.example\r\n");
        let reply = exchange(&mut machine, format!("MAIL FROM:<a@o.example>{parameters}").as_bytes());
        assert!(reply.starts_with('5'), "{parameters}: {reply}");
        assert!(exchange(&mut machine, b"RCPT TO:<b@test.example>").starts_with("503 "), "{parameters}");
        assert!(exchange(&mut machine, b"MAIL FROM:<a@o.example>").starts_with("250 "), "{parameters}");
    }
}

#[test]
fn a_client_that_sends_everything_before_the_greeting_is_served_in_order() {
    let shelf = Shelf::default();
    let settings = crate::machine::settings(&config(json!({})));
    let client = crate::machine::client("203.0.113.9".parse().unwrap());
    let mut session = empath_smtp::server::Session::new(settings.into(), Mode::Relay, client);
    session.buffer().extend_from_slice(format!("{TO_DATA}x\r\n.\r\nQUIT\r\n").as_bytes());
    let mut machine = Machine::of(session, &config(json!({})), &shelf);
    machine.run();
    assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 250, 221]);
    assert_eq!(shelf.messages().len(), 1);
}

#[test]
fn nothing_behind_starttls_in_clear_text_is_ever_answered() {
    let flood = "NOOP\r\n".repeat(1000);
    for injected in [
        "RSET\r\n",
        "EHLO evil.example\r\n",
        "MAIL FROM:<evil@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nx\r\n.\r\n",
        "AUTH PLAIN AGFsaWNlQHRlc3QuZXhhbXBsZQBzZWNyZXQ=\r\n",
        "AUTH LOGIN\r\n",
        "QUIT\r\n",
        "STARTTLS\r\n",
        "NO",
        &flood,
    ] {
        let (mut machine, shelf) = machine(json!({"tls": [{}], "auth": {"users_file": "users"}}));
        let clear = format!("EHLO c.example\r\nSTARTTLS\r\n{injected}");
        flow(&mut machine, clear.as_bytes());
        assert_eq!(machine.codes(), [220, 250, 220], "{injected:.20}");
        machine.handshake();
        machine.feed(b"NOOP\r\nMAIL FROM:<a@o.example>\r\n");
        assert_eq!(machine.codes(), [220, 250, 220, 250, 503], "{injected:.20}");
        assert!(shelf.messages().is_empty() && machine.session.client().helo.is_none());
    }
}

#[test]
fn an_authentication_line_of_100_kb_is_one_refusal() {
    for start in ["AUTH PLAIN ", "AUTH PLAIN\r\n", "AUTH SCRAM-SHA-256 ", "AUTH LOGIN\r\n"] {
        let auth = json!({"auth": {"users_file": "users", "require_tls": false}});
        let (mut machine, _) = machine(auth);
        machine.feed(b"EHLO c.example\r\n");
        machine.feed(start.as_bytes());
        let before = machine.codes().len();
        let room = flow(&mut machine, &b"QUFB".repeat(25_000));
        assert!(room <= 2 * 16 * 1024, "{room}");
        machine.feed(b"\r\nNOOP\r\n");
        assert_eq!(machine.codes().get(before..), Some(&[500, 250][..]), "{start:?}");
    }
}
