use std::time::Duration;

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::queue::Rate;

/// How many messages may be saved up when a rate limit was not used for a while, unless something else is said.
pub(crate) const BURST: u32 = 10;

/// How fast mail goes out.
///
/// What is over a limit waits in its lane, without an attempt and without a connection. A message counts once for each of
/// its transactions, which are one a destination as a rule. Local Maildirs count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Most messages a second, to all destinations together; they take turns.
    ///
    /// Smooth: 10 messages, or those of a tenth of a second, may go at once after a pause. Default: none.
    pub global_per_second: Option<u32>,
    /// Most messages a second to each domain of recipients, unless the domain's `rate_limit` says otherwise.
    ///
    /// Smooth, with bursts as above, or the domain's `rate_burst`. Default: none.
    pub per_domain_per_second: Option<u32>,
}

impl RateLimits {
    /// The limit of all mail together.
    pub fn global(&self) -> Option<Rate> {
        self.global_per_second.and_then(|messages| {
            // Timers count in milliseconds: without a burst that grows with it a high rate would never be reached.
            Rate::new(messages, Duration::from_secs(1), BURST.max(messages / 10))
        })
    }

    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let limits = [
            ("global_per_second", self.global_per_second),
            ("per_domain_per_second", self.per_domain_per_second),
        ];
        let nothing = limits.into_iter().filter(|(_, limit)| *limit == Some(0));
        nothing.map(|(key, _)| Problem::new(key, NOTHING)).collect()
    }
}

/// A limit of 0.
pub(super) const NOTHING: &str = "nothing could be delivered; give at least 1, or None for no limit";

/// When a destination that cannot be reached is left alone.
///
/// Connections that fail, handshakes, timeouts and 421 replies count, when no host of the destination did better; what is
/// said about a message or a recipient does not. Nor does a connection that breaks, or on which nothing more comes, after the
/// host has taken MAIL: that may be the fault of the message, which alone is tried again. A smarthost that refuses our name,
/// password or token (AUTH) opens it at the first attempt, lest every message show what is wrong. While the breaker is open, mail
/// for the destination waits in its lane without costing attempts; it expires in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Open after this many failed attempts in a row.
    ///
    /// Their mail is deferred as usual; the rest waits. Default: `5`.
    pub failure_threshold: u32,
    /// Try the destination again after this long, at least a second. Default: `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Most attempts at the same time when it is tried again.
    ///
    /// The first that gets as far as MAIL closes the breaker, the first that fails opens it again. Default: `3`.
    pub half_open_max_calls: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failure_threshold: 5, timeout: Duration::from_mins(1), half_open_max_calls: 3 }
    }
}

impl CircuitBreaker {
    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.failure_threshold == 0 {
            problems.push(Problem::new("failure_threshold", "it opens after failures only; give at least 1"));
        }
        if self.half_open_max_calls == 0 {
            problems.push(Problem::new("half_open_max_calls", "it would never close; give at least 1"));
        }
        problems
    }
}
