use std::ops::Range;

use empath_common::Problem;
use ron::{error::Position, extensions::Extensions};
use serde::de::DeserializeOwned;

use super::{
    error::{Error, Place, Reason},
    outline::{Entry, Key, Node},
};

/// Errors that are looked for in one file.
const MAX_ERRORS: usize = 100;

/// Reads a configuration and finds everything that is wrong with it, in the order of the text.
///
/// The RON reader stops at the first error. So each entry with an error is blanked out and the text read again, until
/// the rest is right; then `validate` has its say about the rest.
pub(super) fn read<T: DeserializeOwned>(
    text: &str,
    validate: impl FnOnce(&mut T) -> Vec<Problem>,
) -> Result<T, Vec<Error>> {
    let Some(outline) = Node::parse(text) else {
        // Brackets or strings out of order: there is no telling what comes after.
        return parse(text).map_err(|(at, reason)| vec![error(text, at, reason)]);
    };
    let mut found = Found { text, blanked: text.to_owned(), blank: Vec::new(), errors: Vec::new() };
    for duplicate in outline.duplicates() {
        let key = match &duplicate.key {
            Key::Name(key) | Key::Text(key) => key.clone(),
            Key::Index(index) | Key::Argument(index) => index.to_string(),
        };
        found.add(duplicate, duplicate.span.start, Reason::Duplicate(key));
    }
    while found.blank.len() < MAX_ERRORS {
        let (at, reason) = match parse::<T>(&found.blanked) {
            Ok(mut config) => {
                for problem in validate(&mut config) {
                    found.add_problem(&outline, problem);
                }
                return if found.errors.is_empty() { Ok(config) } else { Err(found.in_order()) };
            }
            Err(failure) => failure,
        };
        // That a key is missing is about the table, whose last entry the reader has just left.
        let missing = matches!(reason, Reason::Missing(_));
        let is_table = |value: &Node| value.table.is_some() || !value.entries.is_empty();
        let usable =
            |entry: &Entry| !found.blank.contains(&entry.span) && (!missing || is_table(&entry.value));
        let Some(entry) = outline.innermost(at, &usable) else {
            found.errors.push((at..at, reason));
            break;
        };
        // The reader finds unknown keys before the value, wrong values at its start or end.
        let start = if at >= entry.value.span.start { entry.value.span.start } else { entry.span.start };
        let reason = match &entry.key {
            Key::Name(key) | Key::Text(key) => reason.of(key),
            Key::Index(_) | Key::Argument(_) => reason,
        };
        found.add(entry, start, reason);
    }
    Err(found.in_order())
}

struct Found<'a> {
    text: &'a str,
    /// The text with spaces in place of what was wrong; newlines stay, and every octet keeps its place.
    blanked: String,
    /// Where the spaces are.
    blank: Vec<Range<usize>>,
    /// What was wrong, with the octets from the place of the error to the end of the entry.
    errors: Vec<(Range<usize>, Reason)>,
}

impl Found<'_> {
    fn add(&mut self, entry: &Entry, at: usize, reason: Reason) {
        let span = entry.span.clone();
        // An entry is complained about once more when what is left of it makes no sense: a consequence.
        if !self.has_errors_in(&span) {
            self.errors.push((at..span.end, reason));
        }
        let blank = |c: char| {
            if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) }
        };
        let spaces: String = self.text.get(span.clone()).unwrap_or_default().chars().map(blank).collect();
        self.blanked.replace_range(span.clone(), &spaces);
        self.blank.push(span);
    }

    fn add_problem(&mut self, outline: &Node, problem: Problem) {
        let span = outline.locate(&problem.key).map_or(0..0, |entry| entry.span.clone());
        if !self.has_errors_in(&span) {
            self.errors.push((span.start..span.start, Reason::Invalid(problem)));
        }
    }

    fn has_errors_in(&self, span: &Range<usize>) -> bool {
        // Problems are empty ranges, of which any number may be about one place.
        self.errors.iter().any(|(wrong, _)| !wrong.is_empty() && span.contains(&wrong.start))
    }

    fn in_order(mut self) -> Vec<Error> {
        self.errors.sort_by_key(|(span, _)| span.start);
        let text = self.text;
        self.errors.into_iter().map(|(span, reason)| error(text, span.start, reason)).collect()
    }
}

fn error(text: &str, at: usize, reason: Reason) -> Error {
    Error { place: Some(place(text, at)), reason }
}

/// The value, or the octet up to which the reader came and what is wrong there.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, (usize, Reason)> {
    let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
    options.from_str(text).map_err(|error| (octet(text, &error.span.end), error.code.into()))
}

/// The octet at a place that the RON reader gives in lines and characters, both from 1.
fn octet(text: &str, position: &Position) -> usize {
    let line_start =
        text.split_inclusive('\n').take(position.line.saturating_sub(1)).map(str::len).sum::<usize>();
    let line = text.get(line_start..).unwrap_or_default();
    let column = line.char_indices().nth(position.col.saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    line_start + column
}

/// The line and column of an octet.
pub(super) fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    Place { line: before.matches('\n').count() + 1, column }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use empath_common::ByteSize;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename = "Empath", default, deny_unknown_fields)]
    struct Root {
        name: Option<String>,
        secret: Vec<String>,
        count: u32,
        listeners: Vec<Listener>,
        domains: BTreeMap<String, Listener>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Listener {
        mode: Mode,
        size: Option<ByteSize>,
        #[serde(with = "humantime_serde")]
        timeout: Duration,
        address: Option<std::net::SocketAddr>,
        growth: Option<Growth>,
    }

    #[derive(Debug, Deserialize)]
    struct Growth {
        #[expect(dead_code, reason = "it is read and not used")]
        since: std::net::Ipv4Addr,
        #[expect(dead_code, reason = "it is read and not used")]
        days: u16,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    enum Mode {
        #[default]
        Relay,
        Submission,
        Fixed(u8, u16),
    }

    fn validate(root: &mut Root) -> Vec<Problem> {
        let zero = (root.count == 0).then(|| Problem::new("count", "must be at least 1"));
        let slow = root.listeners.iter().enumerate().filter(|(_, listener)| listener.timeout.as_secs() > 60);
        let slow = slow.map(|(n, _)| Problem::new(format!("listeners[{n}].timeout"), "must be at most 1m"));
        zero.into_iter().chain(slow).collect()
    }

    /// The errors as they are printed, without the file.
    fn errors(text: &str) -> Vec<String> {
        let errors = read::<Root>(text, validate).err().unwrap_or_default();
        let line = |Error { place, reason }| {
            let Place { line, column } = place.unwrap();
            format!("{line}:{column}: {reason}")
        };
        errors.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_right_is_read() {
        let text = r#"Empath(name: "x", count: 1, listeners: [(mode: Fixed(1, 2), size: "1KiB", timeout: "5s"), ()])"#;
        let root = read::<Root>(text, validate).unwrap();
        assert_eq!(root.name.as_deref(), Some("x"));
        assert_eq!(root.listeners[0].size, Some(ByteSize(1024)));
        assert_eq!(root.listeners[0].mode, Mode::Fixed(1, 2));
    }

    #[test]
    fn each_error_has_its_place_and_says_what_is_known() {
        for (text, expected) in [
            ("(count: 1,\n  nmae: \"x\",\n)", "2:3: unknown key `nmae`; did you mean `name`?"),
            ("(\ncount: \"1\")", "2:8: count: Expected integer"),
            ("(count: 1, count: 2)", "1:12: the key `count` is given twice"),
            ("(count: 1, domains: {\"a\": (), /* \u{e9} */ \"a\": ()})", "1:39: the key `a` is given twice"),
            (
                "(count: 1, listeners: [(), (mode: Rely)])",
                "1:35: unknown value `Rely`; did you mean `Relay`?",
            ),
            ("(count: 1, x: 1)", "1:12: unknown key `x`; known are name, secret, count, listeners, domains"),
            (
                "(count: 1, listeners: [(mode: Fast)])",
                "1:31: unknown value `Fast`; known are Relay, Submission, Fixed",
            ),
            ("(count: 1, listeners: [(address: \"x\")])", "1:34: address: invalid socket address syntax"),
            ("(count: 1, domains: {\"a\": (sise: 1)})", "1:28: unknown key `sise`; did you mean `size`?"),
            ("(count: 0)", "1:2: count: must be at least 1"),
            (
                "(count: -1)",
                "1:9: count: the number is out of range: it is negative, or too large for this key",
            ),
            (
                "(count: 1, listeners: [(timeout: \"-1s\")])",
                "1:34: timeout: expected a duration, such as \"30s\", \"5m\" or \"1d 12h\"",
            ),
            (
                "(count: 1, listeners: [(growth: (since: \"x\", days: 3))])",
                "1:41: since: invalid IPv4 address syntax",
            ),
            ("(count: 1, listeners: [(growth: (days: 3))])", "1:33: growth: the key `since` is missing"),
            ("(count: 1, listeners: [(growth: ())])", "1:33: growth: the key `since` is missing"),
            (
                "(count: 1, listeners: [(), (timeout: \"2m\")])",
                "1:29: listeners[1].timeout: must be at most 1m",
            ),
            ("(count: 1", "1:10: Expected comma"),
            ("Empth(count: 1)", "1:6: Expected struct `Empath` but found `Empth`"),
            ("(count: 1, name: \"open)", "1:19: Expected end of string"),
        ] {
            let errors = errors(text);
            assert_eq!(errors, [expected], "{text}");
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_described_without_quoting_them() {
        for (text, place) in [
            ("(count: 1, secret: \"hunter2\")", "1:20: "),
            ("(count: 1, listeners: [(timeout: \"hunter2\")])", "1:34: "),
            ("(count: 1, listeners: [(size: \"hunter2\")])", "1:31: "),
            ("(count: 1, listeners: [(address: \"hunter2\")])", "1:34: "),
            ("(count: \"hunter2\")", "1:9: "),
        ] {
            let errors = errors(text);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with(place), "{errors:?}");
            assert!(!errors[0].contains("hunter2"), "{errors:?}");
        }
    }

    #[test]
    fn all_errors_are_told_at_once_in_the_order_of_the_text() {
        let text = r#"Empath(
    count: 0,
    listeners: [
        (mode: Rely, timeout: "2m"),
        (sise: 1),
        7,
    ],
    nmae: "x",
    domains: {"a": (mode: Fixed("1", 2))},
)"#;
        let errors = errors(text);
        let places: Vec<_> = errors.iter().map(|error| error.split_once(": ").unwrap().0).collect();
        assert_eq!(places, ["2:5", "4:16", "4:22", "5:10", "6:9", "8:5", "9:27"], "{errors:#?}");
    }

    #[test]
    fn errors_without_number_come_to_an_end() {
        let text = format!("({})", "a: 1, ".repeat(1000));
        assert!(errors(&text).len() >= MAX_ERRORS);
        let text = format!("(count: 1, listeners: [{}])", "(x: 1), ".repeat(1000));
        assert_eq!(errors(&text).len(), MAX_ERRORS);
    }
}
