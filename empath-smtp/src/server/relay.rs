use std::{collections::HashSet, net::IpAddr};

use super::{Config, Network, reply};
use empath_common::{Answer, Asked, Client, Domain, ForwardPath, Hook, Query, Verdict};

/// Decides for whom we take mail: the first of the hooks, closed by default.
///
/// Authenticated users and clients in `relay_networks` may send to anybody; anybody may send to `relay_domains`, `local_domains` and the
/// bare `<Postmaster>` (RFC 5321 §4.5.1). Nothing else is accepted.
#[derive(Debug)]
pub struct RelayControl {
    networks: Vec<Network>,
    domains: HashSet<Domain>,
}

impl RelayControl {
    /// The relay control that the configuration asks for.
    pub fn new(config: &Config) -> Self {
        Self {
            networks: config.relay_networks.clone(),
            domains: config.relay_domains.iter().chain(&config.local_domains).cloned().collect(),
        }
    }

    fn accepts(&self, client: &Client, recipient: &ForwardPath) -> bool {
        client.user.is_some() || self.trusts(client.peer.ip()) || self.is_ours(recipient)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        Network::any(&self.networks, address)
    }

    /// Whether anybody may send to this recipient. What stands behind the last `@` decides.
    fn is_ours(&self, recipient: &ForwardPath) -> bool {
        let ForwardPath::Mailbox(mailbox) = recipient else {
            return true;
        };
        // A host behind us might take these for routes to somewhere else (`user%elsewhere@here`, `elsewhere!user`).
        let is_route = mailbox.local_part().contains(['%', '!', '@']);
        !is_route && mailbox.domain().is_some_and(|domain| self.domains.contains(domain))
    }
}

impl Hook for RelayControl {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        let verdict = match query {
            Query::RcptTo(client, _, recipient) if !self.accepts(client, recipient) => {
                Verdict::Refuse(reply::RELAYING_DENIED)
            }
            _ => Verdict::Accept,
        };
        Asked::Now(Answer::from(verdict))
    }
}

#[cfg(test)]
mod tests {
    use empath_common::ReversePath;

    use super::*;

    fn accepts(networks: &[&str], peer: &str, recipient: &str) -> bool {
        let control = RelayControl::new(&Config {
            relay_networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            relay_domains: vec![Domain::parse("relay.test").unwrap()],
            local_domains: vec![Domain::parse("local.test").unwrap()],
            ..Config::default()
        });
        let peer = (peer.parse::<IpAddr>().unwrap(), 1).into();
        let client = Client::new(peer, "192.0.2.25:25".parse().unwrap());
        let recipient = recipient.parse().unwrap();
        match control.ask(Query::RcptTo(&client, &ReversePath::Null, &recipient)) {
            Asked::Now(answer) => answer.verdict == Verdict::Accept,
            Asked::Later(_) => panic!("relay control needs nobody else"),
        }
    }

    #[test]
    fn the_edges_of_trusted_networks_are_exact() {
        let networks = ["192.0.2.64/26", "2001:db8:1::/48"];
        for (peer, trusted) in [
            ("192.0.2.63", false),
            ("192.0.2.64", true),
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("::ffff:192.0.2.64", true),
            ("::ffff:192.0.2.128", false),
            ("::192.0.2.64", false),
            ("2001:db8:0:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8:1::", true),
            ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:2::", false),
        ] {
            assert_eq!(accepts(&networks, peer, "<a@elsewhere.test>"), trusted, "{peer}");
        }
    }

    #[test]
    fn a_mapped_network_trusts_ipv4_clients() {
        assert!(accepts(&["::ffff:192.0.2.0/120"], "192.0.2.1", "<a@elsewhere.test>"));
        assert!(!accepts(&["::ffff:192.0.2.0/120"], "192.0.3.1", "<a@elsewhere.test>"));
    }

    #[test]
    fn outsiders_reach_our_domains_and_postmaster_only_whatever_the_syntax() {
        for (recipient, accepted) in [
            ("<a@relay.test>", true),
            ("<a@LOCAL.test>", true),
            ("<Postmaster>", true),
            ("<@elsewhere.test:a@local.test>", true),
            ("<a@elsewhere.test>", false),
            ("<a@sub.local.test>", false),
            ("<a@notlocal.test>", false),
            ("<@local.test:a@elsewhere.test>", false),
            ("<a%elsewhere.test@local.test>", false),
            ("<elsewhere.test!a@local.test>", false),
            ("<\"a@elsewhere.test\"@local.test>", false),
            ("<\"a@elsewhere.test\"@[192.0.2.25]>", false),
            ("<a@[192.0.2.25]>", false),
        ] {
            assert_eq!(accepts(&["127.0.0.0/8"], "203.0.113.9", recipient), accepted, "{recipient}");
        }
    }

    #[test]
    fn trusted_clients_reach_everybody() {
        for recipient in ["<a@elsewhere.test>", "<a%b@local.test>", "<a@[192.0.2.25]>"] {
            assert!(accepts(&["203.0.113.0/24"], "203.0.113.9", recipient), "{recipient}");
        }
    }
}
