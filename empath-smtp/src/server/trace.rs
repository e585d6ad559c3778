use std::fmt::Write as _;

use empath_common::{AddressLiteral, Client, Domain, Envelope, MessageId};
use jiff::{Timestamp, tz::TimeZone};

/// What the client greeted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HELO
    Smtp,
    /// EHLO
    Esmtp,
}

/// The `Received` field that reception adds (RFC 5321 §4.4).
///
/// Folded before each clause, so that lines stay under 78 octets unless a name itself is longer. `for` is there when
/// there is one recipient only: naming one of several would tell it to the others (RFC 5321 §7.2).
pub(super) fn received(
    client: &Client,
    protocol: Protocol,
    hostname: &Domain,
    envelope: &Envelope,
    id: MessageId,
    now: Timestamp,
) -> String {
    let with = with(client, protocol, envelope);
    let helo = client.helo.as_deref().unwrap_or("unknown");
    let helo: String = helo.chars().map(|c| if is_harmless(c) { c } else { '?' }).collect();
    let address = AddressLiteral(client.peer.ip());
    let name = client.name.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
    let mut field = format!("Received: from {helo} ({name}{address})\r\n\tby {hostname} with {with} id {id}");
    if let [only] = envelope.recipients() {
        // Writing to a String cannot fail.
        let _ = write!(field, "\r\n\tfor {only}");
    }
    if let Some(tls) = &client.tls {
        // RFC 8314 §4.3
        let _ = write!(field, "\r\n\ttls {} ({})", tls.cipher, tls.version);
    }
    if let Some(priority) = envelope.mt_priority {
        // RFC 6710 registers the clause.
        let _ = write!(field, "\r\n\tpriority {priority}");
    }
    let date = date(now);
    let _ = write!(field, ";\r\n\t{date}\r\n");
    field
}

/// A date as header fields have it (RFC 5322 §3.3).
pub(super) fn date(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

/// The `with` clause (RFC 3848, RFC 6531 §4.3).
fn with(client: &Client, protocol: Protocol, envelope: &Envelope) -> &'static str {
    if protocol == Protocol::Smtp {
        return "SMTP";
    }
    match (envelope.smtputf8, client.tls.is_some(), client.user.is_some()) {
        (false, false, false) => "ESMTP",
        (false, true, false) => "ESMTPS",
        (false, false, true) => "ESMTPA",
        (false, true, true) => "ESMTPSA",
        (true, false, false) => "UTF8SMTP",
        (true, true, false) => "UTF8SMTPS",
        (true, false, true) => "UTF8SMTPA",
        (true, true, true) => "UTF8SMTPSA",
    }
}

/// Whether a character of what the client called itself means nothing in a structured field.
fn is_harmless(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_:[]".contains(c)
}

#[cfg(test)]
mod tests {
    use empath_common::{ReversePath, TlsSession};

    use super::*;

    fn field(helo: &str, peer: &str, protocol: Protocol, recipients: &[&str], smtputf8: bool) -> String {
        let local = "192.0.2.25:25".parse().unwrap();
        let client = Client { helo: Some(helo.into()), ..Client::new(peer.parse().unwrap(), local) };
        field_of(&client, protocol, recipients, smtputf8)
    }

    fn field_of(client: &Client, protocol: Protocol, recipients: &[&str], smtputf8: bool) -> String {
        let mut envelope = Envelope::new(ReversePath::Null, recipients[0].parse().unwrap());
        for recipient in recipients {
            envelope.add(recipient.parse().unwrap(), 10).unwrap();
        }
        envelope.smtputf8 = smtputf8;
        let hostname = Domain::parse("mx.test").unwrap();
        let id = MessageId::from_bytes([0; 16]);
        let now = "2026-11-21T09:08:07Z".parse().unwrap();
        received(client, protocol, &hostname, &envelope, id, now)
    }

    #[test]
    fn the_field_says_from_whom_by_whom_with_what_for_whom_and_when() {
        assert_eq!(
            field("client.test", "192.0.2.1:99", Protocol::Esmtp, &["<bob@example.test>"], false),
            "Received: from client.test ([192.0.2.1])\r\n\
             \tby mx.test with ESMTP id 00000000000000000000000000\r\n\
             \tfor <bob@example.test>;\r\n\
             \tSat, 21 Nov 2026 09:08:07 +0000\r\n"
        );
    }

    #[test]
    fn several_recipients_are_not_named() {
        let field = field(
            "c.test",
            "[2001:db8::1]:9",
            Protocol::Smtp,
            &["<a@example.test>", "<b@example.test>"],
            false,
        );
        assert_eq!(
            field,
            "Received: from c.test ([IPv6:2001:db8::1])\r\n\
             \tby mx.test with SMTP id 00000000000000000000000000;\r\n\
             \tSat, 21 Nov 2026 09:08:07 +0000\r\n"
        );
    }

    #[test]
    fn smtputf8_is_said() {
        assert!(
            field("c.test", "192.0.2.1:9", Protocol::Esmtp, &["<δ@example.test>"], true)
                .contains("with UTF8SMTP id")
        );
    }

    #[test]
    fn encryption_and_authentication_are_said() {
        let tls = TlsSession { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384", certificate: None };
        let clear = Client::new("192.0.2.1:9".parse().unwrap(), "192.0.2.25:25".parse().unwrap());
        let user = Client { user: Some("u".into()), ..clear.clone() };
        let secured = Client { tls: Some(tls), ..clear.clone() };
        let both = Client { user: Some("u".into()), ..secured.clone() };
        for (client, ascii, utf8) in [
            (&clear, "ESMTP", "UTF8SMTP"),
            (&secured, "ESMTPS", "UTF8SMTPS"),
            (&user, "ESMTPA", "UTF8SMTPA"),
            (&both, "ESMTPSA", "UTF8SMTPSA"),
        ] {
            for (smtputf8, with) in [(false, ascii), (true, utf8)] {
                let field = field_of(client, Protocol::Esmtp, &["<a@example.test>"], smtputf8);
                assert!(field.contains(&format!(" with {with} id ")), "{field}");
            }
            assert!(
                field_of(client, Protocol::Smtp, &["<a@example.test>"], false).contains(" with SMTP id ")
            );
        }
        let field = field_of(&secured, Protocol::Esmtp, &["<a@example.test>"], false);
        assert!(
            field.contains("\r\n\tfor <a@example.test>\r\n\ttls TLS_AES_256_GCM_SHA384 (TLSv1.3);"),
            "{field}"
        );
    }

    #[test]
    fn what_the_client_calls_itself_cannot_break_the_field() {
        let field = field("a(b;c\"d\\e<f>", "192.0.2.1:9", Protocol::Esmtp, &["<a@example.test>"], false);
        assert!(field.starts_with("Received: from a?b?c?d?e?f? ([192.0.2.1])\r\n"), "{field}");
    }

    #[test]
    fn no_line_is_longer_than_998_octets() {
        let recipient = format!("<{}@{}>", "l".repeat(64), vec!["d".repeat(62); 3].join("."));
        let field = field(&"h".repeat(255), "[2001:db8::1]:9", Protocol::Esmtp, &[&recipient], false);
        assert!(field.lines().all(|line| line.len() <= 998));
    }
}
