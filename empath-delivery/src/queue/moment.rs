use jiff::Timestamp;

/// A time in eight octets, for a long queue: nanoseconds since 1970. Exact from 1678 to 2262; times before and after that
/// are the beginning and the end of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i64);

impl Moment {
    pub(super) const NEVER: Self = Self(i64::MAX);
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let edge = if at < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX };
        Self(i64::try_from(at.as_nanosecond()).unwrap_or(edge))
    }
}

impl From<Moment> for Timestamp {
    fn from(Moment(nanoseconds): Moment) -> Self {
        match nanoseconds {
            i64::MIN => Self::MIN,
            i64::MAX => Self::MAX,
            // Timestamps reach further than that in both directions.
            _ => Self::from_nanosecond(nanoseconds.into()).unwrap_or(Self::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_of_this_age_are_exact(second in -9_000_000_000_i64..9_000_000_000, nanosecond in 0..1_000_000_000) {
            let at = Timestamp::new(second, nanosecond).unwrap();
            prop_assert_eq!(Timestamp::from(Moment::from(at)), at);
        }
    }

    #[test]
    fn the_ends_of_time_stay_what_they_are() {
        for at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert_eq!(Timestamp::from(Moment::from(at)), at);
        }
        let late: Timestamp = "3000-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(Moment::from(late), Moment::NEVER);
    }
}
