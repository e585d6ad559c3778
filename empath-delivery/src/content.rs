//! The content of a queued message as it is read: on its way out, or its header alone.

use std::io;

use bytes::Bytes;
use empath_common::MessageId;
use empath_smtp::client::Source;
use empath_spool::{Content, Reader};

use crate::log;

/// Most octets that are read for the header of a message.
const MAX_HEADER: usize = 64 * 1024;

/// Content on its way out. What cannot be read is logged here.
pub(crate) struct Outgoing {
    id: MessageId,
    reader: Reader,
}

impl Outgoing {
    pub(crate) fn new(id: MessageId, content: &Content) -> Self {
        Self { id, reader: content.reader() }
    }
}

impl Source for Outgoing {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.reader.next().await.inspect_err(|failure| log::not_read(self.id, failure))
    }
}

/// The header of a message: whole lines, without the empty one at its end; at most 64 KiB. Not more is read than that
/// takes, so nobody has checked that large content is what was committed.
pub async fn header(content: &Content) -> io::Result<Bytes> {
    let mut reader = content.reader();
    let mut octets = reader.next().await?.unwrap_or_default();
    while octets.len() < MAX_HEADER
        && let Some(piece) = reader.next().await?
    {
        octets = [octets, piece].concat().into();
    }
    octets.truncate(header_of(&octets).len());
    Ok(octets)
}

/// The same of octets in memory.
pub(crate) fn header_of(octets: &[u8]) -> &[u8] {
    let start = octets.get(..MAX_HEADER).unwrap_or(octets);
    start.get(..end_of_header(start)).unwrap_or(start)
}

/// The whole message, unless it has more octets than `most`.
pub(crate) async fn whole(content: &Content, most: u64) -> io::Result<Option<Bytes>> {
    if content.len() > most {
        return Ok(None);
    }
    let (mut reader, mut octets) = (content.reader(), Vec::new());
    while let Some(piece) = reader.next().await? {
        octets.extend_from_slice(&piece);
    }
    Ok(Some(octets.into()))
}

fn end_of_header(octets: &[u8]) -> usize {
    // A message that starts with an empty line has no header.
    if octets.starts_with(b"\r\n") {
        return 0;
    }
    let end = octets.windows(4).position(|octets| octets == b"\r\n\r\n");
    let last_line = || octets.windows(2).rposition(|octets| octets == b"\r\n");
    end.or_else(last_line).map_or(0, |at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_header_is_whole_lines_and_bounded() {
        let long = "X-Line: 0123456789\r\n".repeat(10_000);
        for (content, expected) in [
            ("Subject: x\r\nTo: y\r\n\r\nbody\r\n\r\nmore\r\n", "Subject: x\r\nTo: y\r\n"),
            ("Subject: x\r\nno end", "Subject: x\r\n"),
            ("\r\nno header\r\n\r\n", ""),
            ("no line end", ""),
            ("", ""),
            (&long, &long[..MAX_HEADER / 20 * 20]),
        ] {
            let header = header(&Bytes::copy_from_slice(content.as_bytes()).into()).await.unwrap();
            assert!(header == expected.as_bytes(), "{} of {} octets", header.len(), content.len());
        }
    }
}
