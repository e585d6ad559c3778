use std::time::Duration;

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Stage;

/// How long to wait for a server at each step of a delivery.
///
/// The defaults are the minimums of RFC 5321 §4.5.3.2, where it has one; shorter ones give up on servers that
/// are slow and not broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Wait this long for a TCP connection.
    ///
    /// A host that doesn't answer costs each attempt this much before the next host is tried. Default: `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connect: Duration,
    /// Wait this long for the server's greeting.
    ///
    /// Many servers accept the connection at once and greet only when their load permits it (RFC 5321
    /// §4.5.3.2.1). Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub greeting: Duration,
    /// Wait this long for the reply to EHLO or HELO, to LHLO, and to each step of AUTH.
    ///
    /// Servers that look our name up before they answer are slow here. Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ehlo: Duration,
    /// Wait this long for the reply to STARTTLS, and as long again for the handshake.
    ///
    /// Where encryption is not required, a server that is slower is tried again in clear text. Default: `"2m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub starttls: Duration,
    /// Wait this long for the reply to MAIL.
    ///
    /// An idle connection that shows no sign of life for 10 seconds is replaced by a fresh one, which has all this time (RFC
    /// 5321 §4.5.3.2.2). Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub mail_from: Duration,
    /// Wait this long for the reply to each RCPT.
    ///
    /// Longer where the server expands mailing lists before it answers (RFC 5321 §4.5.3.2.3). Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub rcpt_to: Duration,
    /// Wait this long for the reply to DATA.
    ///
    /// RFC 5321 §4.5.3.2.4. Default: `"2m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data: Duration,
    /// Wait this long for the server to take more of the content.
    ///
    /// It counts from the last octets that were taken, so a slow line is no failure (RFC 5321 §4.5.3.2.5).
    /// Default: `"3m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data_block: Duration,
    /// Wait this long for the reply to the end of the content.
    ///
    /// Giving up while the server still processes the message makes it arrive twice (RFC 5321 §4.5.3.2.6).
    /// Default: `"10m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data_termination: Duration,
    /// Give up on a server that has not taken a message after this long, and a second more for each 16 KiB of it.
    ///
    /// The steps above each begin anew with every reply and with every octet that is taken; without this, a server could hold a
    /// connection for days. It runs from MAIL to the end of the content; the reply to that has
    /// `data_termination`. Default: `"1h"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub transaction: Duration,
    /// Wait this long for the reply to QUIT, and to RSET after a refused message.
    ///
    /// No message depends on either. Default: `"10s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub quit: Duration,
}

/// Octets a second that every server must take, once its time is up.
const RATE: u64 = 16 * 1024;

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_mins(1);
        Self {
            connect: Duration::from_secs(30),
            greeting: 5 * MINUTE,
            ehlo: 5 * MINUTE,
            starttls: 2 * MINUTE,
            mail_from: 5 * MINUTE,
            rcpt_to: 5 * MINUTE,
            data: 2 * MINUTE,
            data_block: 3 * MINUTE,
            data_termination: 10 * MINUTE,
            transaction: 60 * MINUTE,
            quit: Duration::from_secs(10),
        }
    }
}

impl Timeouts {
    /// How long the reply may take at this stage; within the content, each write.
    pub(super) fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Connect => self.connect,
            Stage::Greeting => self.greeting,
            Stage::Ehlo | Stage::EhloAgain | Stage::Lhlo | Stage::Auth => self.ehlo,
            Stage::StartTls | Stage::Handshake => self.starttls,
            Stage::MailFrom => self.mail_from,
            Stage::RcptTo => self.rcpt_to,
            Stage::Data => self.data,
            Stage::Content => self.data_block,
            Stage::EndOfData => self.data_termination,
            Stage::Rset => self.quit,
        }
    }

    /// How long a transaction with so many octets of content may take, until they are written.
    pub(super) fn of_transaction(&self, octets: u64) -> Duration {
        self.transaction.saturating_add(Duration::from_secs(octets / RATE))
    }

    /// What is wrong with the values: none of them may be zero.
    pub fn validate(&self) -> Vec<Problem> {
        let all = [
            ("connect", self.connect),
            ("greeting", self.greeting),
            ("ehlo", self.ehlo),
            ("starttls", self.starttls),
            ("mail_from", self.mail_from),
            ("rcpt_to", self.rcpt_to),
            ("data", self.data),
            ("data_block", self.data_block),
            ("data_termination", self.data_termination),
            ("transaction", self.transaction),
            ("quit", self.quit),
        ];
        all.into_iter()
            .filter(|(_, timeout)| timeout.is_zero())
            .map(|(key, _)| Problem::new(key, "a timeout of zero fails every delivery; give at least \"1s\""))
            .collect()
    }
}
