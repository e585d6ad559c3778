use empath_common::Domain;

/// What a server takes at most (LIMITS, RFC 9422 §4). What it doesn't say is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// MAIL commands of a connection.
    pub mails: Option<u32>,
    /// RCPT commands of a transaction.
    pub recipients: Option<u32>,
    /// Different domains of a transaction's recipients.
    pub domains: Option<u32>,
}

impl Limits {
    /// Reads the arguments of the keyword. What is unknown or no number from 1 is skipped (RFC 9422 §3).
    pub(super) fn parse<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut limits = Self::default();
        for argument in arguments {
            let mut halves = argument.splitn(2, |octet| *octet == b'=');
            let name = halves.next().unwrap_or_default().to_ascii_uppercase();
            let value = halves.next().and_then(number);
            match name.as_slice() {
                b"MAILMAX" => limits.mails = value,
                b"RCPTMAX" => limits.recipients = value,
                b"RCPTDOMAINMAX" => limits.domains = value,
                _ => {}
            }
        }
        limits
    }

    /// Which of the recipients with these domains fit into one transaction; the first always does. A recipient without a
    /// domain has one of its own.
    pub fn fitting<'a>(&self, domains: impl IntoIterator<Item = Option<&'a Domain>>) -> Vec<bool> {
        let most = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit as usize);
        let (mut taken, mut seen) = (0, Vec::new());
        let fits = |domain| {
            let known = self.domains.is_none() || seen.contains(&domain);
            let fits = taken < most(self.recipients) && (known || seen.len() < most(self.domains));
            if fits {
                taken += 1;
                if !known {
                    seen.push(domain);
                }
            }
            fits
        };
        domains.into_iter().map(fits).collect()
    }
}

/// `1*6DIGIT`, not zero (RFC 9422 §4).
fn number(digits: &[u8]) -> Option<u32> {
    if digits.len() > 6 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Limits {
        Limits::parse(text.split(' ').map(str::as_bytes))
    }

    #[test]
    fn limits_are_read_in_any_case_and_nonsense_limits_nothing() {
        let table = [
            ("MAILMAX=5 RCPTMAX=20 RCPTDOMAINMAX=1", (Some(5), Some(20), Some(1))),
            ("rcptmax=2", (None, Some(2), None)),
            ("OTHER=1 RCPTMAX", (None, None, None)),
            ("RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=+1", (None, None, None)),
            ("RCPTMAX=1234567 MAILMAX= RCPTDOMAINMAX=1=1", (None, None, None)),
            ("RCPTMAX=999999", (None, Some(999_999), None)),
            ("", (None, None, None)),
        ];
        for (text, (mails, recipients, domains)) in table {
            assert_eq!(limits(text), Limits { mails, recipients, domains }, "{text:?}");
        }
    }

    #[test]
    fn as_many_recipients_fit_as_the_server_takes_of_as_many_domains() {
        let (a, b): (Domain, Domain) = ("a.test".parse().unwrap(), "b.test".parse().unwrap());
        let to = [Some(&a), Some(&b), Some(&a), None, Some(&b)];
        for (text, expected) in [
            ("", [true; 5]),
            ("RCPTMAX=2", [true, true, false, false, false]),
            ("RCPTDOMAINMAX=1", [true, false, true, false, false]),
            ("RCPTDOMAINMAX=2", [true, true, true, false, true]),
            ("RCPTDOMAINMAX=1 RCPTMAX=1", [true, false, false, false, false]),
            ("RCPTDOMAINMAX=3 RCPTMAX=9", [true; 5]),
        ] {
            assert_eq!(limits(text).fitting(to), expected, "{text:?}");
        }
    }
}
