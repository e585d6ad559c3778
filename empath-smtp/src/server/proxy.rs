//! The header of the PROXY protocol, versions 1 and 2: a load balancer's first words, which say for whom it speaks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The load balancer's own: a health check, or somebody it says nothing about.
    Local,
    /// A client's.
    Client {
        /// The client's address and port.
        peer: SocketAddr,
        /// The address and port that it has connected to.
        local: SocketAddr,
    },
}

/// How far a header goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// At least this many octets more, all of them the header's.
    Partial(usize),
    /// It ends after this many octets.
    Whole(Origin, usize),
}

/// Why octets are not a header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// They begin like something else.
    #[error("no PROXY header came first")]
    Missing,
    /// The header has more octets than any that makes sense.
    #[error("the PROXY header is too long")]
    TooLong,
    /// A version, command, address or extension that is not what the protocol says.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Neither TCP over IPv4 nor over IPv6.
    #[error("the PROXY header is not about TCP")]
    Family,
    /// The connection broke.
    #[error("the PROXY header was not read: {0}")]
    Io(#[from] io::Error),
}

/// Longest line of version 1, CRLF included.
const MAX_LINE: usize = 107;

/// Shortest line of version 1; version 2 has one octet more.
const MIN: usize = 15;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// Most octets behind the fixed part of version 2: addresses, and extensions that are skipped.
const MAX_REST: usize = 4096;

/// Reads the header and not one octet more: what follows may be a TLS handshake.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Origin, ProxyError> {
    let mut octets = Vec::new();
    loop {
        match Header::parse(&octets)? {
            Header::Whole(origin, _) => return Ok(origin),
            Header::Partial(more) => {
                if (&mut *stream).take(more as u64).read_buf(&mut octets).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

impl Header {
    /// Parses the octets at the start of a connection.
    pub fn parse(octets: &[u8]) -> Result<Self, ProxyError> {
        let begins = |with: &[u8]| octets.iter().zip(with).all(|(octet, expected)| octet == expected);
        if begins(b"PROXY ") {
            line(octets)
        } else if begins(SIGNATURE) {
            binary(octets)
        } else {
            Err(ProxyError::Missing)
        }
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.25 40000 25` and CRLF.
fn line(octets: &[u8]) -> Result<Header, ProxyError> {
    let Some(end) = octets.iter().take(MAX_LINE).position(|octet| *octet == b'\n') else {
        let missing = match octets.last() {
            _ if octets.len() < MIN => MIN - octets.len(),
            Some(b'\r') => 1,
            _ => 2,
        };
        let fits = octets.len() + missing <= MAX_LINE;
        return if fits { Ok(Header::Partial(missing)) } else { Err(ProxyError::TooLong) };
    };
    let line = octets.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(ProxyError::Malformed)?;
    let text = str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    let words: Vec<_> = text.split(' ').collect();
    let origin = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Origin::Local,
        ["PROXY", "TCP4", peer, local, from, to] => client::<Ipv4Addr>([peer, local], [from, to])?,
        ["PROXY", "TCP6", peer, local, from, to] => client::<Ipv6Addr>([peer, local], [from, to])?,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Header::Whole(origin, end + 1))
}

fn client<A: FromStr + Into<IpAddr>>(addresses: [&str; 2], ports: [&str; 2]) -> Result<Origin, ProxyError> {
    let address = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| ProxyError::Malformed);
    let port = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| digits).ok_or(ProxyError::Malformed)
    };
    let ([peer, local], [from, to]) = (addresses, ports);
    Ok(Origin::Client {
        peer: SocketAddr::new(address(peer)?, port(from)?),
        local: SocketAddr::new(address(local)?, port(to)?),
    })
}

/// Version 2.
fn binary(octets: &[u8]) -> Result<Header, ProxyError> {
    let Some((fixed, rest)) = octets.split_first_chunk::<FIXED>() else {
        return Ok(Header::Partial(FIXED - octets.len()));
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST {
        return Err(ProxyError::TooLong);
    }
    let proxied = match version_and_command {
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyError::Malformed),
    };
    let Some(rest) = rest.get(..length) else {
        return Ok(Header::Partial(length - rest.len()));
    };
    let origin = match family {
        // What LOCAL and UNSPEC bring with them means nothing.
        _ if !proxied => Origin::Local,
        0x00 => Origin::Local,
        0x11 => addresses::<4>(rest)?,
        0x21 => addresses::<16>(rest)?,
        _ => return Err(ProxyError::Family),
    };
    Ok(Header::Whole(origin, FIXED + length))
}

/// Both addresses, both ports, then extensions.
fn addresses<const N: usize>(octets: &[u8]) -> Result<Origin, ProxyError>
where
    IpAddr: From<[u8; N]>,
{
    let parse = || {
        let (peer, rest) = octets.split_first_chunk::<N>()?;
        let (local, rest) = rest.split_first_chunk::<N>()?;
        let (from, rest) = rest.split_first_chunk::<2>()?;
        let (to, rest) = rest.split_first_chunk::<2>()?;
        let address = |address: &[u8; N], port| SocketAddr::new((*address).into(), u16::from_be_bytes(port));
        are_extensions(rest)
            .then(|| Origin::Client { peer: address(peer, *from), local: address(local, *to) })
    };
    parse().ok_or(ProxyError::Malformed)
}

/// Whether these octets are types, lengths and values to the last.
fn are_extensions(mut octets: &[u8]) -> bool {
    while let Some((&[_, high, low], rest)) = octets.split_first_chunk::<3>() {
        let Some((_, rest)) = rest.split_at_checked(u16::from_be_bytes([high, low]).into()) else {
            return false;
        };
        octets = rest;
    }
    octets.is_empty()
}
