use std::fmt;

use serde::{Deserialize, Serialize};

/// How urgent a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Soon.
    High,
    /// As most mail.
    #[default]
    Normal,
    /// After normal mail.
    Low,
    /// Whenever little else waits.
    Bulk,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Normal, Self::Low, Self::Bulk];

    /// Its name, however it is written.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| name.eq_ignore_ascii_case(priority.as_str().as_bytes()))
    }

    /// Its name: `normal`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_known_by_its_name_alone() {
        for priority in Priority::ALL {
            assert_eq!(Priority::parse(priority.to_string().to_uppercase().as_bytes()), Some(priority));
        }
        for other in ["", "urgent", "1", "normal "] {
            assert_eq!(Priority::parse(other.as_bytes()), None, "{other}");
        }
    }
}
