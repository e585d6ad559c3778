use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// Until when a message is not sent on: the `HOLDFOR` or `HOLDUNTIL` parameter of MAIL (RFC 4865).
///
/// It is written as the `Future-Release-Request` field of reports has it: `for;3600`, `until;2026-12-24T18:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FutureRelease {
    /// So many seconds from reception.
    For(u32),
    /// That time.
    Until(Timestamp),
}

impl FutureRelease {
    /// Parses the value of `HOLDFOR`: `%x31-39 *8DIGIT`, so at most 999999999 seconds.
    pub fn parse_for(value: &[u8]) -> Option<Self> {
        let is_interval = matches!(value, [b'1'..=b'9', rest @ ..] if rest.len() <= 8 && is_digits(rest));
        is_interval.then(|| str::from_utf8(value).ok()?.parse().ok().map(Self::For)).flatten()
    }

    /// Parses the value of `HOLDUNTIL`: a date-time of RFC 3339 §5.6 in UTC.
    pub fn parse_until(value: &[u8]) -> Option<Self> {
        let shape = |(octet, at): (&u8, usize)| match at {
            4 | 7 => *octet == b'-',
            10 => octet.eq_ignore_ascii_case(&b'T'),
            13 | 16 => *octet == b':',
            _ => octet.is_ascii_digit(),
        };
        let (start, end) = value.split_at_checked(SECONDS)?;
        let [fraction @ .., b'Z' | b'z'] = end else { return None };
        let is_fraction = match fraction {
            [] => true,
            [b'.', digits @ ..] => !digits.is_empty() && digits.len() <= 9 && is_digits(digits),
            _ => false,
        };
        if !is_fraction || !start.iter().zip(0..).all(shape) {
            return None;
        }
        str::from_utf8(value).ok()?.to_ascii_uppercase().parse().ok().map(Self::Until)
    }

    /// When that is, for a message that was received then.
    pub fn time(self, received_at: Timestamp) -> Timestamp {
        match self {
            Self::For(seconds) => {
                let interval = SignedDuration::from_secs(seconds.into());
                received_at.checked_add(interval).unwrap_or(Timestamp::MAX)
            }
            // What has passed meanwhile is no reason to wait.
            Self::Until(time) => time.max(received_at),
        }
    }
}

/// Octets of `2026-12-24T18:00:00`.
const SECONDS: usize = 19;

fn is_digits(octets: &[u8]) -> bool {
    octets.iter().all(u8::is_ascii_digit)
}

impl fmt::Display for FutureRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(seconds) => write!(f, "for;{seconds}"),
            Self::Until(time) => write!(f, "until;{time}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_1_to_999999999_seconds() {
        for (value, seconds) in [("1", 1), ("60", 60), ("999999999", 999_999_999)] {
            let parsed = FutureRelease::parse_for(value.as_bytes());
            assert_eq!(parsed, Some(FutureRelease::For(seconds)));
            assert_eq!(parsed.unwrap().to_string(), format!("for;{value}"));
        }
        for value in ["", "0", "01", "-1", "+1", "1000000000", "1.5", "1s", "PT1H", " 1", "\u{661}"] {
            assert_eq!(FutureRelease::parse_for(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_time_is_that_of_rfc_3339_in_utc() {
        for (value, written) in [
            ("2026-12-24T18:00:00Z", "until;2026-12-24T18:00:00Z"),
            ("2026-12-24t18:00:00z", "until;2026-12-24T18:00:00Z"),
            ("2026-12-24T18:00:00.25Z", "until;2026-12-24T18:00:00.25Z"),
            ("2028-02-29T23:59:59Z", "until;2028-02-29T23:59:59Z"),
        ] {
            let parsed = FutureRelease::parse_until(value.as_bytes()).map(|parsed| parsed.to_string());
            assert_eq!(parsed.as_deref(), Some(written), "{value}");
        }
        for value in [
            "",
            "Z",
            "2026-12-24",
            "2026-12-24T18:00Z",
            "2026-12-24T18:00:00",
            "2026-12-24 18:00:00Z",
            "2026-12-24T18:00:00+00:00",
            "2026-12-24T18:00:00Z[UTC]",
            "2026-12-24T18:00:00.Z",
            "2026-12-24T18:00:00,5Z",
            "2026-12-24T18:00:00.1234567890Z",
            "2026-02-29T18:00:00Z",
            "2026-12-24T24:00:00Z",
            "+02026-12-24T18:00:00Z",
            "20261224T180000Z",
            "1766599200",
        ] {
            assert_eq!(FutureRelease::parse_until(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn the_time_counts_from_reception_and_is_never_before_it() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let received = time("2026-11-21T12:00:00.5Z");
        assert_eq!(FutureRelease::For(60).time(received), time("2026-11-21T12:01:00.5Z"));
        assert_eq!(
            FutureRelease::Until(time("2026-11-22T00:00:00Z")).time(received),
            time("2026-11-22T00:00:00Z")
        );
        assert_eq!(FutureRelease::Until(time("2026-11-20T00:00:00Z")).time(received), received);
        assert_eq!(FutureRelease::For(u32::MAX).time(Timestamp::MAX), Timestamp::MAX);
    }
}
