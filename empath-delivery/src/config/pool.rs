use std::time::Duration;

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How connections to a destination are shared by messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionPool {
    /// Most connections to one destination, unless the domain's `max_connections` says otherwise.
    ///
    /// A destination gets two at first, one more with each success while there is more to do, and fewer when connections
    /// fail or are answered 421. Large receivers refuse more than a few from one address. Default: `5`.
    pub max_per_server: usize,
    /// Close a connection after this long without a message.
    ///
    /// Servers close idle ones after 5 minutes or less; that is no failure, the next message opens another.
    /// Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// Close a connection after this many messages.
    ///
    /// Some servers count, and refuse the one too many. Default: `1000`.
    pub max_messages: u32,
    /// Close a connection of this age after its message.
    ///
    /// So that changes of the DNS, and preferred hosts that came back, are noticed. Default: `"30m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_age: Duration,
    /// Treat domains with the same MX hosts as one destination.
    ///
    /// Then they share connections, the limit of connections and the circuit breaker, as far as their settings for TLS,
    /// pipelining and chunking are the same; rate limits stay those of each domain, and domains take turns. Hosts that serve
    /// many domains count connections by who makes them, not by the domain. `false` gives each domain connections of its own.
    /// Default: `true`.
    pub mx_rollup: bool,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            max_per_server: 5,
            idle_timeout: Duration::from_mins(5),
            max_messages: 1000,
            max_age: Duration::from_mins(30),
            mx_rollup: true,
        }
    }
}

impl ConnectionPool {
    /// What is wrong with the values. An idle time or an age of zero is right: then nothing is shared.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.max_per_server == 0 {
            problems.push(Problem::new("max_per_server", "nothing could be delivered; give at least 1"));
        }
        if self.max_messages == 0 {
            problems.push(Problem::new("max_messages", "nothing could be delivered; give at least 1"));
        }
        problems
    }
}
