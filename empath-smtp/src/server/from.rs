use empath_common::{Charset, Mailbox};

/// The mailboxes of a `From` field (RFC 5322 §3.6.2; with groups, RFC 6854), or `None` if it is not well-formed.
///
/// It is strict where two readers could see two different authors: behind an address in `<>` comments alone may follow.
pub(super) fn mailboxes(value: &[u8]) -> Option<Vec<Mailbox>> {
    let mut reader = Reader::default();
    for octet in value {
        reader.take(*octet)?;
    }
    reader.end()
}

#[derive(Debug, Default)]
struct Reader {
    mailboxes: Vec<Mailbox>,
    /// What stands before `<`, or without any `<` is the address.
    phrase: Vec<u8>,
    /// What stands in `<>`.
    address: Option<Vec<u8>>,
    /// Comments nest (RFC 5322 §3.2.2).
    comments: usize,
    inside: Inside,
    in_angle: bool,
    in_group: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Inside {
    #[default]
    Nothing,
    Quotes,
    /// After a backslash in quotes or comments.
    Pair(bool),
    /// `[…]`, where a colon may stand.
    Literal,
}

impl Reader {
    fn take(&mut self, octet: u8) -> Option<()> {
        match (self.inside, octet) {
            (Inside::Pair(quotes), _) => {
                self.inside = if quotes { Inside::Quotes } else { Inside::Nothing };
                return if quotes { self.text(octet) } else { Some(()) };
            }
            (Inside::Quotes, b'\\') => self.inside = Inside::Pair(true),
            (Inside::Quotes, b'"') => self.inside = Inside::Nothing,
            (Inside::Quotes, _) => {}
            (_, b'\\') if self.comments > 0 => self.inside = Inside::Pair(false),
            (_, b'(') => self.comments += 1,
            (_, b')') => self.comments = self.comments.checked_sub(1)?,
            _ if self.comments > 0 => {}
            (Inside::Nothing, b'"') => self.inside = Inside::Quotes,
            (Inside::Nothing, b'[') => self.inside = Inside::Literal,
            (Inside::Literal, b']') => self.inside = Inside::Nothing,
            (_, b'<') if self.address.is_none() => {
                self.address = Some(Vec::new());
                self.in_angle = true;
                return Some(());
            }
            (_, b'>') if self.in_angle => {
                self.in_angle = false;
                return Some(());
            }
            (_, b',') if !self.in_angle => return self.element(),
            (_, b';') if !self.in_angle && self.in_group => {
                self.in_group = false;
                return self.element();
            }
            (Inside::Nothing, b':') if !self.in_group && self.address.is_none() => {
                self.in_group = true;
                self.phrase.clear();
                return Some(());
            }
            (_, b'<' | b'>') | (Inside::Nothing, b':' | b';') => return None,
            _ => {}
        }
        let in_comment = self.comments > 0 || (octet == b')' && self.inside == Inside::Nothing);
        // A comment counts as space.
        self.text(if in_comment { b' ' } else { octet })
    }

    fn text(&mut self, octet: u8) -> Option<()> {
        match &mut self.address {
            Some(address) if self.in_angle => address.push(octet),
            Some(_) if !octet.is_ascii_whitespace() => return None,
            Some(_) => {}
            None => self.phrase.push(octet),
        }
        Some(())
    }

    /// Ends an element of the list. An empty one is obsolete, and means nothing (RFC 5322 §4.4).
    fn element(&mut self) -> Option<()> {
        let phrase = std::mem::take(&mut self.phrase);
        let address = match self.address.take() {
            None if phrase.trim_ascii().is_empty() => return Some(()),
            address => address.unwrap_or(phrase),
        };
        self.mailboxes.push(Mailbox::parse(address.trim_ascii(), Charset::Utf8).ok()?);
        Some(())
    }

    fn end(mut self) -> Option<Vec<Mailbox>> {
        let whole = self.inside == Inside::Nothing && self.comments == 0 && !self.in_angle && !self.in_group;
        self.element().filter(|()| whole)?;
        Some(self.mailboxes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Option<Vec<String>> {
        let mailboxes = mailboxes(value.as_bytes())?;
        Some(mailboxes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_mailboxes_are_found_in_all_forms_of_the_field() {
        for (value, expected) in [
            (" alice@a.test", &["alice@a.test"][..]),
            ("Alice <alice@a.test>", &["alice@a.test"]),
            ("\"Doe, <x@y.test>; \\\"A:\" <alice@a.test>", &["alice@a.test"]),
            ("alice@a.test (Alice (the \\) one), x@y.test)", &["alice@a.test"]),
            ("(x@y.test) Alice <alice@a.test> (x@y.test)", &["alice@a.test"]),
            ("=?utf-8?q?x=40y=2Etest?= <alice@a.test>", &["alice@a.test"]),
            ("boss@y.test <alice@a.test>", &["alice@a.test"]),
            ("Gr\u{fc}\u{df}e <\u{3b1}@a.test>", &["\u{3b1}@a.test"]),
            ("J. Q. Public\r\n\t<alice@a.test> ", &["alice@a.test"]),
            ("a@a.test, B <b@b.test>,, ,c@c.test", &["a@a.test", "b@b.test", "c@c.test"]),
            ("Us: a@a.test, B <b@b.test>;", &["a@a.test", "b@b.test"]),
            ("Us: a@a.test;, Them: b@b.test;", &["a@a.test", "b@b.test"]),
            ("\"a b\"@a.test", &["\"a b\"@a.test"]),
            ("<\"<\"@a.test>", &["\"<\"@a.test"]),
            ("a@[IPv6:2001:db8::1]", &["a@[IPv6:2001:db8::1]"]),
            ("Nobody:;", &[]),
            ("", &[]),
        ] {
            assert_eq!(
                read(value).as_deref(),
                Some(&expected.iter().map(|&a| a.to_owned()).collect::<Vec<_>>()[..]),
                "{value}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_brings_the_reader_down(value in "[a@. \\r\\n\\t<>()\\\\\",:;\\[\\]\u{e9}]{0,40}") {
            // Each has a place of its own in the list.
            if let Some(mailboxes) = mailboxes(value.as_bytes()) {
                prop_assert!(mailboxes.len() <= 1 + value.matches([',', ';']).count());
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_well_formed() {
        for value in [
            "<a@a.test> <x@y.test>",
            "<a@a.test> x@y.test",
            "<a@a.test>x",
            "<<a@a.test>>",
            "a@a.test x@y.test",
            "a@a.test>",
            "Alice <a@a.test",
            "Alice",
            "<>",
            "@x.test:a@a.test",
            "<@x.test:a@a.test>",
            "a:b:c@c.test;",
            "a: b@b.test",
            "b@b.test;",
            "\"a@a.test",
            "a@a.test (",
            "a@a.test )",
            "a@a.test \\",
            "a@a.test\0",
            "[a@a.test",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }
}
