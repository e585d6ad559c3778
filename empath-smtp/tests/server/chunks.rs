//! Content in chunks (RFC 3030): whatever they hold and however they are cut, it is content and nothing else.

use empath_smtp::server::{BareNewlines, Config};
use proptest::prelude::*;

use crate::{
    intake::Shelf,
    machine::Machine,
    script::default_config,
    smuggling::{NOT_THE_END, SMUGGLED},
};

const START: &[u8] = b"EHLO evil.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\n";

fn machine(bare_newlines: BareNewlines, shelf: &Shelf) -> Machine {
    let config = Config { bare_newlines, ..serde_json::from_value(default_config()).unwrap() };
    Machine::new(&config, "203.0.113.9".parse().unwrap(), shelf)
}

/// The content as the chunks of one transaction.
fn bdat<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut stream = Vec::new();
    for chunk in chunks {
        stream.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        stream.extend_from_slice(chunk);
    }
    [stream, b"BDAT 0 LAST\r\n".to_vec()].concat()
}

#[test]
fn what_looks_like_an_end_is_refused_wherever_a_chunk_or_a_read_cuts_it() {
    for sequence in NOT_THE_END {
        let content = [b"Subject: a\r\n\r\nx", sequence, SMUGGLED].concat();
        // Around the sequence, every cut into two chunks; and each octet alone.
        for at in 12..=15 + sequence.len() {
            let (one, two) = content.split_at(at);
            let stream = [START, &bdat([one, two]), b"NOOP\r\n"].concat();
            for size in [1, 7, usize::MAX] {
                let shelf = Shelf::default();
                let mut machine = machine(BareNewlines::Reject, &shelf);
                stream.chunks(size).for_each(|octets| machine.feed(octets));
                let codes = machine.codes();
                let context = sequence.escape_ascii();
                assert!(codes.contains(&550) && codes.last() == Some(&250), "{context} at {at}: {codes:?}");
                assert_eq!(codes.len(), 8, "{context} at {at}: one reply for each command: {codes:?}");
                assert!(shelf.messages().is_empty(), "{context}: nothing is stored");
            }
        }
    }
}

#[test]
fn any_number_of_chunks_of_one_octet_are_one_message_and_take_no_room() {
    const LINES: usize = 1000;
    let shelf = Shelf::default();
    let mut machine = machine(BareNewlines::Reject, &shelf);
    machine.feed(START);
    machine.output.clear();
    let (chunk, mut largest) = (b"BDAT 1\r\nx".repeat(200), 0);
    for _ in 0..LINES {
        machine.feed(b"BDAT 2\r\n\r\n");
        machine.feed(&chunk);
        largest = largest.max(machine.session.buffer().capacity());
        assert!(machine.output.ends_with(b"250 2.0.0 1 octets received\r\n"));
        machine.output.clear();
    }
    machine.feed(b"BDAT 0 LAST\r\n");
    assert!(largest <= 16 * 1024, "what is pipelined is not gathered: {largest}");
    assert_eq!(machine.codes(), [250]);
    let (_, content) = shelf.messages().pop().unwrap();
    let lines = [&b"\r\n"[..], &[b'x'; 200]].concat().repeat(LINES);
    assert!(content.ends_with(&[&lines[..], b"\r\n"].concat()), "octet for octet");
}

#[test]
fn bdat_in_the_middle_of_an_endless_line_is_none() {
    let mut machine = machine(BareNewlines::Reject, &Shelf::default());
    machine.feed(&[b'x'; 4096]);
    machine.feed(b"BDAT x\r\nNOOP\r\n");
    assert_eq!(machine.codes(), [220, 500, 250]);
    assert!(!machine.closed);
}

#[test]
fn what_is_kept_of_a_message_is_given_up_with_its_transaction() {
    for end in ["RSET", "EHLO again.example", "HELO again.example", "BDAT 99999999\r\n", "BDAT", "QUIT"] {
        let shelf = Shelf::default();
        let mut machine = machine(BareNewlines::Reject, &shelf);
        machine.feed(&[START, b"BDAT 3\r\na\r\n"].concat());
        assert_eq!(shelf.drafts(), 1);
        machine.feed(format!("{end}\r\n").as_bytes());
        assert_eq!(shelf.drafts(), 0, "{end}");
        assert!(shelf.messages().is_empty());
    }
}

proptest! {
    #[test]
    fn chunks_and_data_make_the_same_message_of_the_same_lines(
        lines in prop::collection::vec("[.a\u{e9}]{0,3}", 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        normalize in any::<bool>(),
        ended in any::<bool>(),
    ) {
        let bare_newlines = if normalize { BareNewlines::Normalize } else { BareNewlines::Reject };
        let mut content = lines.join("\r\n").into_bytes();
        let stuff = |line: &String| format!("{}{line}\r\n", if line.starts_with('.') { "." } else { "" });
        let stuffed = lines.iter().map(stuff).collect::<Vec<_>>().concat();
        // The last line is ended by the client, or by us; an empty one needs its end.
        if ended || lines.last().unwrap().is_empty() {
            content.extend_from_slice(b"\r\n");
        }
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(content.len() + 1)).collect();
        at.extend([0, content.len()]);
        at.sort_unstable();
        let chunks = at.windows(2).map(|pair| content.get(pair[0]..pair[1]).unwrap());
        let streams = [
            [START, &bdat(chunks)[..]].concat(),
            [START, b"DATA\r\n", stuffed.as_bytes(), b".\r\n"].concat(),
        ];
        let [chunked, data] = streams.map(|stream| {
            let shelf = Shelf::default();
            machine(bare_newlines, &shelf).feed(&stream);
            shelf.messages()
        });
        prop_assert_eq!(chunked.len(), 1);
        prop_assert_eq!(chunked, data);
    }
}
