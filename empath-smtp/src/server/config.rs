use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use empath_common::{Domain, Problem};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Limits;

/// The receiving of mail over SMTP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    ///
    /// Default: one listener with its own defaults.
    pub listeners: Vec<ListenerConfig>,
    /// Networks whose clients may send to anybody, in CIDR notation.
    ///
    /// An IPv4 client that arrives over an IPv6 socket counts as IPv4. Default: `["127.0.0.0/8", "::1/128"]`.
    #[schemars(with = "Vec<String>")]
    pub relay_networks: Vec<IpNet>,
    /// Domains for which mail is accepted from anyone, to be relayed on.
    ///
    /// Only the domain itself counts, not names below it. Default: `[]`.
    pub relay_domains: Vec<Domain>,
    /// Domains for which mail is accepted from anyone, to be delivered here.
    ///
    /// Only the domain itself counts, not names below it. Default: `[]`.
    pub local_domains: Vec<Domain>,
    /// How much of anything a client may use.
    pub limits: Limits,
    /// What becomes of a message with a CR or LF that is not part of a CRLF.
    ///
    /// Neither value lets such an octet end the content or reach the next hop (RFC 5321 §2.3.8, §4.1.1.4).
    /// Default: `Reject`.
    pub bare_newlines: BareNewlines,
}

/// One address that clients connect to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// The address and port to listen on.
    ///
    /// `[::]:25` takes IPv4 clients as well as IPv6 ones. Port 0 takes a free one. Default: `"[::]:25"`.
    #[schemars(with = "String")]
    pub socket: SocketAddr,
    /// Names and values that hooks see with every session of this listener.
    ///
    /// Default: `{}`.
    pub context: BTreeMap<String, String>,
    /// How long clients may take.
    pub timeouts: Timeouts,
}

/// How long clients may take (RFC 5321 §4.5.3.2). Who takes longer is answered 421 4.4.2, and the connection closed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
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
    /// From one block of content to the next.
    ///
    /// Default: `"3m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub data_block: Duration,
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

/// What becomes of a message with a CR or LF that is not part of a CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum BareNewlines {
    /// The message is refused with 550 5.6.11.
    #[default]
    Reject,
    /// Each becomes a CRLF of the content.
    Normalize,
}

impl Default for Config {
    fn default() -> Self {
        let loopback =
            [IpNet::new_assert([127, 0, 0, 0].into(), 8), IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))];
        Self {
            listeners: vec![ListenerConfig::default()],
            relay_networks: loopback.to_vec(),
            relay_domains: Vec::new(),
            local_domains: Vec::new(),
            limits: Limits::default(),
            bare_newlines: BareNewlines::default(),
        }
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            socket: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25)),
            context: BTreeMap::new(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = Duration::from_mins;
        Self {
            command: minutes(5),
            data_init: minutes(2),
            data_block: minutes(3),
            data_termination: minutes(10),
            connection: minutes(30),
        }
    }
}

impl Config {
    /// What serde can't say.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        for (i, listener) in self.listeners.iter().enumerate() {
            let place = format!("listeners[{i}]");
            if listener.socket.port() != 0 && !seen.insert(listener.socket) {
                let message = format!("{} is listened on twice: remove one", listener.socket);
                problems.push(Problem::new("socket", message).within(&place));
            }
            let timeouts = listener.timeouts.validate().into_iter();
            problems.extend(timeouts.map(|problem| problem.within("timeouts").within(&place)));
        }
        problems.extend(self.limits.validate().into_iter().map(|problem| problem.within("limits")));
        problems
    }
}

impl Timeouts {
    fn validate(&self) -> Vec<Problem> {
        let all = [
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
