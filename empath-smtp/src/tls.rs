//! What both ends of TLS say about an encrypted connection.

use empath_common::TlsSession;
use rustls::{CipherSuite, CommonState, ProtocolVersion};

/// What was agreed on. `certificate` is the subject of the other side's, if it is valid.
pub(crate) fn session(connection: &CommonState, certificate: Option<Box<str>>) -> TlsSession {
    TlsSession {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| name(suite.suite())),
        certificate,
    }
}

/// The name in the IANA registry.
fn name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or_default(),
    }
}
