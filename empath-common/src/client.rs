use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// Who is at the other end of a session.
#[derive(Debug, Clone)]
pub struct Client {
    /// The client's address and port.
    pub peer: SocketAddr,
    /// Our address and port.
    pub local: SocketAddr,
    /// The host name that belongs to the address, where a trusted proxy has told it.
    pub name: Option<Box<str>>,
    /// What the client called itself in EHLO or HELO: checked for control characters, not for truth.
    pub helo: Option<Box<str>>,
    /// The user that the client has authenticated as.
    pub user: Option<Box<str>>,
    /// How the connection is encrypted; `None` in clear text.
    pub tls: Option<TlsSession>,
    /// The `context` of the listener.
    pub context: Arc<BTreeMap<String, String>>,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite by its name in the IANA registry: `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The subject of the other side's certificate (RFC 4514), if it has shown one that is valid and that we trust.
    pub certificate: Option<Box<str>>,
}

impl Client {
    /// A client that has connected and said nothing yet.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, name: None, helo: None, user: None, tls: None, context: Arc::default() }
    }
}
