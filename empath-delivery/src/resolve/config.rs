use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// Ask these name servers, for example `"127.0.0.1"`, or `"127.0.0.1:5353"` with another port than 53.
    ///
    /// They must be recursive ones. Empty asks the system's, from `/etc/resolv.conf`. A validating resolver on the
    /// same machine is the best choice for a busy server. Default: `[]`.
    #[serde(deserialize_with = "servers")]
    #[schemars(with = "Vec<String>")]
    pub servers: Vec<SocketAddr>,
    /// Wait this long for an answer before asking again.
    ///
    /// A lookup as a whole ends after `attempts` times as long. Default: `"5s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Ask this many times before giving up until the next attempt of the message.
    ///
    /// Default: `2`.
    pub attempts: usize,
    /// Remember this many answers.
    ///
    /// The answers go first that were not asked for the longest. 0 remembers none. Default: `10000`.
    pub cache_size: u64,
    /// Remember an answer for at least this long, whatever its time to live.
    ///
    /// Negative answers too. It spares the name servers of domains with tiny times to live; a change there is
    /// noticed this much later. Failures to answer are remembered for 5 seconds. Default: `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub min_ttl: Duration,
    /// Remember an answer for at most this long, whatever its time to live.
    ///
    /// Default: `"1h"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_ttl: Duration,
    /// Whether mail is delivered to private addresses that DNS or an address literal names.
    ///
    /// Anybody can publish an MX host with the address of a machine inside your network. Addresses in
    /// `mx_override` are your own choice and not affected. Default: `Allow`.
    pub private_addresses: PrivateAddresses,
    /// Which addresses of a host are contacted, the preferred family first.
    ///
    /// They are tried in turn, beginning with the first family. On a machine without IPv6, or whose IPv6 address has a
    /// bad name elsewhere, give `[Ipv4]`; mail for hosts that have other addresses only waits then. Addresses in
    /// `mx_override` are not affected. Default: `[Ipv6, Ipv4]`.
    pub address_families: Vec<AddressFamily>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressFamily {
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

impl AddressFamily {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let server = |text: &String| {
        let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        address.map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no name server: give its address, as in \"192.0.2.53\" or \"[2001:db8::53]:5353\""
            ))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(server).collect()
}

/// What is done with private addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PrivateAddresses {
    /// They are contacted like any other.
    #[default]
    Allow,
    /// Loopback, private (RFC 1918, RFC 4193) and link-local ones are never contacted.
    Refuse,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            cache_size: 10_000,
            min_ttl: Duration::from_secs(30),
            max_ttl: Duration::from_hours(1),
            private_addresses: PrivateAddresses::Allow,
            address_families: vec![AddressFamily::Ipv6, AddressFamily::Ipv4],
        }
    }
}

impl DnsConfig {
    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.timeout.is_zero() {
            problems
                .push(Problem::new("timeout", "a timeout of zero fails every lookup; give at least \"1s\""));
        }
        if self.attempts == 0 {
            problems
                .push(Problem::new("attempts", "nothing is ever looked up with 0 attempts; give at least 1"));
        }
        if self.max_ttl < self.min_ttl {
            problems.push(Problem::new("max_ttl", "is less than `min_ttl`; give at least as much"));
        }
        match self.address_families.as_slice() {
            [] => problems
                .push(Problem::new("address_families", "no host could be contacted; give one or both")),
            [_] => {}
            [first, second] if first != second => {}
            _ => problems.push(Problem::new("address_families", "a family stands here once")),
        }
        for (number, server) in self.servers.iter().enumerate() {
            if server.port() == 0 || server.ip().is_unspecified() {
                let key = format!("servers[{number}]");
                problems.push(Problem::new(
                    key,
                    "a name server has an address, as in \"127.0.0.1\", and no port 0",
                ));
            }
        }
        problems
    }
}

impl PrivateAddresses {
    /// Whether this address is contacted. Unspecified, multicast and broadcast addresses never are.
    pub(crate) fn allow(self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                // 0.0.0.0/8 is this machine, 240.0.0.0/4 is reserved and has the broadcast address (RFC 6890 §2.2.2).
                let never = v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4.is_multicast();
                !never && (self == Self::Allow || !is_private_v4(v4))
            }
            IpAddr::V6(v6) => {
                let never = v6.is_unspecified() || v6.is_multicast();
                !never && (self == Self::Allow || !is_private_v6(v6))
            }
        }
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    v4.is_loopback() || v4.is_private() || v4.is_link_local()
}

fn is_private_v6(v6: Ipv6Addr) -> bool {
    v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_has_an_address_and_may_have_a_port() {
        let config = |server: &str| ron::from_str::<DnsConfig>(&format!("(servers: [{server:?}])"));
        for (text, address) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(config(text).unwrap().servers, [address.parse().unwrap()]);
        }
        for text in ["localhost", "192.0.2.53:", "[2001:db8::53]", "192.0.2.53:99999"] {
            let error = config(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}` is no name server: give its address")), "{error}");
        }
    }

    #[test]
    fn some_addresses_are_never_contacted_and_private_ones_by_choice() {
        for (address, allow, refuse) in [
            ("192.0.2.1", true, true),
            ("2001:db8::1", true, true),
            ("127.0.0.1", true, false),
            ("10.1.2.3", true, false),
            ("172.16.0.1", true, false),
            ("192.168.1.1", true, false),
            ("169.254.1.1", true, false),
            ("::1", true, false),
            ("fe80::1", true, false),
            ("fd00::1", true, false),
            ("::ffff:10.1.2.3", true, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("::", false, false),
            ("::ffff:0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("ff02::1", false, false),
            ("255.255.255.255", false, false),
        ] {
            let parsed = address.parse().unwrap();
            let both = (PrivateAddresses::Allow.allow(parsed), PrivateAddresses::Refuse.allow(parsed));
            assert_eq!(both, (allow, refuse), "{address}");
        }
    }

    #[test]
    fn values_that_can_not_work_are_problems() {
        let bad = DnsConfig {
            servers: vec!["0.0.0.0:53".parse().unwrap(), "127.0.0.1:0".parse().unwrap()],
            timeout: Duration::ZERO,
            attempts: 0,
            max_ttl: Duration::from_secs(1),
            address_families: Vec::new(),
            ..DnsConfig::default()
        };
        let keys: Vec<_> = bad.validate().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["timeout", "attempts", "max_ttl", "address_families", "servers[0]", "servers[1]"]);
        assert_eq!(DnsConfig::default().validate(), []);
        let twice = DnsConfig { address_families: vec![AddressFamily::Ipv4; 2], ..DnsConfig::default() };
        assert_eq!(twice.validate().len(), 1);
    }
}
