use std::{fmt, str::FromStr};

use crate::{Charset, Domain, Host, Mailbox, MailboxError};

/// Where replies about a message go: `MAIL FROM` (RFC 5321 §4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: nobody is told about failures (RFC 5321 §4.5.5).
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// Where a message goes: `RCPT TO` (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain (RFC 5321 §4.5.1): the postmaster of this host.
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// Why some octets are not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path does not stand between `<` and `>`.
    #[error("a path stands between < and >")]
    Brackets,
    /// More than 256 octets (RFC 5321 §4.5.3.1.3).
    #[error("a path has more than 256 octets")]
    TooLong,
    /// A malformed source route (RFC 5321 appendix C).
    #[error("the source route is malformed")]
    SourceRoute,
    /// The null path where a recipient is needed.
    #[error("a forward-path can't be empty")]
    Empty,
    /// The mailbox is malformed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

/// Longest path in octets, brackets included (RFC 5321 §4.5.3.1.3).
const MAX_PATH_LEN: usize = 256;

impl ReversePath {
    /// Parses a path at the start of `octets`; returns it with what follows the `>`.
    pub fn parse_prefix(octets: &[u8], charset: Charset) -> Result<(Self, &[u8]), PathError> {
        let (inner, rest) = brackets(octets)?;
        if inner.is_empty() {
            return Ok((Self::Null, rest));
        }
        Ok((Self::Mailbox(Mailbox::parse(without_route(inner, charset)?, charset)?), rest))
    }

    /// The mailbox, unless the path is null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The address without brackets; empty for the null path.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }
}

impl ForwardPath {
    /// Parses a path at the start of `octets`; returns it with what follows the `>`.
    ///
    /// A source route is recognised and ignored (RFC 5321 appendix C): `<@a.test,@b.test:u@c.test>` is `<u@c.test>`.
    pub fn parse_prefix(octets: &[u8], charset: Charset) -> Result<(Self, &[u8]), PathError> {
        let (inner, rest) = brackets(octets)?;
        if inner.is_empty() {
            return Err(PathError::Empty);
        }
        if inner.eq_ignore_ascii_case(b"postmaster") {
            return Ok((Self::Postmaster, rest));
        }
        Ok((Self::Mailbox(Mailbox::parse(without_route(inner, charset)?, charset)?), rest))
    }

    /// The mailbox, unless this is the bare `<Postmaster>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The host part; `None` for the bare `<Postmaster>`.
    pub fn host(&self) -> Option<&Host> {
        self.mailbox().map(Mailbox::host)
    }

    /// The domain; `None` for the bare `<Postmaster>` and for address literals.
    pub fn domain(&self) -> Option<&Domain> {
        self.mailbox().and_then(Mailbox::domain)
    }

    /// The address without brackets.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("Postmaster", Mailbox::as_str)
    }
}

/// Splits `<inner>rest`; a `>` inside a quoted string does not end the path.
fn brackets(octets: &[u8]) -> Result<(&[u8], &[u8]), PathError> {
    let Some((b'<', body)) = octets.split_first() else {
        return Err(PathError::Brackets);
    };
    let (mut quoted, mut escaped) = (false, false);
    for (i, octet) in body.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let (inner, rest) = body.split_at(i);
                if inner.len() + 2 > MAX_PATH_LEN {
                    return Err(PathError::TooLong);
                }
                return Ok((inner, rest.get(1..).unwrap_or_default()));
            }
            _ => {}
        }
    }
    Err(PathError::Brackets)
}

/// Drops `A-d-l ":"`, after checking its grammar.
fn without_route(inner: &[u8], charset: Charset) -> Result<&[u8], PathError> {
    if inner.first() != Some(&b'@') {
        return Ok(inner);
    }
    let colon = inner.iter().position(|b| *b == b':').ok_or(PathError::SourceRoute)?;
    let (route, mailbox) = inner.split_at(colon);
    let route = str::from_utf8(route).map_err(|_| PathError::SourceRoute)?;
    if charset == Charset::Ascii && !route.is_ascii() {
        return Err(MailboxError::NeedsUtf8.into());
    }
    for hop in route.split(',') {
        let name = hop.strip_prefix('@').ok_or(PathError::SourceRoute)?;
        Domain::parse(name).map_err(|_| PathError::SourceRoute)?;
    }
    Ok(mailbox.get(1..).unwrap_or_default())
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl FromStr for ReversePath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        whole(Self::parse_prefix(text.as_bytes(), Charset::Utf8)?)
    }
}

impl FromStr for ForwardPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        whole(Self::parse_prefix(text.as_bytes(), Charset::Utf8)?)
    }
}

fn whole<T>((path, rest): (T, &[u8])) -> Result<T, PathError> {
    if rest.is_empty() { Ok(path) } else { Err(PathError::Brackets) }
}
