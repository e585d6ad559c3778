use super::{Limits, Mechanisms};

/// What a server offers in its reply to EHLO (RFC 5321 §4.1.1.1). Nothing, after HELO.
#[expect(clippy::struct_excessive_bools, reason = "an extension is offered or not")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Commands may be sent without waiting for each reply (RFC 2920).
    pub pipelining: bool,
    /// Octets above 127 in the content (RFC 6152).
    pub eight_bit_mime: bool,
    /// UTF-8 in addresses and headers (RFC 6531).
    pub smtputf8: bool,
    /// What is told of the message's fate can be chosen (RFC 3461).
    pub dsn: bool,
    /// How urgent a message is can be said (RFC 6710).
    pub mt_priority: bool,
    /// The SIZE parameter of MAIL (RFC 1870).
    pub size: Option<SizeLimit>,
    /// Content in chunks of known length (RFC 3030).
    pub chunking: bool,
    /// The connection can be encrypted (RFC 3207).
    pub starttls: bool,
    /// How we can show who we are (RFC 4954).
    pub auth: Mechanisms,
    /// What it takes at most (RFC 9422).
    pub limits: Limits,
}

/// The argument of SIZE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeLimit {
    /// Without one, or 0: the server states no limit.
    Unstated,
    /// Most octets of a message.
    Octets(u64),
}

impl SizeLimit {
    /// Whether a message of this many octets may be offered.
    pub fn allows(self, octets: u64) -> bool {
        match self {
            Self::Unstated => true,
            Self::Octets(limit) => octets <= limit,
        }
    }
}

impl Extensions {
    /// Reads the lines of a reply to EHLO. The first is the server's name; unknown keywords are skipped.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut offered = Self::default();
        for line in text.split(|octet| *octet == b'\n').skip(1) {
            let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_slice() {
                b"PIPELINING" => offered.pipelining = true,
                b"8BITMIME" => offered.eight_bit_mime = true,
                b"SMTPUTF8" => offered.smtputf8 = true,
                b"DSN" => offered.dsn = true,
                b"MT-PRIORITY" => offered.mt_priority = true,
                b"SIZE" => offered.size = Some(limit(words.next())),
                b"CHUNKING" => offered.chunking = true,
                b"STARTTLS" => offered.starttls = true,
                b"AUTH" => offered.auth = Mechanisms::parse(words),
                b"LIMITS" => offered.limits = Limits::parse(words),
                _ => {}
            }
        }
        offered
    }
}

/// An argument that is no number states no limit: the server decides at MAIL.
fn limit(argument: Option<&[u8]>) -> SizeLimit {
    match argument.and_then(|digits| str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok()) {
        None | Some(0) => SizeLimit::Unstated,
        Some(octets) => SizeLimit::Octets(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_unknown_ones_are_skipped() {
        let offered = Extensions::parse(
            b"mx.test PIPELINING\nsize 1000\nx-odd\n8BitMime\nSMTPUTF8\ndsn\nMt-Priority MIXER\nchunking\nStartTLS\nAuth X-OWN plain\nLimits MAILMAX=2",
        );
        assert_eq!(
            offered,
            Extensions {
                pipelining: false,
                eight_bit_mime: true,
                smtputf8: true,
                dsn: true,
                mt_priority: true,
                size: Some(SizeLimit::Octets(1000)),
                chunking: true,
                starttls: true,
                auth: Mechanisms { plain: true, ..Mechanisms::default() },
                limits: Limits { mails: Some(2), ..Limits::default() },
            }
        );
    }

    #[test]
    fn a_size_of_zero_or_of_nonsense_states_no_limit() {
        for text in ["mx\nSIZE", "mx\nSIZE 0", "mx\nSIZE many", "mx\nSIZE -1"] {
            let size = Extensions::parse(text.as_bytes()).size;
            assert_eq!(size, Some(SizeLimit::Unstated), "{text:?}");
        }
        assert_eq!(Extensions::parse(b"mx").size, None);
    }
}
