//! Until when a client may have its messages wait (RFC 4865).

use std::time::Duration;

use empath_common::{FutureRelease, Reply};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::reply;

/// What EHLO says of FUTURERELEASE: the longest interval in seconds, and the latest time at this moment (RFC 4865).
pub(super) fn keyword(longest: Duration, now: Timestamp) -> String {
    let latest = latest(longest, now).to_zoned(TimeZone::UTC);
    format!("FUTURERELEASE {} {}", longest.as_secs(), latest.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

/// Whether a message may wait so long. A time that has passed already is a mistake of the client's as well: what it meant is
/// not known.
pub(super) fn check(request: FutureRelease, longest: Duration, now: Timestamp) -> Result<(), Reply> {
    let may = match request {
        FutureRelease::For(seconds) => u64::from(seconds) <= longest.as_secs(),
        FutureRelease::Until(time) => now <= time && time <= latest(longest, now),
    };
    if may { Ok(()) } else { Err(reply::NO_SUCH_RELEASE) }
}

fn latest(longest: Duration, now: Timestamp) -> Timestamp {
    let longest = SignedDuration::try_from(longest).unwrap_or(SignedDuration::MAX);
    now.checked_add(longest).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_offered_is_what_is_taken_to_the_second() {
        let (now, hour) = (time("2026-11-21T09:08:07Z"), Duration::from_hours(1));
        assert_eq!(keyword(hour, now), "FUTURERELEASE 3600 2026-11-21T10:08:07Z");
        let may = |request| check(request, hour, now).is_ok();
        for (seconds, allowed) in [(1, true), (3600, true), (3601, false), (999_999_999, false)] {
            assert_eq!(may(FutureRelease::For(seconds)), allowed, "{seconds}");
        }
        for (until, allowed) in [
            ("2026-11-21T09:08:06Z", false),
            ("2026-11-21T09:08:07Z", true),
            ("2026-11-21T10:08:07Z", true),
            ("2026-11-21T10:08:07.1Z", false),
            ("9000-12-31T23:59:59Z", false),
            ("1970-01-01T00:00:00Z", false),
        ] {
            assert_eq!(may(FutureRelease::Until(time(until))), allowed, "{until}");
        }
    }
}
