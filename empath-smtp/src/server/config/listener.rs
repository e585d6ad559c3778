use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use empath_common::{ByteSize, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Network;

/// One address that clients connect to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// The address and port to listen on.
    ///
    /// `[::]:25` takes IPv4 clients as well as IPv6 ones. Port 0 takes a free one. Default: `"[::]:25"`.
    #[schemars(with = "String")]
    pub socket: SocketAddr,
    /// Who is to connect here: other servers, or users with their mail programs.
    ///
    /// Default: `Relay`.
    pub mode: Mode,
    /// Names and values that hooks see with every session of this listener.
    ///
    /// Default: `{}`.
    pub context: BTreeMap<String, String>,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Load balancers, as addresses or in CIDR notation, that say with the PROXY protocol (version 1 or 2) for whom
    /// they speak.
    ///
    /// They must do so first of all, within `timeouts.handshake`, and are believed; others must not
    /// (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Default: `[]`.
    #[schemars(with = "Vec<String>")]
    pub proxy_protocol: Vec<Network>,
}

/// Who is to connect to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Other servers (port 25), with STARTTLS where certificates are configured.
    #[default]
    Relay,
    /// Users (port 587, RFC 6409). They authenticate before they send anything, and use STARTTLS before that.
    Submission,
    /// Users, with TLS from the first octet (port 465, RFC 8314 §3.3).
    Submissions,
}

/// How long clients may take (RFC 5321 §4.5.3.2). Who takes longer is answered 421 4.4.2, and the connection closed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// A TLS handshake; and the header of the PROXY protocol.
    ///
    /// After that the connection is closed without an answer. Default: `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub handshake: Duration,
    /// From our reply to the end of the next command.
    ///
    /// RFC 5321 §4.5.3.2.7 asks for at least five minutes. It bounds the sending of a reply too. Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub command: Duration,
    /// From 354 to the first octets of content.
    ///
    /// Default: `"2m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data_init: Duration,
    /// From one block of content to the next; and how long a client may be behind `content_rate`.
    ///
    /// Default: `"3m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data_block: Duration,
    /// Octets of content a second that a client must send in the long run.
    ///
    /// While we wait for content, `data_block` runs down; each octet that comes gives back its part of a second, up to
    /// the whole. So a client that is faster may pause for all of `data_block` at any time, and one that sends an octet
    /// now and then to keep the session is sent away after little more than `data_block`. The time between the chunks of
    /// a message (BDAT) counts, and so do the octets of their commands. `0` is no minimum. Default: `"100B"`.
    #[schemars(with = "String")]
    pub content_rate: ByteSize,
    /// From the end of the content until it is stored.
    ///
    /// After that the connection is closed without an answer, for neither 250 nor 4yz would be known to be true;
    /// the client tries again later. RFC 5321 §4.5.3.2.6 lets clients wait ten minutes. Default: `"10m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data_termination: Duration,
    /// The whole session. A message that is being stored at that moment still gets its answer.
    ///
    /// Default: `"30m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connection: Duration,
}

impl Mode {
    /// Whether clients are users, who must authenticate before they send (RFC 6409 §4.3).
    pub fn is_submission(self) -> bool {
        matches!(self, Self::Submission | Self::Submissions)
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            socket: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25)),
            mode: Mode::default(),
            context: BTreeMap::new(),
            timeouts: Timeouts::default(),
            proxy_protocol: Vec::new(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = Duration::from_mins;
        Self {
            handshake: Duration::from_secs(30),
            command: minutes(5),
            data_init: minutes(2),
            data_block: minutes(3),
            content_rate: ByteSize(100),
            data_termination: minutes(10),
            connection: minutes(30),
        }
    }
}

impl Timeouts {
    pub(super) fn validate(&self) -> Vec<Problem> {
        let all = [
            ("handshake", self.handshake),
            ("command", self.command),
            ("data_init", self.data_init),
            ("data_block", self.data_block),
            ("data_termination", self.data_termination),
            ("connection", self.connection),
        ];
        let zero = all.into_iter().filter(|(_, timeout)| timeout.is_zero());
        zero.map(|(key, _)| Problem::new(key, "no client is that fast: give more than 0s")).collect()
    }
}
