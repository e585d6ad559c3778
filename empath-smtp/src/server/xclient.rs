//! XCLIENT: a trusted proxy says for whom it speaks (<https://www.postfix.org/XCLIENT_README.html>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use empath_common::{Client, Domain, Reply, xtext};

use super::{command::helo_name, reply};

/// The keyword of EHLO, with the attributes.
pub(super) const KEYWORD: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// Something about the client; `None` where the proxy does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    Name(Option<Domain>),
    Addr(Option<IpAddr>),
    Port(Option<u16>),
    /// The client's EHLO or HELO tells it again.
    Proto,
    Helo(Option<Box<str>>),
    Login(Option<Box<str>>),
    DestAddr(Option<IpAddr>),
    DestPort(Option<u16>),
}

/// Parses the argument of XCLIENT: `NAME=value`, at least one, each value in xtext.
pub(super) fn parse(argument: &[u8]) -> Result<Vec<Attribute>, Reply> {
    let words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let attributes = words.map(attribute).collect::<Option<Vec<_>>>().ok_or(reply::BAD_PARAMETER)?;
    if attributes.is_empty() { Err(reply::ARGUMENT_EXPECTED) } else { Ok(attributes) }
}

fn attribute(word: &[u8]) -> Option<Attribute> {
    let equals = word.iter().position(|octet| *octet == b'=')?;
    let (name, value) = word.split_at(equals);
    let value = String::from_utf8(xtext::decode(value.get(1..)?)?).ok()?;
    let known = !["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|no| no.eq_ignore_ascii_case(&value));
    let value = known.then_some(value.as_str());
    Some(match name.to_ascii_uppercase().as_slice() {
        b"NAME" => Attribute::Name(told(value, |name| Domain::parse(name).ok())?),
        b"ADDR" => Attribute::Addr(told(value, address)?),
        b"PORT" => Attribute::Port(told(value, port)?),
        b"PROTO" => told(value, |protocol| {
            ["SMTP", "ESMTP"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(protocol))
                .then_some(Attribute::Proto)
        })??,
        b"HELO" => Attribute::Helo(told(value, |name| helo_name(name.as_bytes()).ok())?),
        b"LOGIN" => Attribute::Login(told(value, user)?),
        b"DESTADDR" => Attribute::DestAddr(told(value, address)?),
        b"DESTPORT" => Attribute::DestPort(told(value, port)?),
        _ => return None,
    })
}

/// `Some(None)` for what the proxy doesn't know, `None` for what is malformed.
#[expect(clippy::option_option, reason = "malformed and unknown are two things")]
fn told<T>(value: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match value {
        Some(value) => parse(value).map(Some),
        None => Some(None),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPV6:") => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn user(text: &str) -> Option<Box<str>> {
    (!text.is_empty() && text.len() <= 255 && !text.contains(char::is_control)).then(|| text.into())
}

impl Attribute {
    /// Changes what is known about the client.
    pub(super) fn tell(self, client: &mut Client) {
        // An address that nobody has, and no network contains but that of all.
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match self {
            Self::Name(name) => client.name = name.map(|name| name.as_str().into()),
            Self::Addr(address) => client.peer.set_ip(address.unwrap_or(nowhere).to_canonical()),
            Self::Port(port) => client.peer.set_port(port.unwrap_or(0)),
            Self::Proto => {}
            Self::Helo(name) => client.helo = name,
            Self::Login(user) => client.user = user,
            Self::DestAddr(address) => client.local.set_ip(address.unwrap_or(nowhere).to_canonical()),
            Self::DestPort(port) => client.local.set_port(port.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_xtext_and_may_be_unavailable() {
        for (argument, expected) in [
            ("NAME=Client.test", Attribute::Name(Some(Domain::parse("client.test").unwrap()))),
            ("name=[UNAVAILABLE]", Attribute::Name(None)),
            ("NAME=[tempunavail]", Attribute::Name(None)),
            ("ADDR=192.0.2.1", Attribute::Addr(Some("192.0.2.1".parse().unwrap()))),
            ("ADDR=IPV6:2001:db8::1", Attribute::Addr(Some("2001:db8::1".parse().unwrap()))),
            ("ADDR=[UNAVAILABLE]", Attribute::Addr(None)),
            ("PORT=40000", Attribute::Port(Some(40000))),
            ("PROTO=esmtp", Attribute::Proto),
            ("HELO=[192.0.2.1]", Attribute::Helo(Some("[192.0.2.1]".into()))),
            ("LOGIN=a+20b", Attribute::Login(Some("a b".into()))),
            ("DESTADDR=192.0.2.25", Attribute::DestAddr(Some("192.0.2.25".parse().unwrap()))),
            ("DESTPORT=25", Attribute::DestPort(Some(25))),
        ] {
            assert_eq!(parse(argument.as_bytes()), Ok(vec![expected]), "{argument}");
        }
        assert_eq!(parse(b"PORT=1  PORT=2").map(|attributes| attributes.len()), Ok(2));
    }

    #[test]
    fn malformed_attributes_are_501() {
        for argument in [
            "",
            "NAME",
            "=x",
            "COLOUR=red",
            "NAME=a..b",
            "NAME=",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:192.0.2.1",
            "ADDR=192.0.2.256",
            "PORT=+1",
            "PORT=65536",
            "PORT=",
            "PROTO=[UNAVAILABLE]",
            "PROTO=LMTP",
            "HELO=a+0Ab",
            "LOGIN=",
            "LOGIN=a+0Db",
            "LOGIN=+FF",
            "NAME=x ADDR",
        ] {
            assert_eq!(parse(argument.as_bytes()).map_err(|reply| reply.code.get()), Err(501), "{argument}");
        }
    }
}
