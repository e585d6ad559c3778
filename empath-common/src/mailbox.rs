use std::{borrow::Cow, cmp::Ordering, fmt, hash, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{AddressLiteral, Domain, DomainError, LiteralError};

/// Which characters an address may have: ASCII (RFC 5321), or UTF-8 too (RFC 6531 §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// RFC 5321: ASCII only.
    Ascii,
    /// RFC 6531: UTF-8 in local parts and U-labels.
    Utf8,
}

/// What stands behind the `@`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// An address literal.
    Literal(AddressLiteral),
}

/// A mailbox, `Local-part "@" ( Domain / address-literal )` (RFC 5321 §4.1.2).
///
/// Displays exactly as it was written, case and quoting of the local part and U-labels included (RFC 5321
/// §2.4: only the final host interprets the local part). Equality ignores the spelling of the host alone; see
/// [`canonical`](Self::canonical).
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mailbox {
    text: Box<str>,
    /// Octets of the local part; the `@` follows.
    local_len: u8,
    host: Host,
}

/// Why some text is not a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// No `@` outside a quoted string.
    #[error("a mailbox needs a local part, an @ and a domain")]
    NoDomain,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("the local part is neither a dot-string nor a quoted string")]
    LocalPart,
    /// The local part has more than 64 octets (RFC 5321 §4.5.3.1.1).
    #[error("the local part has more than 64 octets")]
    LocalPartTooLong,
    /// UTF-8 where only ASCII is allowed.
    #[error("the address needs SMTPUTF8")]
    NeedsUtf8,
    /// Octets that are not UTF-8.
    #[error("the address is not UTF-8")]
    NotUtf8,
    /// The domain is malformed.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The address literal is malformed.
    #[error(transparent)]
    Literal(#[from] LiteralError),
}

impl Mailbox {
    /// Longest local part in octets (RFC 5321 §4.5.3.1.1).
    pub const MAX_LOCAL_LEN: usize = 64;

    /// Parses octets as they come from the wire.
    pub fn parse(octets: &[u8], charset: Charset) -> Result<Self, MailboxError> {
        let text = str::from_utf8(octets).map_err(|_| MailboxError::NotUtf8)?;
        if charset == Charset::Ascii && !text.is_ascii() {
            return Err(MailboxError::NeedsUtf8);
        }
        let local_len = local_part_len(text)?;
        let (local, rest) = text.split_at_checked(local_len).ok_or(MailboxError::LocalPart)?;
        let host = rest.strip_prefix('@').ok_or(MailboxError::NoDomain)?;
        if local.len() > Self::MAX_LOCAL_LEN {
            return Err(MailboxError::LocalPartTooLong);
        }
        let host = if host.starts_with('[') {
            Host::Literal(host.parse()?)
        } else {
            Host::Domain(Domain::parse(host)?)
        };
        let local_len = u8::try_from(local_len).map_err(|_| MailboxError::LocalPartTooLong)?;
        Ok(Self { text: text.into(), local_len, host })
    }

    /// The local part as it was written, quotes included.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.local_len.into()).unwrap_or_default()
    }

    /// The local part as it is interpreted: without quotes and backslashes that it does not need (RFC 5321 §4.1.2).
    /// `"b\ob"` is `bob`; `"a\ b"` is `"a b"`.
    pub fn canonical_local_part(&self) -> Cow<'_, str> {
        let written = self.local_part();
        let Some(quoted) = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return written.into();
        };
        let (mut meant, mut quoted_again) = (String::with_capacity(written.len()), String::from('"'));
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            let c = if c == '\\' { chars.next().unwrap_or(c) } else { c };
            meant.push(c);
            if matches!(c, '"' | '\\') {
                quoted_again.push('\\');
            }
            quoted_again.push(c);
        }
        quoted_again.push('"');
        if is_dot_string(&meant) { meant.into() } else { quoted_again.into() }
    }

    /// The mailbox with its [canonical](Self::canonical_local_part) local part: to be compared, never to be passed on.
    pub fn canonical(&self) -> Cow<'_, Self> {
        let local = self.canonical_local_part();
        // It is never longer than what was written.
        let local_len = u8::try_from(local.len()).unwrap_or(self.local_len);
        if local == self.local_part() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { text: format!("{local}@{}", self.host).into(), local_len, host: self.host.clone() })
    }

    /// The domain or address literal.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The domain, unless the host is an address literal.
    pub fn domain(&self) -> Option<&Domain> {
        match &self.host {
            Host::Domain(domain) => Some(domain),
            Host::Literal(_) => None,
        }
    }

    /// The mailbox as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the next hop must speak SMTPUTF8 to be given this address (RFC 6531 §3.5).
    pub fn needs_utf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

/// The octets that the local part takes: a Dot-string or a Quoted-string, with RFC 6531 §3.3's UTF8-non-ascii.
fn local_part_len(text: &str) -> Result<usize, MailboxError> {
    let mut chars = text.char_indices();
    if text.starts_with('"') {
        chars.next();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => return Ok(i + 1),
                '\\' => match chars.next() {
                    Some((_, ' '..='~')) => {}
                    _ => return Err(MailboxError::LocalPart),
                },
                c if is_control(c) => return Err(MailboxError::LocalPart),
                _ => {}
            }
        }
        return Err(MailboxError::LocalPart);
    }
    let len = text.find('@').ok_or(MailboxError::NoDomain)?;
    let local = text.get(..len).unwrap_or_default();
    if is_dot_string(local) { Ok(len) } else { Err(MailboxError::LocalPart) }
}

fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !is_control(c))
}

/// C0, DEL and C1 controls: never part of an address, so that none reaches a log, a header or a file name.
fn is_control(c: char) -> bool {
    c.is_control()
}

impl PartialEq for Mailbox {
    fn eq(&self, other: &Self) -> bool {
        self.local_part() == other.local_part() && self.host == other.host
    }
}

impl Eq for Mailbox {}

impl PartialOrd for Mailbox {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Mailbox {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.local_part(), &self.host).cmp(&(other.local_part(), &other.host))
    }
}

impl hash::Hash for Mailbox {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.local_part().hash(state);
        self.host.hash(state);
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({})", self.text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Literal(literal) => literal.fmt(f),
        }
    }
}

impl FromStr for Mailbox {
    type Err = MailboxError;
    fn from_str(text: &str) -> Result<Self, MailboxError> {
        Self::parse(text.as_bytes(), Charset::Utf8)
    }
}

impl TryFrom<String> for Mailbox {
    type Error = MailboxError;
    fn try_from(text: String) -> Result<Self, MailboxError> {
        text.parse()
    }
}

impl From<Mailbox> for String {
    fn from(mailbox: Mailbox) -> Self {
        mailbox.text.into()
    }
}
