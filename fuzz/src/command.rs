use crate::{config, converse};

/// A command line in some state of a session: the first octet chooses the server, the second the state, the rest is the
/// line. It gets one reply, and the next command another.
pub fn command(data: &[u8]) {
    let [flags, state, line @ ..] = data else {
        return;
    };
    let before: &[u8] = match state % 5 {
        0 => b"",
        1 => b"HELO c.example\r\n",
        2 => b"EHLO c.example\r\n",
        3 => b"EHLO c.example\r\nMAIL FROM:<a@o.example> SMTPUTF8\r\n",
        _ => b"EHLO c.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\n",
    };
    converse(&config(*flags), *flags, &[before, line, b"\r\nNOOP\r\n"].concat());
}
