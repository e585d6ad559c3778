use super::{Fault, Secret, prepare};

/// Parses the message of PLAIN, `[authzid] NUL authcid NUL password` (RFC 4616 §2).
pub(super) fn parse(message: &[u8]) -> Result<(Box<str>, Secret), Fault> {
    let mut parts = message.split(|octet| *octet == 0);
    let (Some(authzid), Some(name), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Malformed);
    };
    let name = prepare::name(name).ok_or(Fault::Malformed)?;
    if !authzid.is_empty() && prepare::name(authzid).as_ref() != Some(&name) {
        return Err(Fault::OtherIdentity);
    }
    if password.is_empty() {
        return Err(Fault::Malformed);
    }
    Ok((name, password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_plain() {
        let good = Ok(("tim".into(), Secret::from(&b"tanstaaftanstaaf"[..])));
        for (message, expected) in [
            (&b"\0tim\0tanstaaftanstaaf"[..], good.clone()),
            (b"tim\0tim\0tanstaaftanstaaf", good),
            (b"Ursel\0tim\0xipj3plmq", Err(Fault::OtherIdentity)),
            (b"\xff\0tim\0x", Err(Fault::OtherIdentity)),
            (b"\0tim\0", Err(Fault::Malformed)),
            (b"\0\0x", Err(Fault::Malformed)),
            (b"\0tim", Err(Fault::Malformed)),
            (b"\0tim\0x\0", Err(Fault::Malformed)),
            (b"\0t\xffm\0x", Err(Fault::Malformed)),
            (b"\0t\nm\0x", Err(Fault::Malformed)),
            (b"", Err(Fault::Malformed)),
        ] {
            assert_eq!(parse(message), expected, "{}", message.escape_ascii());
        }
    }
}
