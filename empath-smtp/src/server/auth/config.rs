use std::{fmt, path::PathBuf, time::Duration};

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Users;

/// Who may send as a user: AUTH (RFC 4954).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The file with the users; without one, AUTH is not offered.
    ///
    /// Make it with `empath user add --users-file FILE NAME`. It has one user a line: the name, an argon2id hash of the
    /// password (for PLAIN and LOGIN), a SCRAM-SHA-256 verifier (RFC 5803), and optionally what the user may send as.
    /// It is read again when it changes; if it is no good then, the users of before stay. Relative to the configuration
    /// file. Default: none.
    #[schemars(with = "Option<String>")]
    pub users_file: Option<PathBuf>,
    /// How users may authenticate, in the order in which it is offered: `ScramSha256`, `Plain`, `Login`.
    ///
    /// With SCRAM-SHA-256 (RFC 7677) the password itself never reaches this server. PLAIN (RFC 4616) is what most mail
    /// programs use, LOGIN what some old ones do. Default: `[ScramSha256, Plain, Login]`.
    pub mechanisms: Vec<Mechanism>,
    /// Whether AUTH works inside TLS only.
    ///
    /// Before TLS it is not offered then, and answered 538 5.7.11 whatever the password is (RFC 4954 §4). Without it
    /// passwords can be read on the way. Default: `true`.
    pub require_tls: bool,
    /// What authenticated users may send as: `Full`, `Envelope` or `Off`.
    ///
    /// A user owns the own name, where that is an address, and what is listed in the users file. With `Envelope` the
    /// reverse-path must be the user's own, or null (553 5.7.1 else); with `Full` every address in `From` as well
    /// (550 5.7.1 else). Users whom a proxy has named with XCLIENT are not checked. Default: `Full`.
    pub sender_check: SenderCheck,
    /// Failed attempts of an address (for IPv6 of one /64) before it is sent away: 421 4.7.0.
    ///
    /// One is forgotten each minute. Users are never sent away for what others try with their names. Default: `10`.
    pub failures: u32,
    /// Longest delay of an attempt after others have failed.
    ///
    /// After the third failure, from the same address or with the same name, attempts wait 250 ms, and twice as long
    /// after each further one. Default: `"5s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_delay: Duration,
    /// Most passwords that are checked at a time.
    ///
    /// Each takes a processor for some tens of milliseconds, and as much memory as its argon2id hash says (19 MiB as `empath user add`
    /// makes it). Default: `2`.
    pub verifications: usize,
    /// Most passwords that wait for being checked.
    ///
    /// Further ones are answered 454 4.7.0. Default: `100`.
    pub waiting: usize,
}

/// A way to authenticate (a SASL mechanism).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.
    ScramSha256,
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, which was never standardised: name and password, each on its own.
    Login,
}

/// What authenticated users may send as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SenderCheck {
    /// Reverse-path and `From` must be the user's own.
    #[default]
    Full,
    /// The reverse-path must be the user's own.
    Envelope,
    /// Anything.
    Off,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            users_file: None,
            mechanisms: vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login],
            require_tls: true,
            sender_check: SenderCheck::default(),
            failures: 10,
            max_delay: Duration::from_secs(5),
            verifications: 2,
            waiting: 100,
        }
    }
}

impl AuthConfig {
    /// What serde can't say: among it, whether the users file can be used.
    pub fn validate(&self) -> Vec<Problem> {
        let zero = [
            ("failures", self.failures == 0),
            ("verifications", self.verifications == 0),
            ("waiting", self.waiting == 0),
        ];
        let zero = zero.into_iter().filter(|(_, is_zero)| *is_zero);
        let mut problems: Vec<_> =
            zero.map(|(key, _)| Problem::new(key, "0 would refuse everybody: give at least 1")).collect();
        if self.mechanisms.is_empty() {
            let message = "nobody can authenticate without a mechanism: give one, or no users_file";
            problems.push(Problem::new("mechanisms", message));
        }
        for (n, mechanism) in self.mechanisms.iter().enumerate() {
            if self.mechanisms.iter().take(n).any(|other| other == mechanism) {
                problems
                    .push(Problem::new(format!("mechanisms[{n}]"), format!("{mechanism} is there already")));
            }
        }
        if let Some(file) = &self.users_file
            && let Err(errors) = Users::read(file)
        {
            problems.extend(errors.iter().map(|error| Problem::new("users_file", error.to_string())));
        }
        problems
    }
}

impl Mechanism {
    /// The mechanism of this name (RFC 4422 §3.1; in any case, as all of SMTP's words).
    pub(in super::super) fn parse(name: &[u8]) -> Option<Self> {
        let all = [Self::ScramSha256, Self::Plain, Self::Login];
        all.into_iter().find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// The name in the IANA registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
