use std::time::Duration;

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Delays;

/// When a delivery that failed for now is tried again, and when it is given up (RFC 5321 §4.5.4.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The delay between the first attempt and the second, exactly.
    ///
    /// RFC 5321 §4.5.4.1 asks for 30 minutes between attempts on one destination in general; a first retry after
    /// a minute gets mail past greylisting sooner. Default: `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub base_delay: Duration,
    /// Each further delay is this many times the one before. Default: `2.0`.
    pub multiplier: f64,
    /// No delay is longer than this. Default: `"24h"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_delay: Duration,
    /// Every delay but the first varies by this fraction in both directions.
    ///
    /// So messages that failed together don't come back together. Default: `0.2`.
    pub jitter: f64,
    /// An explicit list of delays, in place of `base_delay`, `multiplier`, `max_delay` and `jitter`: `"1m,5m*2,1h*3"` is a
    /// minute, twice 5 minutes, and then an hour three times.
    ///
    /// They are kept exactly; the last one repeats. Default: `None`.
    #[schemars(with = "Option<String>")]
    pub delays: Option<Delays>,
    /// Give up and bounce after this many attempts; the first counts. Default: `25`.
    pub max_attempts: u32,
    /// Give up and bounce after this long in the queue.
    ///
    /// It acts on time, not at the next attempt. RFC 5321 §4.5.4.1 asks for at least 4-5 days; less loses mail
    /// during a long outage. Default: `"5d"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub expire_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            // DEVIATION RFC 5321 §4.5.4.1: a minute, not 30 of them; most outages and greylisting are short, and later delays
            // grow beyond that.
            base_delay: Duration::from_mins(1),
            multiplier: 2.0,
            max_delay: Duration::from_hours(24),
            jitter: 0.2,
            delays: None,
            max_attempts: 25,
            expire_after: Duration::from_hours(5 * 24),
        }
    }
}

impl Retry {
    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let checks = [
            (
                self.base_delay.is_zero(),
                "base_delay",
                "a retry without delay floods the next hop; give at least \"1s\"",
            ),
            (
                !(self.multiplier >= 1.0 && self.multiplier.is_finite()),
                "multiplier",
                "delays must not shrink; give at least 1.0",
            ),
            (self.max_delay < self.base_delay, "max_delay", "is shorter than base_delay"),
            (!(0.0..1.0).contains(&self.jitter), "jitter", "is a fraction: at least 0.0, less than 1.0"),
            (self.max_attempts == 0, "max_attempts", "counts the first attempt; give at least 1"),
            (self.expire_after.is_zero(), "expire_after", "every message would bounce at once"),
            (
                self.expire_after > LONGEST || self.max_delay > LONGEST,
                "expire_after",
                "expire_after and max_delay are at most \"365d\"",
            ),
        ];
        checks
            .into_iter()
            .filter(|(wrong, ..)| *wrong)
            .map(|(_, key, message)| Problem::new(key, message))
            .collect()
    }
}

/// Nobody waits longer for mail, and sums of times stay in range.
pub(super) const LONGEST: Duration = Duration::from_hours(365 * 24);
