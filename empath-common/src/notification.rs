use std::fmt;

use crate::xtext;

/// What the sender asks of reports about the whole message: `RET` and `ENVID` of MAIL (RFC 3461 §4.3, §4.4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageNotification {
    /// What of the message is to come back with a failure.
    pub ret: Option<Ret>,
    /// What the sender knows the message by.
    pub envid: Option<EnvelopeId>,
}

/// What the sender asks about one recipient: `NOTIFY` and `ORCPT` of RCPT (RFC 3461 §4.1, §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientNotification {
    /// What to tell about. Without it: failures, and delays if we like.
    pub notify: Option<Notify>,
    /// Whom the sender meant.
    pub orcpt: Option<OriginalRecipient>,
}

impl RecipientNotification {
    /// Whether the sender wants to hear that the recipient failed.
    pub fn on_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.failure)
    }

    /// Whether the sender wants to hear that the message has arrived.
    pub fn on_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// Whether the sender may hear that it takes long. Without `NOTIFY` that is up to us (RFC 3461 §4.1).
    pub fn on_delay(&self) -> bool {
        self.notify.is_none_or(|notify| notify.delay)
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.notify.is_none() && self.orcpt.is_none()
    }
}

/// `RET`: what a report about a failure contains of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

impl Ret {
    /// Parses `FULL` or `HDRS`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value.to_ascii_uppercase().as_slice() {
            b"FULL" => Some(Self::Full),
            b"HDRS" => Some(Self::Headers),
            _ => None,
        }
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// `NOTIFY`: what the sender is told about. Nothing at all is `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify {
    /// That the message was delivered, or went where no reports come from.
    pub success: bool,
    /// That it can't be delivered.
    pub failure: bool,
    /// That it takes long.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// Parses `NEVER`, or any of `SUCCESS`, `FAILURE` and `DELAY` with commas between them.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.eq_ignore_ascii_case(b"NEVER") {
            return Some(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in value.split(|octet| *octet == b',') {
            match word.to_ascii_uppercase().as_slice() {
                b"SUCCESS" => notify.success = true,
                b"FAILURE" => notify.failure = true,
                b"DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let mut words = words.iter().filter(|(asked, _)| *asked).map(|(_, word)| *word);
        f.write_str(words.next().unwrap_or("NEVER"))?;
        words.try_for_each(|word| write!(f, ",{word}"))
    }
}

/// `ENVID`: what the sender knows the message by, in xtext as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeId(Box<str>);

impl EnvelopeId {
    /// Most octets (RFC 3461 §4.4).
    pub const MAX_LEN: usize = 100;

    /// Parses xtext of printable characters (RFC 3461 §4.4).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let fits = !value.is_empty() && value.len() <= Self::MAX_LEN;
        let text = str::from_utf8(value).ok().filter(|_| fits)?;
        printable(value).map(|_| Self(text.into()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself: printable ASCII.
    pub fn decoded(&self) -> String {
        printable(self.0.as_bytes()).unwrap_or_default()
    }
}

/// `ORCPT`: whom the sender meant, an address type and an address as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRecipient(Box<str>);

impl OriginalRecipient {
    /// Most octets (RFC 3461 §4.2).
    pub const MAX_LEN: usize = 500;

    /// Parses `addr-type ";" xtext` (RFC 3461 §4.2). With the type `utf-8` any of the forms of RFC 6533 §3 may follow, UTF-8
    /// itself among them.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok().filter(|text| text.len() <= Self::MAX_LEN)?;
        let (kind, address) = text.split_once(';')?;
        let atom = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet);
        let good = if kind.eq_ignore_ascii_case("utf-8") {
            is_utf8_address(address)
        } else {
            printable(address.as_bytes()).is_some()
        };
        (good && !kind.is_empty() && kind.bytes().all(atom) && !address.is_empty()).then(|| Self(text.into()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be given only where SMTPUTF8 is spoken.
    pub fn needs_utf8(&self) -> bool {
        !self.0.is_ascii()
    }

    /// The same in ASCII: what isn't is written `\x{…}` (RFC 6533 §3).
    pub fn to_ascii(&self) -> String {
        let written =
            |c: char| if c.is_ascii() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) };
        self.0.chars().map(written).collect()
    }

    /// The address type and the address as a report names them, in printable ASCII (RFC 3461 §6.3, RFC 6533 §3).
    pub fn decoded(&self) -> (&str, String) {
        let (kind, address) = self.0.split_once(';').unwrap_or_default();
        let encoded = || self.to_ascii().split_off(kind.len() + 1);
        let plain = Some(kind).filter(|kind| !kind.eq_ignore_ascii_case("utf-8"));
        (kind, plain.and_then(|_| printable(address.as_bytes())).unwrap_or_else(encoded))
    }
}

/// The text that xtext stands for, if it is printable ASCII. Hexadecimal digits are upper-case ones only: others would
/// have to believe us.
fn printable(text: &[u8]) -> Option<String> {
    let hex = |pair: &[u8]| pair.iter().all(|octet| !octet.is_ascii_lowercase());
    let strict = text.split(|octet| *octet == b'+').skip(1).all(|rest| rest.get(..2).is_some_and(hex));
    let decoded = xtext::decode(text).filter(|_| strict)?;
    let text = String::from_utf8(decoded).ok()?;
    text.bytes().all(|octet| matches!(octet, b' '..=b'~')).then_some(text)
}

/// `utf-8-addr-xtext`, `utf-8-addr-unitext` or `utf-8-address` (RFC 6533 §3): visible characters without `+` and `=`, and `\x{…}`
/// for any other. Pairs of xtext are taken too.
fn is_utf8_address(address: &str) -> bool {
    let mut rest = address;
    while let Some(c) = rest.chars().next() {
        let behind = match c {
            '\\' => rest
                .strip_prefix("\\x{")
                .and_then(|rest| rest.split_once('}'))
                .filter(|(point, _)| is_point(point)),
            '+' => rest.split_at_checked(3).filter(|(pair, _)| printable(pair.as_bytes()).is_some()),
            '=' => None,
            '!'..='~' => rest.split_at_checked(1),
            c if c.is_ascii() || c.is_control() => None,
            c => rest.split_at_checked(c.len_utf8()),
        };
        let Some((_, behind)) = behind else {
            return false;
        };
        rest = behind;
    }
    true
}

/// A character in hexadecimal, no control among them.
fn is_point(digits: &str) -> bool {
    let upper = (2..=6).contains(&digits.len())
        && digits.bytes().all(|octet| octet.is_ascii_digit() || matches!(octet, b'A'..=b'F'));
    let character = || u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
    upper && character().is_some_and(|c| !c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_a_list() {
        for (value, written) in [
            ("NEVER", Some("NEVER")),
            ("never", Some("NEVER")),
            ("SUCCESS", Some("SUCCESS")),
            ("failure,DELAY", Some("FAILURE,DELAY")),
            ("DELAY,FAILURE,SUCCESS", Some("SUCCESS,FAILURE,DELAY")),
            ("SUCCESS,SUCCESS", Some("SUCCESS")),
            ("", None),
            ("NEVER,SUCCESS", None),
            ("SUCCESS,NEVER", None),
            ("SUCCESS,", None),
            (",SUCCESS", None),
            ("SUCCESS FAILURE", None),
            ("ALWAYS", None),
        ] {
            assert_eq!(
                Notify::parse(value.as_bytes()).map(|notify| notify.to_string()).as_deref(),
                written,
                "{value}"
            );
        }
    }

    #[test]
    fn without_notify_failures_and_delays_are_told_and_nothing_else() {
        let asks =
            |value: &str| RecipientNotification { notify: Notify::parse(value.as_bytes()), orcpt: None };
        let told = |asked: RecipientNotification| (asked.on_success(), asked.on_failure(), asked.on_delay());
        assert_eq!(told(RecipientNotification::default()), (false, true, true));
        assert_eq!(told(asks("NEVER")), (false, false, false));
        assert_eq!(told(asks("SUCCESS,DELAY")), (true, false, true));
        assert_eq!(told(asks("FAILURE")), (false, true, false));
    }

    #[test]
    fn an_envelope_id_is_xtext_of_printable_characters() {
        let long = |octets: usize| "x".repeat(octets);
        for (value, decoded) in [
            ("QQ314159", Some("QQ314159")),
            ("a+2Bb+3D+20c", Some("a+b= c")),
            (&long(100), Some(&*long(100))),
            (&long(101), None),
            ("", None),
            ("a b", None),
            ("a=b", None),
            ("a+0Ab", None),
            ("a+7F", None),
            ("a+C3+A9", None),
            ("a+2b", None),
            ("+", None),
            ("+2", None),
            ("\u{e9}", None),
        ] {
            let id = EnvelopeId::parse(value.as_bytes());
            assert_eq!(id.as_ref().map(EnvelopeId::decoded).as_deref(), decoded, "{value}");
            assert!(id.is_none_or(|id| id.as_str() == value));
        }
    }

    #[test]
    fn an_original_recipient_has_a_type_and_an_address() {
        let long = |octets: usize| format!("rfc822;{}", "x".repeat(octets - 7));
        for (value, decoded) in [
            ("rfc822;Bob@example.com", Some(("rfc822", "Bob@example.com"))),
            ("RFC822;a+2Bb@example.com", Some(("RFC822", "a+b@example.com"))),
            ("x-odd;;;", Some(("x-odd", ";;"))),
            ("utf-8;a\\x{3B1}@x.test", Some(("utf-8", "a\\x{3B1}@x.test"))),
            ("UTF-8;\u{3b1}@x.test", Some(("UTF-8", "\\x{3B1}@x.test"))),
            ("utf-8;a+2B@x.test", Some(("utf-8", "a+2B@x.test"))),
            (&long(500), Some(("rfc822", &long(500)[7..]))),
            (&long(501), None),
            ("rfc822", None),
            ("rfc822;", None),
            (";a@b", None),
            ("rfc 822;a", None),
            ("rfc822;a b", None),
            ("rfc822;a=b", None),
            ("rfc822;a+0D+0A", None),
            ("rfc822;\u{3b1}@x.test", None),
            ("utf-8;a\\b", None),
            ("utf-8;a\\x{3b1}", None),
            ("utf-8;a\\x{A}", None),
            ("utf-8;a\\x{0A}", None),
            ("utf-8;a\\x{85}", None),
            ("utf-8;a\\x{D800}", None),
            ("utf-8;a\\x{110000}", None),
            ("utf-8;a\\x{3B1", None),
            ("utf-8;a\u{85}", None),
            ("utf-8;a=b", None),
            ("utf-8;a+0A", None),
            ("utf-8;a+\u{3b1}", None),
        ] {
            let recipient = OriginalRecipient::parse(value.as_bytes());
            let found = recipient.as_ref().map(OriginalRecipient::decoded);
            assert_eq!(found.as_ref().map(|(kind, address)| (*kind, &**address)), decoded, "{value}");
            assert!(recipient.is_none_or(|recipient| recipient.as_str() == value));
        }
    }

    #[test]
    fn an_original_recipient_in_utf8_can_be_written_in_ascii() {
        let recipient = OriginalRecipient::parse("utf-8;\u{3b1}\u{1f600}@x.test".as_bytes()).unwrap();
        assert!(recipient.needs_utf8());
        let ascii = recipient.to_ascii();
        assert_eq!(ascii, "utf-8;\\x{3B1}\\x{1F600}@x.test");
        let again = OriginalRecipient::parse(ascii.as_bytes()).unwrap();
        assert!(!again.needs_utf8());
        assert_eq!(again.decoded(), recipient.decoded());
    }
}
