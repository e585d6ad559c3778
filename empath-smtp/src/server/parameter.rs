use empath_common::{
    Body, Charset, EnvelopeId, FutureRelease, Mailbox, MessageNotification, MtPriority, Notify,
    OriginalRecipient, RecipientNotification, Reply, Ret, xtext,
};

use super::reply;

/// The parameters of MAIL (RFC 1870, RFC 3461 §4, RFC 4865, RFC 4954 §5, RFC 6152, RFC 6531, RFC 6710 §3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Parameters {
    /// The size that the client declared, in octets.
    pub(super) size: Option<u64>,
    /// The encoding that the client declared.
    pub(super) body: Option<Body>,
    /// Whether SMTPUTF8 was given.
    pub(super) smtputf8: bool,
    /// Whether AUTH was given. Who it names counts for nothing: no client is trusted to say who submitted a message
    /// (RFC 4954 §5 has it taken for `AUTH=<>` then).
    pub(super) auth: bool,
    /// RET and ENVID.
    pub(super) notification: MessageNotification,
    /// HOLDFOR or HOLDUNTIL.
    pub(super) future_release: Option<FutureRelease>,
    /// MT-PRIORITY.
    pub(super) mt_priority: Option<MtPriority>,
}

impl Parameters {
    /// Parses what follows the path: nothing, or parameters each behind a space (RFC 5321 §4.1.2 `Mail-parameters`).
    pub(super) fn parse(octets: &[u8]) -> Result<Self, Reply> {
        let mut parameters = Self::default();
        for parameter in split(octets)? {
            let (keyword, value) = keyword_and_value(parameter)?;
            if keyword.eq_ignore_ascii_case(b"SIZE") {
                once(&mut parameters.size, size(value)?)?;
            } else if keyword.eq_ignore_ascii_case(b"BODY") {
                once(&mut parameters.body, body(value)?)?;
            } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") {
                if value.is_some() || parameters.smtputf8 {
                    return Err(reply::BAD_PARAMETER);
                }
                parameters.smtputf8 = true;
            } else if keyword.eq_ignore_ascii_case(b"RET") {
                once(
                    &mut parameters.notification.ret,
                    value.and_then(Ret::parse).ok_or(reply::BAD_PARAMETER)?,
                )?;
            } else if keyword.eq_ignore_ascii_case(b"ENVID") {
                let id = value.and_then(EnvelopeId::parse).ok_or(reply::BAD_PARAMETER)?;
                once(&mut parameters.notification.envid, id)?;
            } else if keyword.eq_ignore_ascii_case(b"HOLDFOR") {
                let interval = value.and_then(FutureRelease::parse_for).ok_or(reply::BAD_PARAMETER)?;
                once(&mut parameters.future_release, interval)?;
            } else if keyword.eq_ignore_ascii_case(b"HOLDUNTIL") {
                // RFC 4865: one of the two.
                let time = value.and_then(FutureRelease::parse_until).ok_or(reply::BAD_PARAMETER)?;
                once(&mut parameters.future_release, time)?;
            } else if keyword.eq_ignore_ascii_case(b"MT-PRIORITY") {
                let priority = value.and_then(MtPriority::parse).ok_or(reply::BAD_PARAMETER)?;
                once(&mut parameters.mt_priority, priority)?;
            } else if keyword.eq_ignore_ascii_case(b"AUTH") {
                if !is_auth_value(parameter) || parameters.auth {
                    return Err(reply::BAD_PARAMETER);
                }
                parameters.auth = true;
            } else {
                return Err(reply::UNKNOWN_PARAMETER);
            }
        }
        Ok(parameters)
    }
}

/// Parses what follows the path of RCPT (RFC 3461 §4.1, §4.2).
pub(super) fn of_rcpt(octets: &[u8]) -> Result<RecipientNotification, Reply> {
    let mut notification = RecipientNotification::default();
    for parameter in split(octets)? {
        let (keyword, value) = keyword_and_value(parameter)?;
        if keyword.eq_ignore_ascii_case(b"NOTIFY") {
            let notify = value.and_then(Notify::parse).ok_or(reply::BAD_PARAMETER)?;
            once(&mut notification.notify, notify)?;
        } else if keyword.eq_ignore_ascii_case(b"ORCPT") {
            let recipient = value.and_then(OriginalRecipient::parse).ok_or(reply::BAD_PARAMETER)?;
            once(&mut notification.orcpt, recipient)?;
        } else {
            return Err(reply::UNKNOWN_PARAMETER);
        }
    }
    Ok(notification)
}

/// Parts at spaces, of which there may be several; there must be one before the first.
fn split(octets: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Reply> {
    if !matches!(octets.first(), None | Some(b' ')) {
        return Err(reply::BAD_PARAMETER);
    }
    Ok(octets.split(|octet| *octet == b' ').filter(|part| !part.is_empty()))
}

/// `esmtp-keyword ["=" esmtp-value]` of RFC 5321 §4.1.2; the value may be UTF-8 (RFC 6531 §3.3).
fn keyword_and_value(parameter: &[u8]) -> Result<(&[u8], Option<&[u8]>), Reply> {
    let mut parts = parameter.splitn(2, |octet| *octet == b'=');
    let keyword = parts.next().unwrap_or_default();
    let value = parts.next();
    let keyword_is_good = keyword.first().is_some_and(u8::is_ascii_alphanumeric)
        && keyword.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-');
    let value_is_good = value
        .is_none_or(|value| !value.is_empty() && value.iter().all(|o| !matches!(o, 0..=b' ' | b'=' | 0x7f)));
    if keyword_is_good && value_is_good { Ok((keyword, value)) } else { Err(reply::BAD_PARAMETER) }
}

/// `size-value ::= 1*20DIGIT` (RFC 1870 §6). What does not fit 64 bits is larger than any limit.
fn size(value: Option<&[u8]>) -> Result<u64, Reply> {
    let digits = value.ok_or(reply::BAD_PARAMETER)?;
    if digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(reply::BAD_PARAMETER);
    }
    Ok(digits
        .iter()
        .fold(0_u64, |size, digit| size.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn body(value: Option<&[u8]>) -> Result<Body, Reply> {
    match value {
        Some(value) if value.eq_ignore_ascii_case(b"7BIT") => Ok(Body::SevenBit),
        Some(value) if value.eq_ignore_ascii_case(b"8BITMIME") => Ok(Body::EightBitMime),
        _ => Err(reply::BAD_PARAMETER),
    }
}

/// `AUTH=<>`, or a mailbox as xtext.
fn is_auth_value(parameter: &[u8]) -> bool {
    let value = parameter.get(b"AUTH=".len()..).unwrap_or_default();
    let mailbox = || Mailbox::parse(&xtext::decode(value)?, Charset::Utf8).ok();
    value == b"<>" || mailbox().is_some()
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Reply> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(reply::BAD_PARAMETER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(octets: &str) -> Result<Parameters, u16> {
        Parameters::parse(octets.as_bytes()).map_err(|reply| reply.code.get())
    }

    #[test]
    fn known_parameters_are_parsed_in_any_case_and_order() {
        let all = Parameters {
            size: Some(7),
            body: Some(Body::EightBitMime),
            smtputf8: true,
            ..Parameters::default()
        };
        assert_eq!(code(" SIZE=7 BODY=8BITMIME SMTPUTF8"), Ok(all.clone()));
        assert_eq!(code("  smtputf8   body=8bitmime size=007 "), Ok(all));
        assert_eq!(code(""), Ok(Parameters::default()));
    }

    #[test]
    fn who_submitted_a_message_may_be_said() {
        for given in [" AUTH=<>", " auth=e+3Dmc2@example.com", " AUTH=a+40b.test"] {
            assert_eq!(code(given).map(|parameters| parameters.auth), Ok(true), "{given}");
        }
    }

    #[test]
    fn when_and_how_urgently_a_message_is_to_go_may_be_said() {
        let parameters = code(" holdfor=3600 mt-priority=-4").unwrap();
        assert_eq!(parameters.future_release, Some(FutureRelease::For(3600)));
        assert_eq!(parameters.mt_priority, MtPriority::new(-4));
        let parameters = code(" MT-PRIORITY=9 HoldUntil=2026-12-24T18:00:00Z").unwrap();
        let time = "2026-12-24T18:00:00Z".parse().unwrap();
        assert_eq!(parameters.future_release, Some(FutureRelease::Until(time)));
        assert_eq!(parameters.mt_priority, MtPriority::new(9));
    }

    #[test]
    fn sizes_of_20_digits_do_not_overflow() {
        assert_eq!(code(" SIZE=99999999999999999999").map(|p| p.size), Ok(Some(u64::MAX)));
        assert_eq!(code(" SIZE=00000000000000000001").map(|p| p.size), Ok(Some(1)));
        assert_eq!(code(" SIZE=000000000000000000001"), Err(501));
    }

    #[test]
    fn malformed_and_repeated_parameters_are_501_and_unknown_ones_555() {
        for bad in [
            "SIZE=1",
            " SIZE",
            " SIZE=",
            " SIZE=abc",
            " SIZE=-1",
            " SIZE=+1",
            " SIZE=1 SIZE=2",
            " BODY",
            " BODY=FOO",
            " BODY=7BIT BODY=7BIT",
            " SMTPUTF8=1",
            " SMTPUTF8 SMTPUTF8",
            " AUTH",
            " AUTH=",
            " AUTH=alice",
            " AUTH=a+4@b.test",
            " AUTH=<> AUTH=<>",
            " RET",
            " RET=BODY",
            " RET=HDRS RET=HDRS",
            " ENVID",
            " ENVID=a+4",
            " ENVID=a+0A",
            " ENVID=1 ENVID=1",
            " HOLDFOR",
            " HOLDFOR=",
            " HOLDFOR=0",
            " HOLDFOR=1000000000",
            " HOLDFOR=1h",
            " HOLDFOR=1 HOLDFOR=1",
            " HOLDFOR=1 HOLDUNTIL=2026-12-24T18:00:00Z",
            " HOLDUNTIL=2026-12-24T18:00:00Z HOLDFOR=1",
            " HOLDUNTIL",
            " HOLDUNTIL=2026-12-24",
            " HOLDUNTIL=2026-12-24T18:00:00",
            " HOLDUNTIL=2026-12-24T18:00:00+01:00",
            " HOLDUNTIL=2026-02-30T18:00:00Z",
            " HOLDUNTIL=1766599200",
            " MT-PRIORITY",
            " MT-PRIORITY=",
            " MT-PRIORITY=10",
            " MT-PRIORITY=-0",
            " MT-PRIORITY=+1",
            " MT-PRIORITY=high",
            " MT-PRIORITY=1 MT-PRIORITY=1",
            " =",
            " -A",
            " A=",
            " A=b=c",
            " SIZE=1\tBODY=7BIT",
            " A=\u{7f}",
        ] {
            assert_eq!(code(bad), Err(501), "{bad:?}");
        }
        for unknown in [" FOO", " FOO=bar", " NOTIFY=NEVER", " BODY-X=7BIT"] {
            assert_eq!(code(unknown), Err(555), "{unknown:?}");
        }
    }

    #[test]
    fn what_the_sender_wants_of_reports_is_taken_as_it_was_given() {
        let parameters = code(" RET=hdrs ENVID=QQ+2B1").unwrap();
        assert_eq!(parameters.notification.ret, Some(Ret::Headers));
        assert_eq!(parameters.notification.envid.unwrap().as_str(), "QQ+2B1");
        let of_rcpt = |octets: &str| of_rcpt(octets.as_bytes()).map_err(|reply| reply.code.get());
        let asked = of_rcpt(" orcpt=RFC822;Bob@x.test NOTIFY=Success,delay").unwrap();
        assert_eq!(asked.notify.unwrap().to_string(), "SUCCESS,DELAY");
        assert_eq!(asked.orcpt.unwrap().as_str(), "RFC822;Bob@x.test");
        assert_eq!(of_rcpt(""), Ok(RecipientNotification::default()));
        for bad in [
            " NOTIFY",
            " NOTIFY=",
            " NOTIFY=NEVER,DELAY",
            " NOTIFY=NEVER NOTIFY=NEVER",
            " ORCPT",
            " ORCPT=Bob@x.test",
            " ORCPT=rfc822;a+4",
            " ORCPT=rfc822;a ORCPT=rfc822;a",
        ] {
            assert_eq!(of_rcpt(bad), Err(501), "{bad}");
        }
        assert_eq!(of_rcpt(" RET=FULL"), Err(555));
    }
}
