//! The replies of the server, and their form on the wire (RFC 5321 §4.2.1, RFC 2034 §4).

use std::io::Write as _;

use empath_common::{Domain, MessageId, Reply};

use super::IntakeError;

pub(super) const OK: Reply = Reply::new(250, (2, 0, 0), "Ok");
pub(super) const SENDER_OK: Reply = Reply::new(250, (2, 1, 0), "Ok");
pub(super) const RECIPIENT_OK: Reply = Reply::new(250, (2, 1, 5), "Ok");
pub(super) const SEND_CONTENT: Reply = Reply::plain(354, "End data with <CR><LF>.<CR><LF>");
pub(super) const START_TLS: Reply = Reply::new(220, (2, 0, 0), "Ready to start TLS");
pub(super) const BYE: Reply = Reply::new(221, (2, 0, 0), "Bye");
pub(super) const HELP: Reply =
    Reply::new(214, (2, 0, 0), "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT STARTTLS AUTH");
// RFC 5321 §7.3: whether a mailbox exists is not told.
pub(super) const CANNOT_VERIFY: Reply =
    Reply::new(252, (2, 5, 0), "Cannot verify the address; RCPT tells whether it is accepted");

pub(super) const UNKNOWN_COMMAND: Reply = Reply::new(500, (5, 5, 1), "Command not recognized");
pub(super) const BAD_LINE: Reply =
    Reply::new(500, (5, 5, 2), "A command has no NUL, and CR and LF only as the CRLF at its end");
pub(super) const COMMAND_TOO_LONG: Reply = Reply::new(500, (5, 5, 6), "Command line too long");
pub(super) const NOT_IMPLEMENTED: Reply = Reply::new(502, (5, 5, 1), "Command not implemented");
pub(super) const BAD_SEQUENCE: Reply = Reply::new(503, (5, 5, 1), "Bad sequence of commands");
pub(super) const NO_ARGUMENT_EXPECTED: Reply = Reply::new(501, (5, 5, 4), "This command takes no argument");
pub(super) const ARGUMENT_EXPECTED: Reply = Reply::new(501, (5, 5, 4), "This command needs an argument");
// Replies to EHLO and HELO carry no enhanced status (RFC 2034 §4).
pub(super) const BAD_HELO: Reply = Reply::plain(501, "A domain or address literal was expected");
pub(super) const BAD_PARAMETER: Reply = Reply::new(501, (5, 5, 4), "Malformed or repeated parameter");
pub(super) const UNKNOWN_PARAMETER: Reply = Reply::new(555, (5, 5, 4), "Parameter not recognized");
// RFC 4865: what is too long, or past, is an error in the parameter.
pub(super) const NO_SUCH_RELEASE: Reply =
    Reply::new(501, (5, 5, 4), "No message waits until then; see FUTURERELEASE in the reply to EHLO");
// RFC 6710: X.3.6, and the text begins with the new priority.
pub(super) const PRIORITY_CHANGED: Reply =
    Reply::new(250, (2, 3, 6), "0 is the priority of this message; others are for authenticated users");
pub(super) const BAD_MAIL: Reply = Reply::new(501, (5, 5, 4), "Syntax: MAIL FROM:<address> [parameters]");
pub(super) const BAD_RCPT: Reply = Reply::new(501, (5, 5, 4), "Syntax: RCPT TO:<address>");
pub(super) const BAD_BDAT: Reply =
    Reply::new(501, (5, 5, 4), "Syntax: BDAT size [LAST]; closing connection, for what follows is not known");
pub(super) const BAD_SENDER: Reply = Reply::new(501, (5, 1, 7), "Malformed sender address");
pub(super) const BAD_RECIPIENT: Reply = Reply::new(501, (5, 1, 3), "Malformed recipient address");
// RFC 6409 §4.2
pub(super) const UNQUALIFIED_SENDER: Reply =
    Reply::new(554, (5, 1, 8), "The domain of this sender address is not fully qualified");
pub(super) const UNQUALIFIED_RECIPIENT: Reply =
    Reply::new(554, (5, 1, 2), "The domain of this recipient address is not fully qualified");
// RFC 3207 §4
pub(super) const STARTTLS_FIRST: Reply = Reply::new(530, (5, 7, 0), "Must issue a STARTTLS command first");
pub(super) const XCLIENT_DENIED: Reply = Reply::new(550, (5, 7, 0), "XCLIENT is not for you");
// RFC 6409 §4.3
pub(super) const AUTHENTICATION_REQUIRED: Reply = Reply::new(530, (5, 7, 0), "Authentication required");
// RFC 4954 §4, §6
pub(super) const AUTHENTICATED: Reply = Reply::new(235, (2, 7, 0), "Authentication successful");
pub(super) const BAD_AUTH: Reply = Reply::new(501, (5, 5, 4), "Syntax: AUTH mechanism [initial-response]");
pub(super) const BAD_RESPONSE: Reply = Reply::new(501, (5, 5, 2), "Cannot decode this response");
pub(super) const RESPONSE_TOO_LONG: Reply =
    Reply::new(500, (5, 5, 6), "Authentication exchange line too long");
pub(super) const AUTHENTICATION_CANCELLED: Reply = Reply::new(501, (5, 7, 0), "Authentication cancelled");
pub(super) const UNKNOWN_MECHANISM: Reply =
    Reply::new(504, (5, 5, 4), "Authentication mechanism not supported");
pub(super) const ENCRYPTION_REQUIRED: Reply =
    Reply::new(538, (5, 7, 11), "Encryption required for authentication");
pub(super) const BAD_CREDENTIALS: Reply = Reply::new(535, (5, 7, 8), "Authentication credentials invalid");
pub(super) const OTHER_IDENTITY: Reply =
    Reply::new(535, (5, 7, 8), "Acting as another user than the authenticated one is not possible");
pub(super) const AUTHENTICATION_UNAVAILABLE: Reply =
    Reply::new(454, (4, 7, 0), "Temporary authentication failure; try again later");
pub(super) const TOO_MANY_FAILURES: Reply =
    Reply::new(421, (4, 7, 0), "Too many failed authentications; closing connection");
// RFC 6409 §6.1
pub(super) const NOT_YOUR_ADDRESS: Reply =
    Reply::new(553, (5, 7, 1), "This sender address does not belong to the authenticated user");
pub(super) const NOT_YOUR_FROM: Reply =
    Reply::new(550, (5, 7, 1), "An address in From does not belong to the authenticated user");
pub(super) const BAD_FROM: Reply = Reply::new(550, (5, 7, 1), "There is no single well-formed From field");
// RFC 6531 §3.5
pub(super) const SENDER_NEEDS_UTF8: Reply =
    Reply::new(550, (5, 6, 7), "This sender address needs the SMTPUTF8 parameter");
pub(super) const RECIPIENT_NEEDS_UTF8: Reply =
    Reply::new(553, (5, 6, 7), "This recipient address needs SMTPUTF8 at MAIL");
// RFC 5321 §4.5.3.1.10: 452, so that the client sends the rest later.
pub(super) const TOO_MANY_RECIPIENTS: Reply =
    Reply::new(452, (4, 5, 3), "Too many recipients; send the rest in another transaction");
pub(super) const TOO_MUCH_METADATA: Reply = Reply::new(451, (4, 3, 0), "Too much metadata for one message");

pub(super) const BARE_NEWLINE: Reply =
    Reply::new(550, (5, 6, 11), "The content has a CR or LF that is not part of a CRLF");
pub(super) const NUL: Reply = Reply::new(550, (5, 6, 0), "The content has a NUL");
pub(super) const TOO_LARGE: Reply = Reply::new(552, (5, 3, 4), "Message too large");
pub(super) const HEADER_TOO_LARGE: Reply = Reply::new(552, (5, 3, 4), "Message header too large");
pub(super) const TOO_MANY_FIELDS: Reply = Reply::new(552, (5, 3, 4), "Too many header fields");
pub(super) const LINE_TOO_LONG: Reply = Reply::new(554, (5, 6, 0), "The content has a line that is too long");
pub(super) const TOO_MANY_HOPS: Reply = Reply::new(554, (5, 4, 6), "Too many Received fields: mail loop");

pub(super) const TOO_MANY_MESSAGES: Reply =
    Reply::new(421, (4, 7, 0), "Too many messages in one session; closing connection");
pub(super) const TOO_MANY_ERRORS: Reply = Reply::new(421, (4, 7, 0), "Too many errors; closing connection");
pub(super) const TOO_MANY_COMMANDS: Reply =
    Reply::new(421, (4, 7, 0), "Too many commands without a message; closing connection");
pub(super) const TIMED_OUT: Reply = Reply::new(421, (4, 4, 2), "Timeout exceeded; closing connection");
pub(super) const SHUTTING_DOWN: Reply =
    Reply::new(421, (4, 3, 2), "Service shutting down; closing connection");
pub(super) const TOO_MANY_CONNECTIONS: Reply =
    Reply::new(421, (4, 3, 2), "Too many connections; try again later");
pub(super) const TOO_MANY_FROM_ADDRESS: Reply =
    Reply::new(421, (4, 7, 0), "Too many connections from your address");

pub(super) const RELAYING_DENIED: Reply = Reply::new(550, (5, 7, 1), "Relaying denied");

/// The first words of a session.
pub(super) fn greeting(hostname: &Domain) -> Reply {
    Reply::plain(220, "").with_text(format!("{hostname} ESMTP"))
}

/// HELO has a reply of one line (RFC 5321 §3.2).
pub(super) fn helo(hostname: &Domain) -> Reply {
    Reply::plain(250, "").with_text(hostname.to_string())
}

/// One keyword a line (RFC 5321 §4.1.1.1).
pub(super) fn ehlo(hostname: &Domain, keywords: &[String]) -> Reply {
    Reply::plain(250, "").with_text(format!("{hostname}\n{}", keywords.join("\n")))
}

/// A chunk is taken, and others follow (RFC 3030 §2).
pub(super) fn chunk(size: u64) -> Reply {
    OK.with_text(format!("{size} octets received"))
}

/// The message is durable. Nothing else may say so.
pub(super) fn queued(id: MessageId) -> Reply {
    OK.with_text(format!("Ok: queued as {id}"))
}

impl From<IntakeError> for Reply {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Full => Self::new(452, (4, 3, 1), "Insufficient system storage"),
            IntakeError::Failed => Self::new(451, (4, 3, 0), "Local error in processing"),
            IntakeError::TooLarge => TOO_LARGE,
        }
    }
}

/// Longest reply line in octets, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;

/// Most lines of one reply; only a hook could want more.
const MAX_LINES: usize = 32;

/// Appends `reply` as it goes to the client: in ASCII (RFC 6531 §3.7.4), each line cut to what a line may have.
pub(super) fn encode(reply: &Reply, out: &mut Vec<u8>) {
    let mut lines = reply.text.split('\n').take(MAX_LINES).peekable();
    while let Some(text) = lines.next() {
        let separator = if lines.peek().is_some() { '-' } else { ' ' };
        let start = out.len();
        // Writing to a vector does not fail.
        let _ = match reply.enhanced {
            Some(status) => write!(out, "{}{separator}{status} ", reply.code),
            None => write!(out, "{}{separator}", reply.code),
        };
        let room = MAX_LINE - (out.len() - start) - b"\r\n".len();
        let ascii = |c| u8::try_from(c).ok().filter(|octet| matches!(octet, b' '..=b'~'));
        out.extend(text.chars().take(room).map(|c: char| ascii(c).unwrap_or(b'?')));
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply) -> String {
        let mut out = Vec::new();
        encode(reply, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_of_a_reply_has_the_code_and_the_status() {
        let reply = Reply::new(550, (5, 7, 1), "No.\nReally not.");
        assert_eq!(encoded(&reply), "550-5.7.1 No.\r\n550 5.7.1 Really not.\r\n");
    }

    #[test]
    fn a_reply_is_ascii_without_controls_and_has_lines_of_at_most_512_octets() {
        let text = format!("caf\u{e9}\r\u{1b}[31m{}", "x".repeat(600));
        let line = encoded(&Reply::new(550, (5, 7, 1), "").with_text(text));
        assert!(line.starts_with("550 5.7.1 caf???[31mxxx"), "{line}");
        assert_eq!(line.len(), 512);
    }

    #[test]
    fn a_reply_has_a_bounded_number_of_lines() {
        let lines = encoded(&Reply::plain(550, "").with_text("x\n".repeat(100_000)));
        assert_eq!(lines.lines().count(), MAX_LINES);
        assert!(lines.ends_with("550-x\r\n") || lines.ends_with("550 x\r\n"));
    }
}
