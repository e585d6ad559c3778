//! No open relay, whatever the address looks like and whoever the client says it is.

use empath_smtp::server::{Config, Mode};
use serde_json::json;

use crate::{intake::Shelf, machine::Machine};

/// We are mx.test.example, at 192.0.2.25; ours is test.example, and relay.example is relayed on.
fn config(mode: Mode) -> Config {
    serde_json::from_value(json!({
        "listeners": [{"mode": mode}],
        "relay_networks": ["198.51.100.64/26", "2001:db8:1::/48"],
        "relay_domains": ["relay.example"],
        "local_domains": ["test.example", "bücher.example"],
    }))
    .unwrap()
}

const OUTSIDER: &str = "203.0.113.9";

/// What a client at `peer` is answered at RCPT; whatever else it tries, nothing is stored unless that is 250.
fn rcpt(peer: &str, helo: &str, sender: &str, recipient: &str) -> u16 {
    let shelf = Shelf::default();
    let mut machine = Machine::new(&config(Mode::Relay), peer.parse().unwrap(), &shelf);
    machine.feed(format!("EHLO {helo}\r\nMAIL FROM:<{sender}> SMTPUTF8\r\n").as_bytes());
    assert_eq!(machine.codes(), [220, 250, 250], "{helo} {sender}");
    machine.feed(format!("RCPT TO:{recipient}\r\n").as_bytes());
    let code = *machine.codes().last().unwrap();
    machine.feed(b"DATA\r\nTo: r@other.example\r\nBcc: r@other.example\r\n\r\nx\r\n.\r\n");
    assert_eq!(shelf.messages().len(), usize::from(code == 250), "{recipient}");
    for (envelope, _) in shelf.messages() {
        assert_eq!(envelope.recipients().len(), 1, "header fields name nobody");
    }
    code
}

#[test]
fn outsiders_reach_nobody_elsewhere_whatever_they_write() {
    for recipient in [
        "<r@other.example>",
        "<r@OTHER.EXAMPLE>",
        "<r@other.example.>",
        "<r@test.example.>",
        "<r@test.example.other.example>",
        "<r@sub.test.example>",
        "<r@xtest.example>",
        "<r@mx.test.example>",
        "<r@localhost>",
        "<@test.example:r@other.example>",
        "<@mx.test.example:r@other.example>",
        "<@relay.example,@test.example:r@other.example>",
        "<@[192.0.2.25]:r@other.example>",
        "<@test.example:r%other.example@test.example>",
        "<r%other.example@test.example>",
        "<r%other.example@TEST.example>",
        "<r%other.example@relay.example>",
        "<r%other.example@mx.test.example>",
        "<r%other.example@[192.0.2.25]>",
        "<\"r%other.example\"@test.example>",
        "<\"r\\%other.example\"@test.example>",
        "<r%5Bother.example%5D@test.example>",
        "<other.example!r@test.example>",
        "<other.example!r@relay.example>",
        "<other.example!r@mx.test.example>",
        "<relay.example!other.example!r@test.example>",
        "<\"other.example!r\"@test.example>",
        "<\"r@other.example\">",
        "<\"r@other.example\"@test.example>",
        "<\"r\\@other.example\"@test.example>",
        "<\"r@other.example\"@relay.example>",
        "<\"r@other.example\"@mx.test.example>",
        "<\"r@other.example\"@[192.0.2.25]>",
        "<r@other.example@test.example>",
        "<r@test.example@other.example>",
        "<r@[192.0.2.25]>",
        "<r@[127.0.0.1]>",
        "<r@[192.0.2.1]>",
        "<r@[IPv6:::1]>",
        "<r@[IPv6:::ffff:192.0.2.25]>",
        "<r@[IPv6:::ffff:127.0.0.1]>",
        "<r@[IPv6:2001:db8::1]>",
        "<postmaster@[192.0.2.25]>",
        "<postmaster@other.example>",
        "<postmaster@mx.test.example>",
        // Look-alikes of ours are not ours: a Cyrillic е, and other names beneath the same letters.
        "<r@t\u{435}st.example>",
        "<r@xn--tst-rdd.example>",
        "<r@bucher.example>",
        "<r@b\u{fc}cher.other.example>",
        "<r@\u{ff4f}ther.example>",
        "<\u{435}@other.example>",
        "<r@other\u{3002}example>",
        "r@other.example",
        "<r@other.example> <r@test.example>",
    ] {
        for (helo, sender) in [
            ("evil.example", "a@evil.example"),
            ("mx.test.example", "a@mx.test.example"),
            ("test.example", "a@test.example"),
            ("test.example", "postmaster@test.example"),
            ("[192.0.2.25]", "a@relay.example"),
            ("[127.0.0.1]", "root@localhost"),
            ("localhost", ""),
        ] {
            let code = rcpt(OUTSIDER, helo, sender, recipient);
            assert!((500..600).contains(&code), "{helo} <{sender}> -> {recipient}: {code}");
        }
    }
}

#[test]
fn ours_are_reached_in_each_of_their_forms() {
    for recipient in [
        "<r@test.example>",
        "<R@TEST.EXAMPLE>",
        "<r@relay.example>",
        "<@other.example:r@test.example>",
        "<Postmaster>",
        "<postmaster@test.example>",
        "<PostMaster@relay.example>",
        "<\"r\"@test.example>",
        "<r@b\u{fc}cher.example>",
        "<r@B\u{dc}CHER.example>",
        "<r@xn--bcher-kva.example>",
        "<r@XN--BCHER-KVA.example>",
    ] {
        assert_eq!(rcpt(OUTSIDER, "evil.example", "", recipient), 250, "{recipient}");
        assert_eq!(rcpt(OUTSIDER, "evil.example", "a@evil.example", recipient), 250, "{recipient}");
    }
}

#[test]
fn trusted_networks_end_exactly_where_they_end() {
    for (peer, code) in [
        ("198.51.100.63", 550),
        ("198.51.100.64", 250),
        ("198.51.100.127", 250),
        ("198.51.100.128", 550),
        ("::ffff:198.51.100.63", 550),
        ("::ffff:198.51.100.64", 250),
        ("::ffff:198.51.100.128", 550),
        ("::198.51.100.64", 550),
        ("64:ff9b::198.51.100.64", 550),
        ("2002:c633:6440::1", 550),
        ("2001:db8:0:ffff:ffff:ffff:ffff:ffff", 550),
        ("2001:db8:1::", 250),
        ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", 250),
        ("2001:db8:2::", 550),
        ("127.0.0.1", 550),
        ("::1", 550),
    ] {
        assert_eq!(rcpt(peer, "c.example", "a@test.example", "<r@other.example>"), code, "{peer}");
    }
}

#[test]
fn on_submission_only_a_user_sends_wherever_the_client_is() {
    for peer in [OUTSIDER, "198.51.100.64"] {
        for mode in [Mode::Submission, Mode::Submissions] {
            let shelf = Shelf::default();
            let mut machine = Machine::new(&config(mode), peer.parse().unwrap(), &shelf);
            if mode == Mode::Submissions {
                machine.handshake();
            }
            let commands = "EHLO c.example\r\nMAIL FROM:<postmaster@test.example>\r\nMAIL FROM:<>\r\n\
                RCPT TO:<r@test.example>\r\nDATA\r\n";
            machine.feed(commands.as_bytes());
            assert_eq!(machine.codes(), [220, 250, 530, 530, 503, 503], "{peer} {mode:?}");
        }
    }
}

#[test]
fn the_null_reverse_path_is_everybodys() {
    let mut config = config(Mode::Submission);
    config.auth.users_file = Some("users".into());
    config.auth.require_tls = false;
    let mut user = Machine::new(&config, OUTSIDER.parse().unwrap(), &Shelf::default());
    user.feed(b"EHLO c.example\r\nAUTH PLAIN AGFsaWNlQHRlc3QuZXhhbXBsZQBzZWNyZXQ=\r\nMAIL FROM:<>\r\n");
    user.feed(b"RCPT TO:<r@other.example>\r\n");
    assert_eq!(user.codes(), [220, 250, 235, 250, 250]);
}

#[test]
fn nobody_is_told_whether_an_address_exists() {
    let replies = ["postmaster", "r@test.example", "nobody@test.example", "r@other.example", "<x>", "root"];
    let replies = replies.map(|name| {
        let mut machine = Machine::new(&config(Mode::Relay), OUTSIDER.parse().unwrap(), &Shelf::default());
        machine.feed(b"EHLO c.example\r\n");
        let before = machine.output.len();
        machine.feed(format!("VRFY {name}\r\nEXPN {name}\r\n").as_bytes());
        machine.output().split_off(before)
    });
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    assert!(replies[0].starts_with("252 ") && replies[0].contains("\r\n502 "), "{}", replies[0]);
}
