use jiff::Timestamp;

use super::{
    super::{Limits, Network, future_release, xclient},
    Session, Speaker,
};

impl Session {
    /// What EHLO offers: the extensions that work for this client at this moment, and no others.
    pub(super) fn keywords(&self, now: Timestamp) -> Vec<String> {
        let Limits { message_size, messages_per_connection, recipients, .. } = &self.settings.limits;
        let always = [
            "PIPELINING",
            &format!("SIZE {}", message_size.0),
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
        ];
        let mut keywords = always.map(str::to_owned).to_vec();
        if self.settings.dsn {
            keywords.push("DSN".to_owned());
        }
        let messages = limit("MAILMAX", u64::from(*messages_per_connection));
        let limits = [messages, limit("RCPTMAX", *recipients as u64)].concat();
        if !limits.is_empty() {
            keywords.push(format!("LIMITS{limits}"));
        }
        if let Some(longest) = self.longest_wait() {
            keywords.push(future_release::keyword(longest, now));
        }
        // Any command that RFC 5321 §4.5.1 does not ask for is an extension.
        keywords.extend(["HELP", "MT-PRIORITY", "SMTPUTF8"].map(str::to_owned));
        if self.offers_starttls() {
            keywords.push("STARTTLS".to_owned());
        }
        if self.offers_auth() {
            let mechanisms = self.settings.auth.mechanisms.iter().map(|mechanism| format!(" {mechanism}"));
            keywords.push(mechanisms.fold("AUTH".to_owned(), |keyword, mechanism| keyword + &mechanism));
        }
        if self.speaker == Speaker::Proxy {
            keywords.push(xclient::KEYWORD.to_owned());
        }
        keywords
    }

    /// Whether the client may choose when its messages are sent: RFC 4865 is for submission. Where users must authenticate it
    /// is offered before they do.
    pub(super) fn may_schedule(&self) -> bool {
        self.mode.is_submission() || self.is_trusted()
    }

    /// Whether the client is one of ours.
    pub(super) fn is_trusted(&self) -> bool {
        let is_near = || Network::any(&self.settings.relay_networks, self.client.peer.ip());
        self.client.user.is_some() || (!self.mode.is_submission() && is_near())
    }

    /// Whether AUTH would work.
    fn offers_auth(&self) -> bool {
        let auth = &self.settings.auth;
        auth.users_file.is_some()
            && self.client.user.is_none()
            && (self.client.tls.is_some() || !auth.require_tls)
    }

    /// Whether STARTTLS would work.
    pub(super) fn offers_starttls(&self) -> bool {
        self.settings.starttls && self.client.tls.is_none()
    }
}

/// A limit as LIMITS says it (RFC 9422 §4): of six digits at most, and not 0.
fn limit(name: &str, value: u64) -> String {
    if (1..1_000_000).contains(&value) { format!(" {name}={value}") } else { String::new() }
}
