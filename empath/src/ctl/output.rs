use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use empath_common::Escaped;
use serde::Serialize;

/// Where answers go: JSON for scripts, or lines for people, in which nothing can steer the terminal.
pub(super) struct Output {
    json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, stdout: BufWriter::new(io::stdout()) }
    }

    /// Prints an answer as one line of JSON, or as `text` says.
    pub(super) fn answer<T: Serialize>(
        &mut self,
        answer: &T,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.json {
            let line = serde_json::to_string(answer).map_err(io::Error::other)?;
            return writeln!(self.stdout, "{}", ascii_controls(&line));
        }
        self.text(&text())
    }

    /// Prints lines for people; nothing in JSON mode.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.stdout.write_all(text.as_bytes()) }
    }

    /// Prints octets as they are.
    pub(super) fn octets(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stdout.write_all(octets)
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.stdout.get_ref().is_terminal()
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Says on standard error what went wrong.
    pub(super) fn failure(&self, code: &str, message: &str) {
        let line = if self.json {
            ascii_controls(&serde_json::json!({ "error": { "code": code, "message": message } }).to_string())
        } else {
            let lines = message.lines().map(|line| format!("empathctl: {}", escaped(line)));
            lines.collect::<Vec<_>>().join("\n")
        };
        // Without standard error there is nobody to tell.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Text of a peer made safe for a terminal.
pub(super) fn escaped(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

/// JSON escapes the controls of ASCII itself; those above it (C1 and the ones that turn text around) are left to us,
/// since somebody may look at the JSON in a terminal.
fn ascii_controls(json: &str) -> String {
    let escape = |c: char| {
        let plain = c.is_ascii() || Escaped(c.to_string().as_bytes()).to_string().starts_with(c);
        if plain { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }
    };
    if json.is_ascii() { json.to_owned() } else { json.chars().map(escape).collect() }
}

/// Rows in aligned columns, two spaces apart. Cells are escaped; the last column has its own length in each row.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(ToOwned::to_owned)] }
    }

    pub(super) fn row(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(escaped));
    }

    /// The rows so far; the widths are those of these rows.
    pub(super) fn render(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |row: &[String; N]| {
            let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_harmless() {
        let mut table = Table::new(["ID", "SENDER", "SIZE"]);
        table.row(["1", "ä@example.test", "5"]);
        table.row(["22", "\u{1b}[31m", "600"]);
        let expected = "ID  SENDER          SIZE\n1   ä@example.test  5\n22  \\x1b[31m        600\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn json_keeps_its_value_when_it_is_made_harmless() {
        let evil = "\u{1b}\u{9b}31m \u{202e} é \\ 邮";
        let json = ascii_controls(&serde_json::to_string(evil).unwrap());
        assert!(!json.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{json}");
        assert!(json.contains('é'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), evil);
    }
}
