use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
///
/// The General-address-literal form is recognised as malformed: no tag but `IPv6` was ever registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressLiteral(pub IpAddr);

/// The text is not an address literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address literal: [192.0.2.1] or [IPv6:2001:db8::1] was expected")]
pub struct LiteralError;

impl FromStr for AddressLiteral {
    type Err = LiteralError;

    fn from_str(text: &str) -> Result<Self, LiteralError> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or(LiteralError)?;
        let address = match inner.split_at_checked(5) {
            Some((tag, v6)) if tag.eq_ignore_ascii_case("IPv6:") => v6.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => inner.parse::<Ipv4Addr>().map(IpAddr::V4),
        };
        address.map(Self).map_err(|_| LiteralError)
    }
}

impl fmt::Display for AddressLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "[{v4}]"),
            IpAddr::V6(v6) => write!(f, "[IPv6:{v6}]"),
        }
    }
}
