//! The configuration of delivery: the tables `delivery:` and `dsn:`.

mod domains;
mod dsn;
mod limits;
mod pool;
mod retry;

use std::collections::BTreeMap;

use empath_common::{Domain, Problem};
use empath_smtp::client::Timeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resolve::DnsConfig;

pub use domains::{DomainConfig, HostAddr, Override, OverrideError};
pub use dsn::DsnConfig;
pub use empath_common::{DomainPattern, DomainPatternError};
pub(crate) use limits::BURST;
pub use limits::{CircuitBreaker, RateLimits};
pub use pool::ConnectionPool;
pub use retry::Retry;

/// How accepted messages are delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most outgoing connections at the same time, to all destinations together.
    ///
    /// Idle ones count, and make room when another destination needs a connection. When all are busy the
    /// destinations take turns. Each costs a file descriptor. Default: `500`.
    pub max_concurrent: usize,
    /// When a delivery that failed for now is tried again, and when it is given up.
    pub retry: Retry,
    /// How connections to a destination are shared by messages.
    pub connection_pool: ConnectionPool,
    /// How fast mail goes out.
    pub rate_limits: RateLimits,
    /// When a destination that cannot be reached is left alone.
    pub circuit_breaker: CircuitBreaker,
    /// The port of hosts found by MX or named by an address literal, and of an `mx_override` that names none.
    ///
    /// RFC 5321 §4.5.4.2 knows only 25; another is for tests and closed networks. Default: `25`.
    pub mx_port: u16,
    /// How long to wait for a server at each step.
    pub smtp_timeouts: Timeouts,
    /// How domains are looked up.
    pub dns: DnsConfig,
    /// What is different for some domains.
    ///
    /// A key is a domain (`"example.test"`), every name below one (`"*.test"`, not `test` itself), or everything
    /// (`"*"`, address literals too). The longest match alone applies. Default: none.
    pub domains: BTreeMap<DomainPattern, DomainConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent: 500,
            retry: Retry::default(),
            connection_pool: ConnectionPool::default(),
            rate_limits: RateLimits::default(),
            circuit_breaker: CircuitBreaker::default(),
            mx_port: 25,
            smtp_timeouts: Timeouts::default(),
            dns: DnsConfig::default(),
            domains: BTreeMap::new(),
        }
    }
}

impl Config {
    /// What applies to a domain: the longest match of `domains`.
    pub fn domain(&self, domain: &Domain) -> Option<&DomainConfig> {
        let exact = self.domains.get(&DomainPattern::Exact(domain.clone()));
        let below = || {
            let matching = self.domains.iter().filter_map(|(pattern, config)| match pattern {
                DomainPattern::Below(name) if domain.is_below(name) => Some((name, config)),
                _ => None,
            });
            matching.max_by_key(|(name, _)| name.as_str().len()).map(|(_, config)| config)
        };
        exact.or_else(below).or_else(|| self.domains.get(&DomainPattern::Any))
    }

    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.max_concurrent == 0 {
            problems.push(Problem::new("max_concurrent", "nothing could be delivered; give at least 1"));
        }
        if self.mx_port == 0 {
            problems.push(Problem::new("mx_port", "there is no port 0; SMTP is 25"));
        }
        let mut add = |key: &str, found: Vec<Problem>| {
            problems.extend(found.into_iter().map(|problem| problem.within(key)));
        };
        add("retry", self.retry.validate());
        add("connection_pool", self.connection_pool.validate());
        add("rate_limits", self.rate_limits.validate());
        add("circuit_breaker", self.circuit_breaker.validate());
        add("smtp_timeouts", self.smtp_timeouts.validate());
        add("dns", self.dns.validate());
        for (pattern, domain) in &self.domains {
            add(&format!("domains[\"{pattern}\"]"), domain.validate());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(Config::default().validate(), []);
        assert_eq!(DsnConfig::default().validate(), []);
    }

    #[test]
    fn every_problem_is_found_at_once_with_its_place() {
        let mut config = Config { max_concurrent: 0, mx_port: 0, ..Config::default() };
        config.retry.multiplier = 0.5;
        config.retry.max_delay = Duration::from_secs(1);
        config.connection_pool.max_per_server = 0;
        config.rate_limits = RateLimits { global_per_second: Some(0), per_domain_per_second: Some(0) };
        config.circuit_breaker.failure_threshold = 0;
        config.circuit_breaker.half_open_max_calls = 0;
        config.smtp_timeouts.connect = Duration::ZERO;
        let domain = DomainConfig {
            mx_override: Some("127.0.0.1:25".parse().unwrap()),
            maildir: Some("./{user}".into()),
            max_connections: Some(0),
            rate_limit: Some(0),
            rate_burst: Some(0),
        };
        config.domains.insert("*.test".parse().unwrap(), domain);
        let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
        assert_eq!(
            keys,
            [
                "max_concurrent",
                "mx_port",
                "retry.multiplier",
                "retry.max_delay",
                "connection_pool.max_per_server",
                "rate_limits.global_per_second",
                "rate_limits.per_domain_per_second",
                "circuit_breaker.failure_threshold",
                "circuit_breaker.half_open_max_calls",
                "smtp_timeouts.connect",
                "domains[\"*.test\"].max_connections",
                "domains[\"*.test\"].rate_limit",
                "domains[\"*.test\"].rate_burst",
                "domains[\"*.test\"].maildir",
                "domains[\"*.test\"].maildir",
            ]
        );
    }
}
