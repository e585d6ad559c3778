use empath_common::{
    AddressLiteral, Charset, Domain, ForwardPath, Mailbox, MailboxError, PathError, RecipientNotification,
    Reply, ReversePath,
};

use super::{
    auth::{Mechanism, Secret},
    chunk::Chunk,
    parameter::{self, Parameters},
    reply,
    xclient::{self, Attribute},
};

/// A command, parsed (RFC 5321 §4.1.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `HELO name`
    Helo(Box<str>),
    /// `EHLO name`
    Ehlo(Box<str>),
    /// `MAIL FROM:<path> parameters`
    Mail(ReversePath, Parameters),
    /// `RCPT TO:<path> parameters`
    Rcpt(ForwardPath, RecipientNotification),
    /// `STARTTLS`
    StartTls,
    /// `AUTH mechanism initial-response`; `None` for a mechanism that we don't know.
    Auth(Option<Mechanism>, Option<Secret>),
    /// `DATA`
    Data,
    /// `BDAT size [LAST]`
    Bdat(Chunk),
    /// `XCLIENT attributes`
    XClient(Vec<Attribute>),
    /// `RSET`
    Rset,
    /// `NOOP anything`
    Noop,
    /// `VRFY something`
    Vrfy,
    /// `HELP anything`
    Help,
    /// `QUIT`
    Quit,
}

impl Command {
    /// Parses a line without its CRLF; `Err` is the reply to it.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Reply> {
        if line.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
            return Err(reply::BAD_LINE);
        }
        let line = trim_end(line);
        let (verb, argument) = match line.iter().position(|octet| is_space(*octet)) {
            Some(at) => line.split_at(at),
            None => (line, &[][..]),
        };
        let argument = trim_start(argument);
        let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("EHLO") => Ok(Self::Ehlo(helo_name(argument)?)),
            () if is("HELO") => Ok(Self::Helo(helo_name(argument)?)),
            () if is("MAIL") => mail(argument),
            () if is("RCPT") => rcpt(argument),
            () if is("STARTTLS") => alone(argument, Self::StartTls),
            () if is("AUTH") => auth(argument),
            () if is("DATA") => alone(argument, Self::Data),
            () if is("BDAT") => Chunk::parse(argument).map(Self::Bdat),
            () if is("XCLIENT") => xclient::parse(argument).map(Self::XClient),
            () if is("RSET") => alone(argument, Self::Rset),
            () if is("QUIT") => alone(argument, Self::Quit),
            () if is("NOOP") => Ok(Self::Noop),
            () if is("HELP") => Ok(Self::Help),
            () if is("VRFY") && argument.is_empty() => Err(reply::ARGUMENT_EXPECTED),
            () if is("VRFY") => Ok(Self::Vrfy),
            () if is("EXPN") => Err(reply::NOT_IMPLEMENTED),
            () => Err(reply::UNKNOWN_COMMAND),
        }
    }

    /// Whether it may come in clear text where TLS is demanded (RFC 3207 §4); a proxy's network is its own business.
    pub(super) fn is_for_clear_text(&self) -> bool {
        matches!(self, Self::Ehlo(_) | Self::StartTls | Self::XClient(_) | Self::Noop | Self::Quit)
    }
}

/// RFC 5321 §4.1.1 asks to tolerate space at the end of a line.
fn trim_end(octets: &[u8]) -> &[u8] {
    let len = octets.iter().rposition(|octet| !is_space(*octet)).map_or(0, |last| last + 1);
    octets.get(..len).unwrap_or_default()
}

fn trim_start(octets: &[u8]) -> &[u8] {
    let start = octets.iter().position(|octet| !is_space(*octet)).unwrap_or(octets.len());
    octets.get(start..).unwrap_or_default()
}

fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

fn alone(argument: &[u8], command: Command) -> Result<Command, Reply> {
    if argument.is_empty() { Ok(command) } else { Err(reply::NO_ARGUMENT_EXPECTED) }
}

/// RFC 4954 §4. What follows the mechanism is for the exchange to judge.
fn auth(argument: &[u8]) -> Result<Command, Reply> {
    let mut words = argument.splitn(2, |octet| is_space(*octet));
    let mechanism = words.next().filter(|name| !name.is_empty()).ok_or(reply::BAD_AUTH)?;
    Ok(Command::Auth(Mechanism::parse(mechanism), words.next().map(|initial| trim_start(initial).into())))
}

/// DEVIATION RFC 5321 §4.1.1.1: any visible ASCII is taken for a domain, underscores and all; too many clients
/// don't know their name, and nothing depends on it. Literals are checked.
pub(super) fn helo_name(argument: &[u8]) -> Result<Box<str>, Reply> {
    let name = str::from_utf8(argument).map_err(|_| reply::BAD_HELO)?;
    let visible =
        !name.is_empty() && name.len() <= Domain::MAX_LEN && name.bytes().all(|b| b.is_ascii_graphic());
    if !visible || (name.starts_with('[') && name.parse::<AddressLiteral>().is_err()) {
        return Err(reply::BAD_HELO);
    }
    Ok(name.into())
}

fn mail(argument: &[u8]) -> Result<Command, Reply> {
    let path = after_keyword(argument, b"FROM:").ok_or(reply::BAD_MAIL)?;
    let (reverse_path, rest) =
        ReversePath::parse_prefix(path, charset(path)).map_err(|error| match error {
            PathError::Brackets => reply::BAD_MAIL,
            _ => reply::BAD_SENDER,
        })?;
    let parameters = Parameters::parse(rest)?;
    // The parameter that allows UTF-8 stands behind the path that may have it (RFC 6531 §3.4).
    if !parameters.smtputf8 && reverse_path.mailbox().is_some_and(Mailbox::needs_utf8) {
        return Err(reply::SENDER_NEEDS_UTF8);
    }
    Ok(Command::Mail(reverse_path, parameters))
}

/// Whether RCPT may have UTF-8 depends on MAIL: the transaction knows.
fn rcpt(argument: &[u8]) -> Result<Command, Reply> {
    let path = after_keyword(argument, b"TO:").ok_or(reply::BAD_RCPT)?;
    let (forward_path, rest) =
        ForwardPath::parse_prefix(path, charset(path)).map_err(|error| match error {
            PathError::Brackets => reply::BAD_RCPT,
            PathError::Mailbox(MailboxError::NeedsUtf8) => reply::RECIPIENT_NEEDS_UTF8,
            _ => reply::BAD_RECIPIENT,
        })?;
    Ok(Command::Rcpt(forward_path, parameter::of_rcpt(rest)?))
}

fn charset(path: &[u8]) -> Charset {
    if path.is_ascii() { Charset::Ascii } else { Charset::Utf8 }
}

/// DEVIATION RFC 5321 §3.3: space behind the colon is tolerated; many clients send it.
fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = argument.split_at_checked(keyword.len())?;
    start.eq_ignore_ascii_case(keyword).then(|| trim_start(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Result<Command, String> {
        Command::parse(line).map_err(|reply| reply.to_string().chars().take(9).collect())
    }

    #[test]
    fn verbs_are_known_in_any_case_and_space_at_the_end_is_tolerated() {
        for (line, command) in [
            (&b"data"[..], Command::Data),
            (b"DATA \t ", Command::Data),
            (b"RsEt ", Command::Rset),
            (b"StartTLS ", Command::StartTls),
            (b"QUIT\t", Command::Quit),
            (b"auth plain", Command::Auth(Some(Mechanism::Plain), None)),
            (
                b"AUTH scram-sha-256  biws ",
                Command::Auth(Some(Mechanism::ScramSha256), Some(b"biws"[..].into())),
            ),
            (b"AUTH SCRAM-SHA-256-PLUS", Command::Auth(None, None)),
            (b"NOOP any thing", Command::Noop),
            (b"VRFY x ", Command::Vrfy),
            (b"HELP MAIL", Command::Help),
            (b"EHLO  a_b.test ", Command::Ehlo("a_b.test".into())),
            (b"HELO [IPv6:::1]", Command::Helo("[IPv6:::1]".into())),
            (b"MAIL FROM:<> ", Command::Mail(ReversePath::Null, Parameters::default())),
            (
                b"rcpt to: <postMASTER>\t",
                Command::Rcpt(ForwardPath::Postmaster, RecipientNotification::default()),
            ),
        ] {
            assert_eq!(parse(line), Ok(command), "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn malformed_commands_have_their_replies() {
        for (line, reply) in [
            (&b""[..], "500 5.5.1"),
            (b" NOOP", "500 5.5.1"),
            (b"NOOPS", "500 5.5.1"),
            (b"NOOP\nNOOP", "500 5.5.2"),
            (b"NOOP\rNOOP", "500 5.5.2"),
            (b"NOOP \0", "500 5.5.2"),
            (b"N\xc3\xb6\xc3\xb6P", "500 5.5.1"),
            (b"EXPN list", "502 5.5.1"),
            (b"VRFY", "501 5.5.4"),
            (b"DATA now", "501 5.5.4"),
            (b"AUTH", "501 5.5.4"),
            (b"RSET x", "501 5.5.4"),
            (b"QUIT x", "501 5.5.4"),
            (b"EHLO", "501 A dom"),
            (b"EHLO a b", "501 A dom"),
            (b"EHLO \x1b[31m", "501 A dom"),
            (b"EHLO caf\xc3\xa9.test", "501 A dom"),
            (b"EHLO [999.1.1.1]", "501 A dom"),
            (b"MAIL <a@b.test>", "501 5.5.4"),
            (b"MAIL FROM:a@b.test", "501 5.5.4"),
            (b"MAIL FROM:<a@b.test", "501 5.5.4"),
            (b"MAIL FROM:<a>RCPT TO:<b>", "501 5.1.7"),
            (b"MAIL FROM:<a@b.test>RCPT TO:<b>", "501 5.5.4"),
            (b"MAIL FROM:<@>", "501 5.1.7"),
            (b"MAIL FROM:<\xff@b.test>", "501 5.1.7"),
            (b"MAIL FROM:<\xc3\xa9@b.test>", "550 5.6.7"),
            (b"RCPT FROM:<a@b.test>", "501 5.5.4"),
            (b"RCPT TO:<>", "501 5.1.3"),
            (b"RCPT TO:<a@[999.1.1.1]>", "501 5.1.3"),
            (b"RCPT TO:<a@b.test> RET=FULL", "555 5.5.4"),
            (b"RCPT TO:<a@b.test> NOTIFY=ALWAYS", "501 5.5.4"),
            (b"RCPT TO:<a@b.test>x", "501 5.5.4"),
        ] {
            assert_eq!(parse(line), Err(reply.to_owned()), "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_utf8_sender_is_taken_with_smtputf8() {
        let parsed = parse("MAIL FROM:<δοκ@πρ.test> SMTPUTF8".as_bytes());
        assert!(matches!(parsed, Ok(Command::Mail(_, Parameters { smtputf8: true, .. }))), "{parsed:?}");
    }
}
