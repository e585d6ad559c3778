use std::time::Duration;

use empath_common::{Domain, Mailbox, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How senders are told about messages that could not be delivered (RFC 3464).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DsnConfig {
    /// Whether the sender of a message that fails for good is told, and of one that arrives if he asked for that.
    ///
    /// RFC 5321 §6.1 demands it; without, mail disappears with a log line only, and clients are not offered DSN (RFC 3461).
    /// Default: `true`.
    pub enabled: bool,
    /// The sender is told once that a message takes long, after this time in the queue; `None` tells nobody.
    ///
    /// It acts on time, not at the next attempt, and not for recipients about whom the sender asked to hear of other things
    /// only (NOTIFY, RFC 3461 §4.1). It has no effect at or after `delivery.retry.expire_after`. Default: `"4h"`.
    #[serde(with = "humantime_serde::option")]
    #[schemars(with = "Option<String>")]
    pub delay_after: Option<Duration>,
    /// The name of this host in `Reporting-MTA` and in the Message-ID. Default: `hostname`.
    pub reporting_mta: Option<Domain>,
    /// Who the messages come from, in their `From` field; answers by people go there.
    ///
    /// Their reverse-path is always null (RFC 5321 §4.5.5). One that cannot be delivered comes here once; without this key it
    /// is dropped, with a line in the log. Default: `MAILER-DAEMON` at `reporting_mta`, where nothing is sent.
    #[schemars(with = "Option<String>")]
    pub postmaster: Option<Mailbox>,
}

impl Default for DsnConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            delay_after: Some(Duration::from_hours(4)),
            reporting_mta: None,
            postmaster: None,
        }
    }
}

impl DsnConfig {
    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let checks = [
            (self.delay_after.is_some_and(|after| after.is_zero()), "delay_after", NO_DELAY),
            // The field would need UTF-8 headers, which not every sender's host takes.
            (
                self.postmaster.as_ref().is_some_and(Mailbox::needs_utf8),
                "postmaster",
                "must be an ASCII address",
            ),
        ];
        let wrong = checks.into_iter().filter(|(wrong, ..)| *wrong);
        wrong.map(|(_, key, message)| Problem::new(key, message)).collect()
    }
}

const NO_DELAY: &str = "every message would be reported as late; give at least \"1s\", or None";
