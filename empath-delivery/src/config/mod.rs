//! The configuration of delivery: the tables `delivery:` and `dsn:`.

mod deduplication;
mod delays;
mod domains;
mod dsn;
mod pool;
mod retry;

use std::collections::BTreeMap;

use empath_common::{Domain, Problem};
use empath_smtp::client::Timeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resolve::DnsConfig;

pub use deduplication::Deduplication;
pub use delays::{Delays, DelaysError};
pub use domains::{DomainConfig, HostAddr, Override, OverrideError};
pub use dsn::DsnConfig;
pub use empath_common::{DomainPattern, DomainPatternError};
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
    /// How messages that come in twice are recognised.
    pub deduplication: Deduplication,
    /// How connections to a destination are shared by messages.
    pub connection_pool: ConnectionPool,
    /// The port of hosts found by MX or named by an address literal, and of an `mx_override` that names none.
    ///
    /// RFC 5321 §4.5.4.2 knows only 25; another is for tests and closed networks. Default: `25`.
    pub mx_port: u16,
    /// The header field by which a message says how urgent it is: `critical`, `high`, `normal`, `low` or `bulk`.
    ///
    /// Where several messages wait for one destination, the more urgent have more turns: 16, 8, 4, 2 and 1 of 31, so that
    /// bulk mail never starves. The field counts only from `relay_networks` and authenticated users, and it is passed on.
    /// It is looked for in the first 64 KiB; the first one counts, and any other value is `normal`. `None`: all messages
    /// are. Default: `"X-Empath-Priority"`.
    pub priority_header: Option<String>,
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
            deduplication: Deduplication::default(),
            connection_pool: ConnectionPool::default(),
            mx_port: 25,
            priority_header: Some("X-Empath-Priority".to_owned()),
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
        // RFC 5322 §2.2: printable ASCII without the colon.
        let is_name = |name: &String| {
            !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':')
        };
        if !self.priority_header.as_ref().is_none_or(is_name) {
            problems.push(Problem::new(
                "priority_header",
                "this is not the name of a header field; None turns it off",
            ));
        }
        let mut add = |key: &str, found: Vec<Problem>| {
            problems.extend(found.into_iter().map(|problem| problem.within(key)));
        };
        add("retry", self.retry.validate());
        add("deduplication", self.deduplication.validate());
        add("connection_pool", self.connection_pool.validate());
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
        let mut config = Config {
            max_concurrent: 0,
            mx_port: 0,
            priority_header: Some("X:".to_owned()),
            ..Config::default()
        };
        config.retry.multiplier = 0.5;
        config.retry.max_delay = Duration::from_secs(1);
        config.deduplication = Deduplication { window: Some(Duration::ZERO), entries: 0 };
        config.connection_pool.max_per_server = 0;
        config.smtp_timeouts.connect = Duration::ZERO;
        let domain = DomainConfig {
            mx_override: Some("127.0.0.1:25".parse().unwrap()),
            maildir: Some("./{user}".into()),
            max_connections: Some(0),
        };
        config.domains.insert("*.test".parse().unwrap(), domain);
        let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
        assert_eq!(
            keys,
            [
                "max_concurrent",
                "mx_port",
                "priority_header",
                "retry.multiplier",
                "retry.max_delay",
                "deduplication.window",
                "deduplication.entries",
                "connection_pool.max_per_server",
                "smtp_timeouts.connect",
                "domains[\"*.test\"].max_connections",
                "domains[\"*.test\"].maildir",
                "domains[\"*.test\"].maildir",
            ]
        );
    }
}
