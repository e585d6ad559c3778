use std::{borrow::Cow, fmt, str::FromStr};

/// The three digits of a reply, 2yz to 5yz (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyCode(u16);

/// The number is not a reply code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reply code: 200 to 599 was expected")]
pub struct ReplyCodeError;

impl ReplyCode {
    /// A code from its number. Any second and third digit is taken: the first alone decides (RFC 5321 §4.3.2).
    pub const fn new(code: u16) -> Result<Self, ReplyCodeError> {
        if code >= 200 && code <= 599 { Ok(Self(code)) } else { Err(ReplyCodeError) }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// 2yz: done.
    pub const fn is_positive(self) -> bool {
        self.0 / 100 == 2
    }

    /// 3yz: go on.
    pub const fn is_intermediate(self) -> bool {
        self.0 / 100 == 3
    }

    /// 4yz: not now.
    pub const fn is_transient(self) -> bool {
        self.0 / 100 == 4
    }

    /// 5yz: never.
    pub const fn is_permanent(self) -> bool {
        self.0 / 100 == 5
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedStatus {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

/// The text is not an enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code: 2, 4 or 5, then two numbers up to 999, joined by dots")]
pub struct EnhancedStatusError;

impl EnhancedStatus {
    /// A status from its three numbers.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatus {
    type Err = EnhancedStatusError;

    fn from_str(text: &str) -> Result<Self, EnhancedStatusError> {
        let number = |digits: &str| {
            let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse::<u16>().ok() } else { None }
        };
        let mut parts = text.split('.');
        let (class, subject, detail) = (parts.next(), parts.next(), parts.next());
        let class = match class {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(EnhancedStatusError),
        };
        match (subject.and_then(number), detail.and_then(number), parts.next()) {
            (Some(subject), Some(detail), None) => Ok(Self { class, subject, detail }),
            _ => Err(EnhancedStatusError),
        }
    }
}

/// A reply: ours to a client, or a server's to us (RFC 5321 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: ReplyCode,
    /// The enhanced status, where there is one.
    pub enhanced: Option<EnhancedStatus>,
    /// The text without code and status; lines of a multi-line reply are joined by `\n`.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced status. The code is a literal of ours; an impossible one becomes 451.
    pub const fn new(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        Self {
            code: match ReplyCode::new(code) {
                Ok(code) => code,
                Err(_) => ReplyCode(451),
            },
            enhanced: Some(EnhancedStatus::new(enhanced.0, enhanced.1, enhanced.2)),
            text: Cow::Borrowed(text),
        }
    }

    /// A reply without an enhanced status.
    pub const fn plain(code: u16, text: &'static str) -> Self {
        let mut reply = Self::new(code, (2, 0, 0), text);
        reply.enhanced = None;
        reply
    }

    /// The same reply with other text.
    #[must_use]
    pub fn with_text(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), ..self }
    }
}

/// One line, as for a log: `550 5.1.1 no such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in self.text.split('\n') {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}
