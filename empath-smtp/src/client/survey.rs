use std::io;

use super::Source;

/// What one look over some content tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Octets of content.
    pub(super) octets: u64,
    /// Some octet is above 127.
    pub(super) eight_bit: bool,
    /// Some octet of the header is above 127.
    pub(super) eight_bit_header: bool,
}

impl Survey {
    /// Reads all of it.
    pub async fn of(mut content: impl Source) -> io::Result<Self> {
        let (mut survey, mut header) = (Self::default(), Header::default());
        while let Some(piece) = content.next().await? {
            survey.octets += piece.len() as u64;
            survey.eight_bit |= !piece.is_ascii();
            survey.eight_bit_header |= !header.part_of(&piece).is_ascii();
        }
        Ok(survey)
    }
}

/// Finds the end of the header, which is the first empty line (RFC 5322 §2.1), in content that comes in pieces.
#[derive(Debug, Default)]
struct Header {
    line: Line,
    ended: bool,
}

/// What there is of the present line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    #[default]
    Nothing,
    Cr,
    Text,
}

impl Line {
    fn with(self, more: &[u8]) -> Self {
        match (self, more) {
            (line, b"") => line,
            (Self::Nothing, b"\r") => Self::Cr,
            _ => Self::Text,
        }
    }
}

impl Header {
    /// As much of the next piece as belongs to the header.
    fn part_of<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.ended {
            return b"";
        }
        let mut start = 0;
        for lf in memchr::memchr_iter(b'\n', piece) {
            if self.line.with(piece.get(start..lf).unwrap_or_default()) != Line::Text {
                self.ended = true;
                return piece.get(..lf).unwrap_or_default();
            }
            (self.line, start) = (Line::Nothing, lf + 1);
        }
        self.line = self.line.with(piece.get(start..).unwrap_or_default());
        piece
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use bytes::Bytes;

    use super::*;

    /// Pieces as a source.
    struct Pieces<'a>(std::slice::Iter<'a, &'a [u8]>);

    impl Source for Pieces<'_> {
        async fn next(&mut self) -> io::Result<Option<Bytes>> {
            Ok(self.0.next().map(|piece| Bytes::copy_from_slice(piece)))
        }
    }

    fn survey(pieces: &[&[u8]]) -> Survey {
        let mut surveying = pin!(Survey::of(Pieces(pieces.iter())));
        match surveying.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(survey) => survey.unwrap(),
            Poll::Pending => panic!("pieces in memory are there at once"),
        }
    }

    #[test]
    fn the_survey_tells_header_and_body_apart() {
        let survey = |content: &str| {
            let whole = survey(&[content.as_bytes()]);
            for at in 0..content.len() {
                let (one, other) = content.as_bytes().split_at(at);
                assert_eq!(survey(&[one, other]), whole, "{content:?} cut at {at}");
            }
            (whole.octets, whole.eight_bit, whole.eight_bit_header)
        };
        assert_eq!(survey("A: b\r\n\r\nc\r\n"), (11, false, false));
        assert_eq!(survey("A: b\r\n\r\né"), (10, true, false));
        assert_eq!(survey("A: b\n\né"), (8, true, false));
        assert_eq!(survey("\r\né"), (4, true, false));
        assert_eq!(survey("A: é\r\n\r\nc"), (10, true, true));
        assert_eq!(survey("A: b\nB: é\n\nc"), (13, true, true));
        assert_eq!(survey("A: b\r\r\né"), (9, true, true));
        assert_eq!(survey(""), (0, false, false));
    }
}
