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
        if self.offers_auth() {
            let mechanisms = self.settings.auth.mechanisms.iter().map(|mechanism| format!(" {mechanism}"));
            keywords.push(mechanisms.fold("AUTH".to_owned(), |keyword, mechanism| keyword + &mechanism));
        }
        if self.speaker == Speaker::Proxy {
            keywords.push(xclient::KEYWORD.to_owned());
        }
        keywords
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
