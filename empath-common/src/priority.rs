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

/// The priority that a client asks for: the `MT-PRIORITY` parameter of MAIL (RFC 6710 §3), from -9 to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MtPriority(i8);

impl MtPriority {
    /// That of messages which ask for none.
    pub const NORMAL: Self = Self(0);

    /// The priority with this number, if there is one.
    pub fn new(number: i8) -> Option<Self> {
        (-9..=9).contains(&number).then_some(Self(number))
    }

    /// Parses `["-"] NZDIGIT / "0"`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"0" => Some(Self::NORMAL),
            [digit @ b'1'..=b'9'] => Self::new((digit - b'0').cast_signed()),
            [b'-', digit @ b'1'..=b'9'] => Self::new(-(digit - b'0').cast_signed()),
            _ => None,
        }
    }

    /// Its number.
    pub fn get(self) -> i8 {
        self.0
    }

    /// The class of ours that it is served in. Urgent and non-urgent mail of MIXER (4 and -4) are high
    /// and low.
    pub fn class(self) -> Priority {
        match self.0 {
            6.. => Priority::Critical,
            1..=5 => Priority::High,
            0 => Priority::Normal,
            -5..=-1 => Priority::Low,
            ..=-6 => Priority::Bulk,
        }
    }
}

impl fmt::Display for MtPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_priority_is_one_digit_with_or_without_a_minus() {
        for number in -9..=9 {
            let priority = MtPriority::new(number).unwrap();
            assert_eq!(MtPriority::parse(number.to_string().as_bytes()), Some(priority));
            assert_eq!((priority.get(), priority.to_string()), (number, number.to_string()));
        }
        for other in ["", "-", "-0", "+1", "00", "01", "10", "-10", "1 ", "a", "\u{661}"] {
            assert_eq!(MtPriority::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!((MtPriority::new(10), MtPriority::new(-10)), (None, None));
    }

    #[test]
    fn classes_are_in_the_order_of_transfer_priorities() {
        let classes: Vec<_> = (-9..=9).map(|number| MtPriority::new(number).unwrap().class()).collect();
        assert!(classes.is_sorted_by(|lower, higher| lower >= higher));
        for (number, class) in [
            (9, Priority::Critical),
            (6, Priority::Critical),
            (5, Priority::High),
            (1, Priority::High),
            (0, Priority::Normal),
            (-1, Priority::Low),
            (-5, Priority::Low),
            (-6, Priority::Bulk),
            (-9, Priority::Bulk),
        ] {
            assert_eq!(MtPriority::new(number).unwrap().class(), class, "{number}");
        }
    }

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
