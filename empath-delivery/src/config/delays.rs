use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::retry::LONGEST;

/// An explicit list of delays between attempts: `1m,5m*2,1h*3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delays {
    /// Never empty.
    delays: Vec<Duration>,
    text: Box<str>,
}

/// Why a list of delays is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelaysError {
    /// A part is no duration.
    #[error("delay {number}, {part:?}, is no duration such as 90s, 5m or 1h30m")]
    Duration {
        /// Which; the first is 1.
        number: usize,
        /// As it is written.
        part: String,
    },
    /// What stands behind `*` is no number of times.
    #[error("delay {number}, {part:?}: behind * stands how often, from 1 to {max}", max = Delays::MAX)]
    Times {
        /// Which; the first is 1.
        number: usize,
        /// As it is written.
        part: String,
    },
    /// A delay floods the next hop, or nobody waits so long.
    #[error("delay {number}, {part:?}, is not from 1s to 365d")]
    Range {
        /// Which; the first is 1.
        number: usize,
        /// As it is written.
        part: String,
    },
    /// There are too many.
    #[error("the list has more than {} delays at delay {number}, {part:?}", Delays::MAX)]
    TooMany {
        /// At which; the first is 1.
        number: usize,
        /// As it is written.
        part: String,
    },
}

impl Delays {
    /// Most delays.
    pub const MAX: usize = 1000;

    /// The delay after the attempt with this number, the first being 1. The last one repeats.
    pub fn after(&self, attempts: u32) -> Duration {
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let last = self.delays.last().copied().unwrap_or(LONGEST);
        self.delays.get(place).copied().unwrap_or(last)
    }
}

impl FromStr for Delays {
    type Err = DelaysError;

    fn from_str(text: &str) -> Result<Self, DelaysError> {
        let mut delays = Vec::new();
        for (number, part) in (1..).zip(text.split(',')) {
            let part = part.trim();
            let at = || part.to_owned();
            let (delay, times) = match part.split_once('*') {
                Some((delay, times)) => (delay.trim(), times.trim()),
                None => (part, "1"),
            };
            let delay =
                humantime::parse_duration(delay).map_err(|_| DelaysError::Duration { number, part: at() })?;
            let times = times.parse().ok().filter(|times| (1..=Self::MAX).contains(times));
            let times = times.ok_or_else(|| DelaysError::Times { number, part: at() })?;
            if !(Duration::from_secs(1)..=LONGEST).contains(&delay) {
                return Err(DelaysError::Range { number, part: at() });
            }
            if delays.len() + times > Self::MAX {
                return Err(DelaysError::TooMany { number, part: at() });
            }
            delays.extend(std::iter::repeat_n(delay, times));
        }
        Ok(Self { delays, text: text.into() })
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Delays {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Delays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_repetitions_and_its_last_delay_repeats() {
        let delays: Delays = "1m, 5m*2 ,1h * 3,1day".parse().unwrap();
        let minutes: Vec<_> = (0..=9).map(|attempts| delays.after(attempts).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 1, 5, 5, 60, 60, 60, 1440, 1440, 1440]);
        assert_eq!(delays.after(u32::MAX), Duration::from_hours(24));
    }

    #[test]
    fn a_list_that_is_none_is_refused_with_the_place() {
        for (text, message) in [
            ("", "delay 1, \"\", is no duration such as 90s, 5m or 1h30m"),
            ("1m,", "delay 2, \"\", is no duration such as 90s, 5m or 1h30m"),
            ("1m,5x*2", "delay 2, \"5x*2\", is no duration such as 90s, 5m or 1h30m"),
            ("1m,2m,-3m", "delay 3, \"-3m\", is no duration such as 90s, 5m or 1h30m"),
            ("1m*", "delay 1, \"1m*\": behind * stands how often, from 1 to 1000"),
            ("1m*0", "delay 1, \"1m*0\": behind * stands how often, from 1 to 1000"),
            ("1m*2*2", "delay 1, \"1m*2*2\": behind * stands how often, from 1 to 1000"),
            ("1m,10ms", "delay 2, \"10ms\", is not from 1s to 365d"),
            ("1m,400d", "delay 2, \"400d\", is not from 1s to 365d"),
            ("1m*600,2m*400,3m", "the list has more than 1000 delays at delay 3, \"3m\""),
        ] {
            assert_eq!(text.parse::<Delays>().unwrap_err().to_string(), message);
        }
    }
}
