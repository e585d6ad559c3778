use std::{collections::HashSet, ops::Range};

/// How deep values may nest; the RON reader has the same limit.
const MAX_DEPTH: usize = 128;

/// Where every key of a RON text stands. It knows brackets, strings and comments, and nothing of types: those are
/// the RON reader's, which in turn doesn't remember places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The octets of the value, its type's name included.
    pub span: Range<usize>,
    /// For `(…)` that is empty or has named keys: the place behind the parenthesis.
    pub table: Option<usize>,
    /// What stands in its brackets, in order.
    pub entries: Vec<Entry>,
}

/// A value with its key, or an item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The octets of key, value and the comma behind it.
    pub span: Range<usize>,
    /// The value.
    pub value: Node,
}

/// How an entry is reached from its parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// `name: …` in parentheses.
    Name(String),
    /// `"text": …` in braces.
    Text(String),
    /// A place in a list.
    Index(usize),
    /// A place in `Name(…)`.
    Argument(usize),
}

impl Node {
    /// The outline of a whole text; `None` when its brackets, strings or comments are out of order.
    pub fn parse(text: &str) -> Option<Self> {
        let mut scanner = Scanner { text, at: 0, depth: 0 };
        scanner.skip();
        while scanner.rest().starts_with('#') {
            scanner.at += scanner.rest().find(']')? + 1;
            scanner.skip();
        }
        let node = scanner.value()?;
        scanner.skip();
        scanner.rest().is_empty().then_some(node)
    }

    /// The innermost `usable` entry that begins at or before `at` and does not end before it. Arguments don't count:
    /// what is left of `Name(…)` without one of them makes no sense.
    pub fn innermost(&self, at: usize, usable: &dyn Fn(&Entry) -> bool) -> Option<&Entry> {
        let around = |entry: &&Entry| entry.span.start <= at && at <= entry.value.span.end && usable(entry);
        let entry = self.entries.iter().find(around)?;
        let whole = !matches!(entry.key, Key::Argument(_));
        entry.value.innermost(at, usable).or(whole.then_some(entry))
    }

    /// The entry at a path such as `smtp.listeners[0].socket` or `domains["b.test"].lmtp`, or as far along the path
    /// as there are entries.
    pub fn locate(&self, path: &str) -> Option<&Entry> {
        if let [Entry { key: Key::Argument(_), value, .. }] = self.entries.as_slice() {
            // `Some(value)` is another way to write `value`.
            return value.locate(path);
        }
        let (key, rest) = first_key(path)?;
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(entry.value.locate(rest).unwrap_or(entry))
    }

    /// Entries whose key their parent has already, outermost first.
    pub fn duplicates(&self) -> Vec<&Entry> {
        let mut found = Vec::new();
        let mut keys = HashSet::new();
        for entry in &self.entries {
            if !keys.insert(&entry.key) {
                found.push(entry);
            }
            found.extend(entry.value.duplicates());
        }
        found
    }
}

/// Splits a path behind its first key.
fn first_key(path: &str) -> Option<(Key, &str)> {
    if let Some(text) = path.strip_prefix("[\"") {
        let (text, rest) = text.split_once("\"]")?;
        return Some((Key::Text(text.to_owned()), rest));
    }
    if let Some(index) = path.strip_prefix('[') {
        let (index, rest) = index.split_once(']')?;
        return Some((Key::Index(index.parse().ok()?), rest));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let (name, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
    (!name.is_empty()).then(|| (Key::Name(name.to_owned()), rest))
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    /// Skips white space and comments. An unfinished comment ends nothing, so that the value behind it is missed.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let behind =
                rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200e}' | '\u{200f}'));
            self.at += rest.len() - behind.len();
            if behind.starts_with("//") {
                self.at += behind.find('\n').unwrap_or(behind.len());
            } else if let Some(length) = block_comment(behind) {
                self.at += length;
            } else {
                return;
            }
        }
    }

    fn value(&mut self) -> Option<Node> {
        let start = self.at;
        if let Some(length) = quoted(self.rest()) {
            self.at += length;
            return Some(Node { span: start..self.at, table: None, entries: Vec::new() });
        }
        self.word();
        let named = self.at > start;
        let behind_name = self.at;
        if named {
            self.skip();
        }
        let close = match self.rest().chars().next() {
            Some('(') => ')',
            Some('[') if !named => ']',
            Some('{') if !named => '}',
            _ if named => {
                self.at = behind_name;
                return Some(Node { span: start..behind_name, table: None, entries: Vec::new() });
            }
            _ => return None,
        };
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let inside = self.at;
        let entries = self.entries(close)?;
        self.depth -= 1;
        let table = close == ')' && entries.iter().all(|entry| matches!(entry.key, Key::Name(_)));
        Some(Node { span: start..self.at, table: table.then_some(inside), entries })
    }

    /// Everything up to the closing bracket, which is taken.
    fn entries(&mut self, close: char) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            self.skip();
            if self.take(close) {
                return Some(entries);
            }
            let start = self.at;
            let key = self.key(close, entries.len())?;
            self.skip();
            let value = self.value()?;
            self.skip();
            let more = self.take(',');
            let end = if more { self.at } else { value.span.end };
            entries.push(Entry { key, span: start..end, value });
            if !more && !self.rest().starts_with(close) {
                return None;
            }
        }
    }

    fn key(&mut self, close: char, index: usize) -> Option<Key> {
        let start = self.at;
        match close {
            ')' => {
                self.word();
                let name = self.text.get(start..self.at)?;
                self.skip();
                if !name.is_empty() && self.take(':') {
                    return Some(Key::Name(name.strip_prefix("r#").unwrap_or(name).to_owned()));
                }
                self.at = start;
                Some(Key::Argument(index))
            }
            '}' => {
                let key = self.value()?.span;
                self.skip();
                let text = self.text.get(key)?;
                let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
                self.take(':').then(|| Key::Text(text.to_owned()))
            }
            _ => Some(Key::Index(index)),
        }
    }

    /// An identifier or a number.
    fn word(&mut self) {
        let rest = self.rest();
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '+' | '-' | '.' | '#');
        self.at += rest.find(|c| !part(c)).unwrap_or(rest.len());
    }
}

/// The length of a block comment at the start; they nest.
fn block_comment(text: &str) -> Option<usize> {
    let mut inside = text.strip_prefix("/*")?;
    let mut depth = 1;
    while depth > 0 {
        let next = inside.find("*/")?;
        if let Some(open) = inside.find("/*").filter(|open| *open < next) {
            depth += 1;
            inside = inside.get(open + 2..)?;
        } else {
            depth -= 1;
            inside = inside.get(next + 2..)?;
        }
    }
    Some(text.len() - inside.len())
}

/// The length of a string, byte string or character at the start.
fn quoted(text: &str) -> Option<usize> {
    let unprefixed = text.strip_prefix('b').unwrap_or(text);
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.bytes().take_while(|octet| *octet == b'#').count();
        let inside = raw.get(hashes..)?.strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let behind = inside.get(inside.find(&end)? + end.len()..)?;
        return Some(text.len() - behind.len());
    }
    let quote = unprefixed.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    let end = unprefixed.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    })?;
    Some(text.len() - unprefixed.len() + end.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r##"
#![enable(implicit_some)]
// A comment with a ( and a "
Empath(
    a: "x ) \" y", /* b: ( /* c: */ */
    list: [1, (socket: 'q', r: r#"raw " ) "#), -1.5],
    domains: { "b.test": Some((lmtp: "")), "*": () },
    nested: (mode: Relay, point: Point(1, 2),),
)
"##;

    fn text_at(path: &str) -> &'static str {
        let root = Node::parse(TEXT).unwrap();
        &TEXT[root.locate(path).unwrap().span.clone()]
    }

    #[test]
    fn every_path_leads_to_its_entry() {
        for (path, expected) in [
            ("a", "a: \"x ) \\\" y\","),
            ("list[0]", "1,"),
            ("list[1].socket", "socket: 'q',"),
            ("list[1].r", "r: r#\"raw \" ) \"#"),
            ("domains[\"*\"]", "\"*\": ()"),
            ("domains[\"b.test\"].lmtp", "lmtp: \"\""),
            // As far as the path goes.
            ("nested.missing", "nested: (mode: Relay, point: Point(1, 2),),"),
        ] {
            assert_eq!(text_at(path), expected, "{path}");
        }
        assert_eq!(Node::parse(TEXT).unwrap().locate("b"), None);
    }

    #[test]
    fn a_place_is_found_in_its_innermost_entry() {
        let root = Node::parse(TEXT).unwrap();
        let key = |needle: &str| {
            let at = TEXT.find(needle).unwrap() + needle.len();
            root.innermost(at, &|_| true).map(|entry| entry.key.clone())
        };
        assert_eq!(key("socket"), Some(Key::Name("socket".to_owned())));
        assert_eq!(key("socket: 'q'"), Some(Key::Name("socket".to_owned())));
        assert_eq!(key("-1.5"), Some(Key::Index(2)));
        assert_eq!(key("mode: Rel"), Some(Key::Name("mode".to_owned())));
        assert_eq!(key("Point(1"), Some(Key::Name("point".to_owned())));
        assert_eq!(key("Empath"), None);
    }

    #[test]
    fn what_is_out_of_order_has_no_outline() {
        let deep = format!("{}{}", "(".repeat(200), ")".repeat(200));
        for text in [
            "",
            "(",
            "(a: 1",
            "(a: 1 b: 2)",
            "(a: )",
            "(a: \"x)",
            "[1}",
            "() ()",
            "/* (",
            "{1}",
            deep.as_str(),
        ] {
            assert_eq!(Node::parse(text), None, "{text}");
        }
    }

    #[test]
    fn keys_that_come_twice_are_found_at_any_depth() {
        let text = r#"(a: (b: 1, b: 2), m: {"x": 1, "x": 2}, a: 3, l: [1, 1])"#;
        let root = Node::parse(text).unwrap();
        let found: Vec<_> = root.duplicates().iter().map(|entry| &text[entry.span.clone()]).collect();
        assert_eq!(found, ["b: 2", "\"x\": 2", "a: 3,"]);
    }

    #[test]
    fn many_keys_are_compared_without_looking_at_each_pair_of_them() {
        let keys: Vec<_> = (0..200_000).map(|n| format!("\"d{n}.test\": ()")).collect();
        let text = format!("{{{}, \"d7.test\": ()}}", keys.join(", "));
        assert_eq!(Node::parse(&text).unwrap().duplicates().len(), 1);
    }

    #[test]
    fn tables_are_known_as_such() {
        let root = Node::parse("(t: (), n: (a: 1), s: Some((b: 1)), p: (1, 2), l: [(c: 1)])").unwrap();
        let table = |path: &str| root.locate(path).unwrap().value.table.is_some();
        assert!(root.table.is_some() && table("t") && table("n") && table("l[0]"));
        assert!(root.locate("s").unwrap().value.entries[0].value.table.is_some());
        assert!(!table("p") && !table("l") && !table("s"));
    }

    #[test]
    fn any_text_is_scanned_without_a_panic() {
        proptest::proptest!(|(text in "[(){}\\[\\],:\"'r#b/*\\\\a1é \n]{0,60}")| {
            let _ = Node::parse(&text);
        });
    }
}
