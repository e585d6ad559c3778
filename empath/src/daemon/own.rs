//! Our own addresses, at which an MX list is cut (RFC 5321 §5.1).

use std::net::{IpAddr, SocketAddr};

use tracing::warn;

/// The addresses that listeners are bound to; those of the machine's interfaces for a wildcard listener.
pub(super) fn addresses(bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let wildcards = bound.iter().any(|address| address.ip().is_unspecified());
    let interfaces = if wildcards { interfaces() } else { Vec::new() };
    expand(bound, &interfaces)
}

fn expand(bound: &[SocketAddr], interfaces: &[IpAddr]) -> Vec<SocketAddr> {
    let mut own = Vec::new();
    for address in bound {
        if address.ip().is_unspecified() {
            // `[::]` takes IPv4 clients too; `0.0.0.0` takes nothing else.
            let reached = interfaces.iter().filter(|ip| address.is_ipv6() || ip.is_ipv4());
            own.extend(reached.map(|ip| SocketAddr::new(*ip, address.port())));
        } else {
            own.push(SocketAddr::new(address.ip().to_canonical(), address.port()));
        }
    }
    own
}

fn interfaces() -> Vec<IpAddr> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().map(if_addrs::Interface::ip).collect(),
        Err(failure) => {
            warn!(error = %failure, "the addresses of this machine are unknown: mail loops to them are not noticed");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_listener_is_reached_at_the_addresses_of_every_interface() {
        let interfaces: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.1", "2001:db8::1"].iter().map(|ip| ip.parse().unwrap()).collect();
        let table: [(&[&str], &[&str]); 4] = [
            (&["[::]:25"], &["127.0.0.1:25", "192.0.2.1:25", "[2001:db8::1]:25"]),
            (&["0.0.0.0:25"], &["127.0.0.1:25", "192.0.2.1:25"]),
            (&["127.0.0.1:1025", "[::1]:1025"], &["127.0.0.1:1025", "[::1]:1025"]),
            (&["[::ffff:192.0.2.7]:25"], &["192.0.2.7:25"]),
        ];
        for (bound, expected) in table {
            let bound: Vec<SocketAddr> = bound.iter().map(|address| address.parse().unwrap()).collect();
            let own: Vec<String> = expand(&bound, &interfaces).iter().map(ToString::to_string).collect();
            assert_eq!(own, expected);
        }
    }
}
