use std::{fmt, str::FromStr, sync::Arc};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};

/// A domain name in its canonical form: lower-case A-labels (RFC 5890 §2.3.2.1), no trailing dot.
///
/// Two spellings of one name (`EXAMPLE.test`, `example.test`; a U-label and its A-label) are equal.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Arc<str>);

/// Why some text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// No octets, or an empty label (`a..b`, a leading or trailing dot).
    #[error("a domain has an empty label")]
    EmptyLabel,
    /// More than 63 octets in a label (RFC 1035 §2.3.4).
    #[error("a domain has a label of more than 63 octets")]
    LabelTooLong,
    /// More than 255 octets (RFC 5321 §4.5.3.1.2).
    #[error("a domain has more than 255 octets")]
    TooLong,
    /// An octet that is not a letter, digit or hyphen, or a hyphen at an edge of a label (RFC 5321 §4.1.2).
    #[error("a domain has a character that is not a letter, a digit or an inner hyphen")]
    Character,
    /// Not a valid internationalised name (RFC 5891, UTS #46).
    #[error("a domain is not a valid internationalised name")]
    Idna,
}

impl Domain {
    /// Longest domain in octets (RFC 5321 §4.5.3.1.2).
    pub const MAX_LEN: usize = 255;

    /// Parses a name of A-labels or U-labels.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        if text.is_empty() {
            return Err(DomainError::EmptyLabel);
        }
        if text.len() > Self::MAX_LEN {
            return Err(DomainError::TooLong);
        }
        if text.is_ascii() && !has_a_label(text) {
            check(text)?;
            return Ok(Self(text.to_ascii_lowercase().into()));
        }
        // The same rule for hyphens as among ASCII names: `r3---sn.test` exists.
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
            .map_err(|_| DomainError::Idna)?;
        check(&ascii)?;
        Ok(Self(ascii.into()))
    }

    /// A host's name as the DNS has it, where any label is possible (RFC 2181 §11): underscores are taken too. Not for addresses.
    pub fn parse_host(text: &str) -> Result<Self, DomainError> {
        Self::parse(text).or_else(|error| {
            check(&text.replace('_', "x")).map_err(|_| error)?;
            Ok(Self(text.to_ascii_lowercase().into()))
        })
    }

    /// `localhost` (RFC 6761 §6.3).
    pub fn localhost() -> Self {
        Self("localhost".into())
    }

    /// The name in lower-case A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name lies below `ancestor` (`a.b.test` below `b.test` and `test`, not below itself).
    pub fn is_below(&self, ancestor: &Self) -> bool {
        self.0.strip_suffix(&*ancestor.0).is_some_and(|rest| rest.ends_with('.'))
    }
}

fn has_a_label(text: &str) -> bool {
    text.split('.').any(|label| label.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("xn--")))
}

/// `sub-domain *("." sub-domain)` of RFC 5321 §4.1.2 within the limits of RFC 1035 §2.3.4.
fn check(ascii: &str) -> Result<(), DomainError> {
    if ascii.len() > Domain::MAX_LEN {
        return Err(DomainError::TooLong);
    }
    for label in ascii.split('.') {
        match label.as_bytes() {
            [] => return Err(DomainError::EmptyLabel),
            long if long.len() > 63 => return Err(DomainError::LabelTooLong),
            [b'-', ..] | [.., b'-'] => return Err(DomainError::Character),
            ldh if !ldh.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') => {
                return Err(DomainError::Character);
            }
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.0)
    }
}

impl FromStr for Domain {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;
    fn try_from(text: String) -> Result<Self, DomainError> {
        Self::parse(&text)
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0.as_ref().to_owned()
    }
}

impl schemars::JsonSchema for Domain {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Domain".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}
