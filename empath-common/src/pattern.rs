use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Domain;

/// Which domains: one, all below one, or all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DomainPattern {
    /// `example.test`: this domain.
    Exact(Domain),
    /// `*.test`: every name below it, not the domain itself.
    Below(Domain),
    /// `*`: everything.
    Any,
}

/// The text is not a pattern of domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a domain: \"example.test\", \"*.test\" or \"*\" was expected")]
pub struct DomainPatternError;

impl FromStr for DomainPattern {
    type Err = DomainPatternError;

    fn from_str(text: &str) -> Result<Self, DomainPatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, pattern): (_, fn(Domain) -> Self) = match text.strip_prefix("*.") {
            Some(name) => (name, Self::Below),
            None => (text, Self::Exact),
        };
        Domain::parse(name).map(pattern).map_err(|_| DomainPatternError)
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => domain.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = DomainPatternError;
    fn try_from(text: String) -> Result<Self, DomainPatternError> {
        text.parse()
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}

impl schemars::JsonSchema for DomainPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DomainPattern".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_domain_or_a_star_in_front() {
        for text in ["example.test", "*.test", "*"] {
            assert_eq!(text.parse::<DomainPattern>().unwrap().to_string(), text);
        }
        for text in ["", "*.", "a.*.test", "*test", "**"] {
            assert_eq!(text.parse::<DomainPattern>(), Err(DomainPatternError), "{text:?}");
        }
    }
}
