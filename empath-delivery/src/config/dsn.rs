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
    /// The name of this host in `Reporting-MTA` and in the Message-ID. Default: `hostname`.
    pub reporting_mta: Option<Domain>,
    /// Who the messages come from, in their `From` field; answers by people go there.
    ///
    /// Their reverse-path is always null (RFC 5321 §4.5.5). Default: `MAILER-DAEMON` at `reporting_mta`.
    #[schemars(with = "Option<String>")]
    pub postmaster: Option<Mailbox>,
}

impl Default for DsnConfig {
    fn default() -> Self {
        Self { enabled: true, reporting_mta: None, postmaster: None }
    }
}

impl DsnConfig {
    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        match &self.postmaster {
            // The field would need UTF-8 headers, which not every sender's host takes.
            Some(postmaster) if postmaster.needs_utf8() => {
                vec![Problem::new("postmaster", "must be an ASCII address")]
            }
            _ => Vec::new(),
        }
    }
}
