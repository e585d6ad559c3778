//! The way of log lines to the output: nobody who logs ever waits for whoever reads.

use std::{
    fmt::Write as _,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Octets that wait for the output at most; lines beyond are dropped and counted.
const MAX_WAITING: usize = 4 << 20;

/// How a line is kept on one line and harmless to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// `\x1b`, `\u{202e}`.
    Text,
    /// `\u001b`, `\u202e`: in JSON such characters stand in strings only.
    Json,
}

/// A bounded queue of lines with a thread that writes them, many at once when the output is slow. Cloning
/// shares it.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
    escapes: Escapes,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something waits, or the end has come.
    work: Condvar,
    /// Everything is written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    writing: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Starts the thread that writes to `output`.
    pub(crate) fn start(output: impl Write + Send + 'static, escapes: Escapes) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&writer, output))?;
        Ok(Self { shared, escapes })
    }

    /// Waits until everything is written, at most `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        drop(self.shared.idle.wait_timeout_while(self.shared.lock(), limit, busy));
    }

    /// Lets the thread end when it has written everything.
    pub(crate) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }

    fn push(&self, line: &str) {
        let mut state = self.shared.lock();
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.dropped += 1;
            return;
        }
        let sleeping = state.waiting.is_empty() && !state.writing;
        append(&mut state.waiting, line, self.escapes);
        drop(state);
        if sleeping {
            self.shared.work.notify_one();
        }
    }
}

/// Writes what waits until the queue is closed. Failures (the reader is gone, the disk full) lose the lines and
/// nothing else: there is nobody to tell.
fn write_all(shared: &Shared, mut output: impl Write) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        state.writing = false;
        if state.waiting.is_empty() {
            shared.idle.notify_all();
        }
        let wait = |state: &mut State| state.waiting.is_empty() && !state.closed;
        state = shared.work.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            return;
        }
        state.writing = true;
        mem::swap(&mut batch, &mut state.waiting);
        let dropped = mem::take(&mut state.dropped);
        drop(state);
        if output.write_all(&batch).is_ok() && dropped > 0 {
            let _ = writeln!(io::stderr(), "{dropped} log lines were dropped: the output is too slow");
        }
        let _ = output.flush();
        batch.clear();
        batch.shrink_to(64 << 10);
    }
}

/// Appends `line` so that it stays one line: every character that could move a terminal's cursor, end the line
/// for some reader or reverse its direction is escaped. The newline at its end stays.
fn append(waiting: &mut Vec<u8>, line: &str, escapes: Escapes) {
    let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
    let plain = |b: u8| (b' '..0x7f).contains(&b);
    if line.bytes().all(plain) {
        waiting.extend_from_slice(line.as_bytes());
    } else {
        let mut safe = String::with_capacity(line.len() + 16);
        for c in line.chars() {
            // Writing to a String never fails.
            let _ = match (c, escapes) {
                (c, _) if !is_unsafe(c) => safe.write_char(c),
                ('\n', Escapes::Text) => safe.write_str("\\n"),
                ('\r', Escapes::Text) => safe.write_str("\\r"),
                ('\t', Escapes::Text) => safe.write_str("\\t"),
                (c, Escapes::Text) if c.is_ascii() => write!(safe, "\\x{:02x}", u32::from(c)),
                (c, Escapes::Text) => write!(safe, "\\u{{{:x}}}", u32::from(c)),
                (c, Escapes::Json) => write!(safe, "\\u{:04x}", u32::from(c)),
            };
        }
        waiting.extend_from_slice(safe.as_bytes());
    }
    waiting.extend_from_slice(end.as_bytes());
}

/// The same characters as `empath_common::Escaped`, but for the backslash: values are escaped already.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// Takes one event, which `tracing-subscriber` hands over in one piece.
pub(crate) struct Line(Lines);

impl Write for Line {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.push(&String::from_utf8_lossy(octets));
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// Hands over what is written, and waits until the other side takes it.
    struct Pipe(mpsc::SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.send(octets.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_never_time() {
        let (writer, reader) = mpsc::sync_channel(0);
        let lines = Lines::start(Pipe(writer), Escapes::Text).unwrap();
        let line = format!("{}\n", "x".repeat(1 << 20));
        for _ in 0..20 {
            lines.push(&line);
        }
        let state = lines.shared.lock();
        assert!(state.waiting.len() <= MAX_WAITING);
        assert!(state.dropped >= 10, "{}", state.dropped);
        drop(state);
        drop(reader);
        lines.flush(LONG);
        assert!(lines.shared.lock().waiting.is_empty());
    }

    #[test]
    fn flush_waits_until_everything_is_written_even_after_the_reader_is_gone() {
        let (writer, reader) = mpsc::sync_channel(100);
        let lines = Lines::start(Pipe(writer), Escapes::Text).unwrap();
        lines.push("one\n");
        lines.push("two\n");
        lines.flush(LONG);
        assert_eq!(reader.try_iter().flatten().collect::<Vec<_>>(), b"one\ntwo\n");
        drop(reader);
        lines.push("nobody reads this\n");
        lines.flush(LONG);
        assert!(lines.shared.lock().waiting.is_empty());
    }

    #[test]
    fn what_could_break_a_line_or_a_terminal_is_escaped() {
        for (line, text, json) in [
            ("plain ünïcode\n", "plain ünïcode\n", "plain ünïcode\n"),
            ("a\r\nb\tc\n", "a\\r\\nb\\tc\n", "a\\u000d\\u000ab\\u0009c\n"),
            ("\u{1b}[31m\u{0}", "\\x1b[31m\\x00", "\\u001b[31m\\u0000"),
            ("\u{7f}\u{9b}", "\\x7f\\u{9b}", "\\u007f\\u009b"),
            ("\u{202e}\u{2028}", "\\u{202e}\\u{2028}", "\\u202e\\u2028"),
        ] {
            for (escapes, expected) in [(Escapes::Text, text), (Escapes::Json, json)] {
                let mut waiting = Vec::new();
                append(&mut waiting, line, escapes);
                assert_eq!(String::from_utf8(waiting).unwrap(), expected);
            }
        }
    }
}
