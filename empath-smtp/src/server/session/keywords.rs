use super::{super::xclient, Session, Speaker};

impl Session {
    /// What EHLO offers: the extensions that work for this client at this moment, and no others.
    pub(super) fn keywords(&self) -> Vec<String> {
        let size = format!("SIZE {}", self.settings.limits.message_size.0);
        let always = ["PIPELINING", &size, "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"];
        let mut keywords = always.map(str::to_owned).to_vec();
        if self.offers_starttls() {
            keywords.push("STARTTLS".to_owned());
        }
        if self.speaker == Speaker::Proxy {
            keywords.push(xclient::KEYWORD.to_owned());
        }
        keywords
    }

    /// Whether STARTTLS would work.
    pub(super) fn offers_starttls(&self) -> bool {
        self.settings.starttls && self.client.tls.is_none()
    }
}
