use crate::{config, converse, session::ESCAPE};

const BEFORE: &[u8] = b"EHLO c.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\n";

/// Content: the first octet chooses the server, the rest is sent with `DATA` as it is, with `DATA` as RFC 5321 §4.5.2 has
/// it, and in chunks, which `ESCAPE` and `s` part.
///
/// Nothing but a true end ends it, both ways agree, and what is stored is what was sent.
pub fn content(data: &[u8]) {
    let Some((flags, input)) = data.split_first() else {
        return;
    };
    let config = config(flags & 2);
    let send = |content: &[u8]| converse(&config, 0, &[BEFORE, content, b"NOOP\r\n"].concat());
    let mut chunks = chunks(input);
    // What a bare CR or LF at the end becomes depends on what follows it.
    if flags & 2 != 0 {
        chunks.push(b"\r\n".to_vec());
    }
    let content = chunks.concat();
    send(&[b"DATA\r\n", content.as_slice(), b"\r\n.\r\n"].concat());

    let mut stuffed = b"DATA\r\n".to_vec();
    let mut at_start = true;
    for (at, octet) in content.iter().enumerate() {
        if at_start && *octet == b'.' {
            stuffed.push(b'.');
        }
        stuffed.push(*octet);
        at_start = content[..=at].ends_with(b"\r\n");
    }
    let open: &[u8] = if at_start { b"" } else { b"\r\n" };
    stuffed.extend([open, b".\r\n"].concat());
    let mut chunked = Vec::new();
    for chunk in &chunks {
        chunked.extend(format!("BDAT {}\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
    }
    chunked.extend(b"BDAT 0 LAST\r\n");

    let (_, by_data) = send(&stuffed);
    let (_, by_chunks) = send(&chunked);
    // Behind a refused chunk so many others may come that the server has enough; there is no message then either.
    assert_eq!(by_data, by_chunks);
    if flags & 2 == 0
        && let [stored] = by_data.as_slice()
    {
        assert!(stored.ends_with(&[content.as_slice(), open].concat()), "{}", stored.escape_ascii());
    }
}

fn chunks(input: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = vec![Vec::new()];
    let mut octets = input.iter().copied();
    while let Some(octet) = octets.next() {
        let escaped = if octet == ESCAPE { octets.next() } else { None };
        match (escaped, chunks.last_mut()) {
            (Some(b's'), _) => chunks.push(Vec::new()),
            (other, Some(chunk)) => chunk.push(other.unwrap_or(octet)),
            (_, None) => {}
        }
    }
    chunks
}
