/// What is spoken to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Protocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 2033: the server answers for each recipient, and keeps no queue.
    Lmtp,
}

/// How we introduce ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// In which protocol.
    pub protocol: Protocol,
    /// Our name or address literal.
    pub name: &'a str,
}

impl<'a> Hello<'a> {
    /// With EHLO.
    pub fn smtp(name: &'a str) -> Self {
        Self { protocol: Protocol::Smtp, name }
    }

    /// With LHLO.
    pub fn lmtp(name: &'a str) -> Self {
        Self { protocol: Protocol::Lmtp, name }
    }
}
