//! Only CRLF.CRLF ends content (RFC 5321 §4.1.1.4).

use empath_smtp::server::{BareNewlines, Config};

use crate::{intake::Shelf, machine::Machine, script::default_config};

const START: &[u8] = b"EHLO evil.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n";

pub(crate) const SMUGGLED: &[u8] = b"MAIL FROM:<smuggled@o.example>\r\nRCPT TO:<b@test.example>\r\n\
    DATA\r\nSubject: SMUGGLED\r\n\r\ny\r\n.\r\n";

/// No end of data, and no clean content either.
pub(crate) const NOT_THE_END: [&[u8]; 21] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\n.\n\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\0.\r\n",
    b"\n\n.\r\n",
    b"\r\r.\r\n",
    b"\n\r.\r\n",
    b"\r\0\n.\r\n",
    b"\n\r\n..\r\n",
    b"\r\n.\r.\r\n",
    b"\0\r\n..\r\n",
    b"\r.\n.\r\n",
    b"\n.\n.\r\n",
];

fn config(bare_newlines: BareNewlines) -> Config {
    Config { bare_newlines, ..serde_json::from_value(default_config()).unwrap() }
}

/// Where in the message the sequence stands.
const PLACES: [&[u8]; 4] = [b"", b"Subject: a", b"Subject: a\r\n\r\n", b"Subject: a\r\n\r\nx"];

fn each_split(stream: &[u8], check: impl Fn(&mut Machine, &Shelf), bare_newlines: BareNewlines) {
    let config = config(bare_newlines);
    let mut splits: Vec<Vec<&[u8]>> = vec![stream.chunks(1).collect()];
    splits.extend((0..=stream.len()).map(|at| {
        let (one, two) = stream.split_at(at);
        vec![one, two]
    }));
    for chunks in splits {
        let shelf = Shelf::default();
        let mut machine = Machine::new(&config, "203.0.113.9".parse().unwrap(), &shelf);
        for chunk in &chunks {
            machine.feed(chunk);
        }
        check(&mut machine, &shelf);
    }
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_content_and_bare_newlines_are_refused() {
    for place in PLACES {
        for sequence in NOT_THE_END {
            let stream = [START, place, sequence, SMUGGLED, b"NOOP\r\n"].concat();
            let check = |machine: &mut Machine, shelf: &Shelf| {
                let context = sequence.escape_ascii();
                assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 550, 250], "{context}");
                assert!(shelf.messages().is_empty(), "{context}: nothing is stored");
            };
            each_split(&stream, check, BareNewlines::Reject);
        }
    }
}

#[test]
fn normalized_content_is_one_message_of_clean_lines() {
    for sequence in NOT_THE_END.into_iter().filter(|sequence| !sequence.contains(&0)) {
        let stream = [START, b"Subject: a\r\n\r\nx", sequence, SMUGGLED, b"NOOP\r\n"].concat();
        let check = |machine: &mut Machine, shelf: &Shelf| {
            let context = sequence.escape_ascii();
            assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 250, 250], "{context}");
            let messages = shelf.messages();
            let [(envelope, content)] = messages.as_slice() else { panic!("{context}: one message") };
            assert_eq!(envelope.reverse_path.as_str(), "a@o.example", "{context}");
            let text = str::from_utf8(content).unwrap();
            assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{context}: {text:?}");
            assert!(text.ends_with("\r\ny\r\n"), "{context}: {text:?}");
        };
        each_split(&stream, check, BareNewlines::Normalize);
    }
}

#[test]
fn a_nul_is_refused_even_where_newlines_are_normalized() {
    let stream = [START, b"x\r\n\0.\r\n.\r\n"].concat();
    let check = |machine: &mut Machine, shelf: &Shelf| {
        assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 550]);
        assert!(shelf.messages().is_empty());
    };
    each_split(&stream, check, BareNewlines::Normalize);
}

#[test]
fn a_true_end_is_found_behind_anything_and_what_follows_is_commands() {
    for junk in [&b"\r"[..], b"\n", b"\0", b"\r\r\r", b".\n", b"\n."] {
        let stream = [START, b"x", junk, b"\r\n.\r\nNOOP\r\nQUIT\r\n"].concat();
        let check = |machine: &mut Machine, shelf: &Shelf| {
            let context = junk.escape_ascii();
            assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 550, 250, 221], "{context}");
            assert!(machine.closed && shelf.messages().is_empty(), "{context}");
        };
        each_split(&stream, check, BareNewlines::Reject);
    }
}

#[test]
fn the_end_is_found_at_every_distance_from_a_buffers_edge() {
    for len in (4090..4102).chain(8180..8200).chain(65_530..65_542) {
        let stream = [START, &b"x\r\n".repeat(len / 3), &vec![b'y'; len % 3], b"\r\n.\r\nNOOP\r\n"].concat();
        for size in [4096, 8192, 65_536] {
            let shelf = Shelf::default();
            let mut machine =
                Machine::new(&config(BareNewlines::Reject), "203.0.113.9".parse().unwrap(), &shelf);
            stream.chunks(size).for_each(|chunk| machine.feed(chunk));
            assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 250, 250], "{len} in {size}");
            assert_eq!(shelf.messages().len(), 1);
        }
    }
}
