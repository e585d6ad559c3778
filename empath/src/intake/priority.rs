//! How urgent a message is: MT-PRIORITY says it, or else a header field, if the client may.

use empath_common::{Client, Envelope, Priority};
use empath_smtp::server::Network;
use empath_spool::Content;

/// Whose field counts, and how it is called.
pub struct Priorities {
    /// The name of the field; `None`: every message is normal.
    pub header: Option<String>,
    /// Clients from here count, and those that have authenticated.
    pub networks: Vec<Network>,
}

impl Priorities {
    /// As the configuration says.
    pub fn new(delivery: &empath_delivery::Config, smtp: &empath_smtp::server::Config) -> Self {
        Self { header: delivery.priority_header.clone(), networks: smtp.relay_networks.clone() }
    }

    /// What the client said at MAIL, which the session has looked at, or what the content says. Content that cannot be read
    /// says nothing here: delivery will tell.
    pub(super) async fn of(&self, envelope: &Envelope, content: &Content, client: &Client) -> Priority {
        if let Some(priority) = envelope.mt_priority {
            return priority.class();
        }
        let Some(name) = &self.header else {
            return Priority::default();
        };
        if client.user.is_none() && !Network::any(&self.networks, client.peer.ip()) {
            return Priority::default();
        }
        let header = empath_delivery::header(content).await.unwrap_or_default();
        value(&header, name.as_bytes()).and_then(Priority::parse).unwrap_or_default()
    }
}

/// The value of the first field with this name.
fn value<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    header.split(|octet| *octet == b'\n').find_map(|line| {
        let (start, rest) = line.split_at_checked(name.len())?;
        // RFC 5322 §4.5: there may be space before the colon.
        let value = rest.trim_ascii_start().strip_prefix(b":")?;
        start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use empath_common::{ForwardPath, MtPriority, ReversePath};

    use super::*;

    fn client(peer: &str, user: Option<&str>) -> Client {
        Client {
            peer: peer.parse().unwrap(),
            local: "192.0.2.25:25".parse().unwrap(),
            name: None,
            helo: None,
            user: user.map(Into::into),
            tls: None,
            context: Arc::default(),
        }
    }

    fn priorities(header: Option<&str>) -> Priorities {
        Priorities { header: header.map(ToOwned::to_owned), networks: vec!["127.0.0.0/8".parse().unwrap()] }
    }

    fn envelope() -> Envelope {
        Envelope::new(ReversePath::Null, ForwardPath::Postmaster)
    }

    async fn of(priorities: &Priorities, content: &str, client: &Client) -> Priority {
        priorities.of(&envelope(), &Bytes::copy_from_slice(content.as_bytes()).into(), client).await
    }

    #[tokio::test]
    async fn what_was_said_at_mail_counts_more_than_the_header() {
        let (priorities, trusted) = (priorities(Some("X-Empath-Priority")), client("127.0.0.1:1", None));
        let content = Bytes::from_static(b"X-Empath-Priority: critical\r\n\r\n").into();
        for (number, class) in [(9, Priority::Critical), (0, Priority::Normal), (-4, Priority::Low)] {
            let mut envelope = envelope();
            envelope.mt_priority = MtPriority::new(number);
            assert_eq!(priorities.of(&envelope, &content, &trusted).await, class, "{number}");
        }
    }

    #[tokio::test]
    async fn the_first_field_of_the_name_counts_in_the_header_alone() {
        let (priorities, trusted) = (priorities(Some("X-Empath-Priority")), client("127.0.0.1:1", None));
        for (content, expected) in [
            ("X-Empath-Priority: bulk\r\n\r\n", Priority::Bulk),
            ("Subject: x\r\nx-empath-priority :\tHIGH \r\n\r\n", Priority::High),
            ("X-Empath-Priority: low\r\nX-Empath-Priority: high\r\n\r\n", Priority::Low),
            ("X-Empath-Priority:\r\n critical\r\n\r\n", Priority::Normal),
            ("X-Empath-Priority: urgent\r\n\r\n", Priority::Normal),
            ("X-Empath-Priority-2: bulk\r\n\r\n", Priority::Normal),
            ("Subject: x\r\n\r\nX-Empath-Priority: bulk\r\n", Priority::Normal),
            ("\r\nX-Empath-Priority: bulk\r\n", Priority::Normal),
            ("X", Priority::Normal),
        ] {
            assert_eq!(of(&priorities, content, &trusted).await, expected, "{content}");
        }
    }

    #[tokio::test]
    async fn only_our_own_clients_are_believed_and_only_where_it_is_configured() {
        let content = "X-Empath-Priority: critical\r\n\r\n";
        let configured = priorities(Some("X-Empath-Priority"));
        for (client, expected) in [
            (client("127.0.0.9:1", None), Priority::Critical),
            (client("192.0.2.1:1", Some("alice")), Priority::Critical),
            (client("192.0.2.1:1", None), Priority::Normal),
        ] {
            assert_eq!(of(&configured, content, &client).await, expected, "{client:?}");
            assert_eq!(of(&priorities(None), content, &client).await, Priority::Normal);
            assert_eq!(of(&priorities(Some("Priority")), content, &client).await, Priority::Normal);
        }
    }
}
