use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Addresses of clients: a network in CIDR notation, or one address.
///
/// An IPv4 network is the same as that network written as IPv6 (`::ffff:192.0.2.0/120`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

/// The text is neither a network nor an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network: \"192.0.2.0/24\", \"2001:db8::/32\" or an address was expected")]
pub struct NetworkError;

impl Network {
    /// The networks of this machine itself.
    pub fn loopback() -> [Self; 2] {
        [
            IpNet::new_assert([127, 0, 0, 0].into(), 8),
            IpNet::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST)),
        ]
        .map(Self)
    }

    /// The network's first address.
    pub fn addr(&self) -> IpAddr {
        self.0.network()
    }

    /// Whether the address is in one of the networks.
    pub fn any(networks: &[Self], address: IpAddr) -> bool {
        let address = address.to_canonical();
        networks.iter().any(|network| network.0.contains(&address))
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| NetworkError)?;
        if let IpNet::V6(v6) = network
            && let Some(address) = v6.addr().to_ipv4_mapped()
            && let Some(prefix) = v6.prefix_len().checked_sub(96)
            && let Ok(v4) = Ipv4Net::new(address, prefix)
        {
            return Ok(Self(v4.into()));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;
    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_in_cidr_notation_or_one_address() {
        for (text, written) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ] {
            assert_eq!(text.parse::<Network>().map(|network| network.to_string()).as_deref(), Ok(written));
        }
        for text in ["", "localhost", "192.0.2.0/33", "192.0.2", "192.0.2.1:25", "[::1]"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text:?}");
        }
    }
}
