/// A command as metrics tell it from others: whatever clients send, there are only so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verb(usize);

/// The names of all of them. The last is any command that we don't know.
pub(super) const VERBS: [&str; 17] = [
    "AUTH",
    "BDAT",
    "DATA",
    "EHLO",
    "EXPN",
    "HELO",
    "HELP",
    "MAIL",
    "NOOP",
    "QUIT",
    "RCPT",
    "RSET",
    "STARTTLS",
    "VRFY",
    "XCLIENT",
    "end of data",
    "other",
];

impl Verb {
    /// Any command that we don't know.
    pub(super) const OTHER: Self = Self(16);
    /// No command, but the client is waiting for a reply: from the end of the content until it is stored.
    pub(super) const END_OF_DATA: Self = Self(15);

    /// The command of a line.
    pub(super) fn of(line: &[u8]) -> Self {
        let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let known = VERBS.iter().position(|verb| verb.as_bytes().eq_ignore_ascii_case(word));
        known.map_or(Self::OTHER, Self)
    }

    /// Its place in [`VERBS`].
    pub(super) fn place(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_line_begins_with_is_one_of_the_names() {
        for (line, name) in [
            (&b"MAIL FROM:<a@b.test>\r\n"[..], "MAIL"),
            (b"noop\r\n", "NOOP"),
            (b"Rset\t", "RSET"),
            (b"", "other"),
            (b" NOOP", "other"),
            (b"NOOPS", "other"),
            (b"end of data", "other"),
            (b"\xff\0{label=\"x\"}", "other"),
        ] {
            assert_eq!(VERBS[Verb::of(line).place()], name, "{}", line.escape_ascii());
        }
        assert_eq!(VERBS[Verb::OTHER.place()], "other");
        assert_eq!(VERBS[Verb::END_OF_DATA.place()], "end of data");
    }
}
