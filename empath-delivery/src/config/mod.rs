//! The configuration of delivery: the tables `delivery:` and `dsn:`.

mod credentials;
mod deduplication;
mod delays;
mod domains;
mod dsn;
mod limits;
mod lmtp;
mod pool;
mod retry;
mod senders;
mod smarthost;
mod source;
mod tls;
mod unique;

use std::collections::BTreeMap;

use empath_common::{Domain, Problem};
use empath_smtp::client::{Timeouts, Tls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resolve::DnsConfig;

pub use credentials::{SecretError, SmarthostAuth};
pub use deduplication::Deduplication;
pub use delays::{Delays, DelaysError};
pub use domains::{DomainConfig, HostAddr, Override, OverrideError};
pub use dsn::DsnConfig;
pub use empath_common::{DomainPattern, DomainPatternError};
pub(crate) use limits::BURST;
pub use limits::{CircuitBreaker, RateLimits};
pub use lmtp::{LmtpServer, LmtpServerError};
pub use pool::ConnectionPool;
pub use retry::Retry;
pub use senders::{SenderPattern, SenderPatternError, SenderRoute};
pub use smarthost::{Server, Smarthost, SmarthostHost, SmarthostHostError};
pub use source::{Source, WarmUp};
pub use tls::{TlsConfig, TlsPolicy};

/// How accepted messages are delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most outgoing connections at the same time, to all destinations together.
    ///
    /// Idle ones count, and make room when another destination needs a connection. When all are busy the
    /// destinations take turns. Those that are dead hold up nobody else: destinations where mail arrives have the use of all
    /// connections, those not tried yet of three quarters, and those where no host answered last of half. While name
    /// servers are silent about the hosts of a domain, another destination may have the place. While others wait, a
    /// first attempt waits 3 seconds for a host to accept the connection, and 10 until it is ready for mail; later ones
    /// have their `smtp_timeouts`. Each costs a file descriptor. Default: `500`.
    pub max_concurrent: usize,
    /// When a delivery that failed for now is tried again, and when it is given up.
    pub retry: Retry,
    /// How messages that come in twice are recognised.
    pub deduplication: Deduplication,
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
    /// The header field by which a message says how urgent it is: `critical`, `high`, `normal`, `low` or `bulk`.
    ///
    /// Where several messages wait for one destination, the more urgent have more turns: 16, 8, 4, 2 and 1 of 31, so that
    /// bulk mail never starves. The field counts only from `relay_networks` and authenticated users, and it is passed on.
    /// It is looked for in the first 64 KiB; the first one counts, and any other value is `normal`. `None`: all messages
    /// are. MT-PRIORITY at MAIL (RFC 6710) counts more. Default: `"X-Empath-Priority"`.
    pub priority_header: Option<String>,
    /// How long to wait for a server at each step.
    pub smtp_timeouts: Timeouts,
    /// How domains are looked up.
    pub dns: DnsConfig,
    /// How connections to servers are encrypted (RFC 3207).
    pub tls: TlsConfig,
    /// Pools of addresses that mail leaves from, by name: `{"bulk": [(ipv4: "192.0.2.10", weight: 3), (ipv4: "192.0.2.11")]}`.
    ///
    /// The messages of a pool are shared among its sources by their weights; a message leaves from the same one at each
    /// attempt. Connections, and what is known about a destination, are apart for each source. Default: none.
    pub sources: BTreeMap<String, Vec<Source>>,
    /// The pool of `sources` for mail of which nothing else is said. `None`: the system chooses. Default: none.
    pub source: Option<String>,
    /// What is different for some domains.
    ///
    /// A key is a domain (`"example.test"`), every name below one (`"*.test"`, not `test` itself), or everything
    /// (`"*"`, address literals too). The longest match alone applies, and takes nothing over from the others: beside a
    /// `smarthost` of `"*"`, an entry that only limits a domain sends its mail to its own MX hosts. Default: none.
    #[serde(deserialize_with = "unique::unique")]
    pub domains: BTreeMap<DomainPattern, DomainConfig>,
    /// Where the mail of some senders goes that would otherwise go to MX hosts.
    ///
    /// A key is an address (`"news@example.test"`, the case of its local part counts: RFC 5321 §2.4), a domain
    /// (`"example.test"`, all its addresses), every name below one (`"*.example.test"`), or the null reverse-path of
    /// reports (`"<>"`). The most exact match alone applies: the address, then the domain, then the longest name above it.
    ///
    /// A sender's route counts more than the search for MX hosts, an address literal, and a `smarthost` or `mx_override`
    /// of `domains["*"]`. It counts less than a next hop that another entry of `domains` has for the recipient's domain,
    /// than `maildir` or `lmtp` of any entry, and than an override at run time; and it is never taken for a recipient
    /// in `smtp.local_domains`: mail for this host stays here. Limits of the recipient's domain apply all the same. Default:
    /// none.
    #[serde(deserialize_with = "unique::unique")]
    pub sender_routes: BTreeMap<SenderPattern, SenderRoute>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent: 500,
            retry: Retry::default(),
            deduplication: Deduplication::default(),
            connection_pool: ConnectionPool::default(),
            rate_limits: RateLimits::default(),
            circuit_breaker: CircuitBreaker::default(),
            mx_port: 25,
            priority_header: Some("X-Empath-Priority".to_owned()),
            smtp_timeouts: Timeouts::default(),
            dns: DnsConfig::default(),
            tls: TlsConfig::default(),
            sources: BTreeMap::new(),
            source: None,
            domains: BTreeMap::new(),
            sender_routes: BTreeMap::new(),
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

    /// How connections are encrypted that this says something about, or nothing: the policy, and whether certificates are
    /// verified.
    pub(crate) fn security(&self, domain: Option<&DomainConfig>) -> (TlsPolicy, bool) {
        let policy = match domain {
            // Credentials are for nobody else to see.
            Some(domain) if domain.require_tls || domain.implies_tls() => TlsPolicy::Required,
            domain => domain.and_then(|domain| domain.tls).unwrap_or(self.tls.default_policy),
        };
        let accept = domain.and_then(|domain| domain.accept_invalid_certs);
        let accept = accept.unwrap_or(self.tls.accept_invalid_certs);
        (policy, policy == TlsPolicy::Required && !accept)
    }

    /// What TLS handshakes with servers need. Roots are missed only if something is to be verified.
    pub fn tls(&self) -> Result<Tls, Problem> {
        let routes: Vec<_> = self.sender_routes.values().map(SenderRoute::as_domain).collect();
        let mut all = self.domains.values().chain(&routes).map(Some).chain([None]);
        let verifies = all.any(|domain| self.security(domain).1);
        self.tls.load(verifies).map_err(|problem| problem.within("tls"))
    }

    /// What works and still needs somebody's attention: certificates that are not verified although encryption is
    /// required, and sources that this machine doesn't have.
    pub fn warnings(&self) -> Vec<Problem> {
        let message = "certificates of servers are not verified: whoever stands in between can read and change the mail";
        let mut warnings = Vec::new();
        if self.tls.accept_invalid_certs {
            warnings.push(Problem::new("tls.accept_invalid_certs", message));
        }
        for (pattern, domain) in &self.domains {
            if domain.accept_invalid_certs == Some(true) {
                warnings.push(Problem::new(format!("domains[\"{pattern}\"].accept_invalid_certs"), message));
            }
        }
        for (pattern, route) in &self.sender_routes {
            if route.accept_invalid_certs == Some(true) {
                let key = format!("sender_routes[\"{pattern}\"].accept_invalid_certs");
                warnings.push(Problem::new(key, message));
            }
        }
        for (name, pool) in &self.sources {
            warnings.extend(source::foreign(pool).map(|(place, address)| {
                let message =
                    format!("{address} is no address of this machine: mail that is to leave from it waits");
                Problem::new(format!("sources[\"{name}\"]{place}"), message)
            }));
        }
        warnings
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
        add("rate_limits", self.rate_limits.validate());
        add("circuit_breaker", self.circuit_breaker.validate());
        add("smtp_timeouts", self.smtp_timeouts.validate());
        add("dns", self.dns.validate());
        problems.extend(self.tls().err());
        problems.extend(self.unknown_pool(self.source.as_ref()));
        let mut add = |key: &str, found: Vec<Problem>| {
            problems.extend(found.into_iter().map(|problem| problem.within(key)));
        };
        for (name, pool) in &self.sources {
            add(&format!("sources[\"{name}\"]"), source::validate(name, pool));
        }
        for (pattern, domain) in &self.domains {
            let mut found = domain.validate();
            found.extend(self.unknown_pool(domain.source.as_ref()));
            add(&format!("domains[\"{pattern}\"]"), found);
        }
        for (pattern, route) in &self.sender_routes {
            let mut found = route.validate();
            found.extend(self.unknown_pool(route.source.as_ref()));
            add(&format!("sender_routes[\"{pattern}\"]"), found);
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
    fn certificates_are_verified_where_encryption_is_required_unless_that_is_waived() {
        let required = |accept| DomainConfig {
            require_tls: true,
            accept_invalid_certs: accept,
            ..DomainConfig::default()
        };
        let mut config = Config::default();
        for accept in [false, true] {
            config.tls.accept_invalid_certs = accept;
            assert_eq!(config.security(None), (TlsPolicy::Opportunistic, false));
            assert_eq!(config.security(Some(&required(None))), (TlsPolicy::Required, !accept));
            assert_eq!(config.security(Some(&required(Some(false)))), (TlsPolicy::Required, true));
            assert_eq!(config.security(Some(&required(Some(true)))), (TlsPolicy::Required, false));
        }
        config.tls.default_policy = TlsPolicy::Required;
        let never = DomainConfig { tls: Some(TlsPolicy::Disabled), ..DomainConfig::default() };
        assert_eq!(config.security(Some(&never)), (TlsPolicy::Disabled, false));
        assert_eq!(config.security(None), (TlsPolicy::Required, false));
    }

    #[test]
    fn certificates_that_are_not_verified_are_warned_of_at_both_places() {
        let mut config = Config::default();
        let careless = DomainConfig { accept_invalid_certs: Some(true), ..DomainConfig::default() };
        let careful = DomainConfig { accept_invalid_certs: Some(false), ..DomainConfig::default() };
        config.domains.insert("a.test".parse().unwrap(), careful);
        assert_eq!(config.warnings(), []);
        config.domains.insert("b.test".parse().unwrap(), careless);
        let careless = SenderRoute { accept_invalid_certs: Some(true), ..SenderRoute::default() };
        config.sender_routes.insert("<>".parse().unwrap(), careless);
        config.tls.accept_invalid_certs = true;
        let keys: Vec<_> = config.warnings().into_iter().map(|warning| warning.key).collect();
        assert_eq!(
            keys,
            [
                "tls.accept_invalid_certs",
                "domains[\"b.test\"].accept_invalid_certs",
                "sender_routes[\"<>\"].accept_invalid_certs"
            ]
        );
    }

    #[test]
    fn a_source_that_the_machine_lacks_is_warned_of_with_its_place() {
        let mut config = Config::default();
        let source = |v4: [u8; 4]| Source { ipv4: Some(v4.into()), ..Source::default() };
        config.sources.insert("bulk".into(), vec![source([127, 0, 0, 1]), source([192, 0, 2, 99])]);
        let warnings = config.warnings();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].key, "sources[\"bulk\"][1].ipv4");
        assert!(warnings[0].message.contains("192.0.2.99"), "{}", warnings[0].message);
    }

    #[test]
    fn a_file_of_roots_that_can_not_be_used_is_a_problem_whatever_the_policy() {
        let mut config = Config::default();
        config.tls.ca_file = Some("/nowhere/roots.pem".into());
        let problems = config.validate();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "tls.ca_file");
        assert!(problems[0].message.contains("/nowhere/roots.pem"), "{}", problems[0].message);
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
        config.rate_limits = RateLimits { global_per_second: Some(0), per_domain_per_second: Some(0) };
        config.circuit_breaker.failure_threshold = 0;
        config.circuit_breaker.half_open_max_calls = 0;
        config.smtp_timeouts.connect = Duration::ZERO;
        let domain = DomainConfig {
            mx_override: Some("127.0.0.1:25".parse().unwrap()),
            maildir: Some("./{user}".into()),
            lmtp: Some("unix:/run/lmtp".parse().unwrap()),
            max_connections: Some(0),
            tls: Some(TlsPolicy::Disabled),
            require_tls: true,
            rate_limit: Some(0),
            rate_burst: Some(0),
            source: Some("b".into()),
            ..DomainConfig::default()
        };
        config.domains.insert("*.test".parse().unwrap(), domain);
        let unusable = Source {
            ipv4: Some([0, 0, 0, 0].into()),
            weight: 0,
            warm_up: Some(WarmUp { since: "2026-11-01".parse().unwrap(), days: 0 }),
            ..Source::default()
        };
        config.sources.insert("a".into(), vec![unusable, Source { weight: 0, ..Source::default() }]);
        config.source = Some("b".into());
        config.sender_routes.insert("*.test".parse().unwrap(), SenderRoute::default());
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
                "rate_limits.global_per_second",
                "rate_limits.per_domain_per_second",
                "circuit_breaker.failure_threshold",
                "circuit_breaker.half_open_max_calls",
                "smtp_timeouts.connect",
                "source",
                "sources[\"a\"][0].ipv4",
                "sources[\"a\"][0].warm_up.days",
                "sources[\"a\"][1].ipv4",
                "sources[\"a\"]",
                "domains[\"*.test\"].max_connections",
                "domains[\"*.test\"].require_tls",
                "domains[\"*.test\"].rate_limit",
                "domains[\"*.test\"].rate_burst",
                "domains[\"*.test\"].maildir",
                "domains[\"*.test\"].lmtp",
                "domains[\"*.test\"].lmtp",
                "domains[\"*.test\"].maildir",
                "domains[\"*.test\"].source",
                "domains[\"*.test\"].source",
                "sender_routes[\"*.test\"].smarthost",
            ]
        );
    }
}
