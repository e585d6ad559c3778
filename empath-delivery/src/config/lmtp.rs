use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{HostAddr, Override};

/// The value of `lmtp`: where a server for local delivery listens (RFC 2033).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LmtpServer {
    /// At a port of a host.
    Host {
        /// Which host.
        host: HostAddr,
        /// Which port.
        port: u16,
    },
    /// At a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no LMTP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LmtpServerError {
    /// It is neither host and port nor a socket.
    #[error("not an LMTP server: \"127.0.0.1:24\", \"dovecot.test:24\" or \"unix:/run/lmtp\" was expected")]
    Form,
    /// There is no usual port for it.
    #[error("give a port: LMTP has none of its own; 24 is often used")]
    Port,
    /// RFC 2033 §5: at port 25 there is SMTP.
    #[error("at port 25 there is SMTP; give the port of the LMTP server")]
    SmtpPort,
}

impl LmtpServer {
    /// The path of its socket, which may be relative to the configuration file.
    pub(super) fn path(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Host { .. } => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl FromStr for LmtpServer {
    type Err = LmtpServerError;

    fn from_str(text: &str) -> Result<Self, LmtpServerError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(LmtpServerError::Form) } else { Ok(Self::Unix(path.into())) };
        }
        let Override { host, port } = text.parse().map_err(|_| LmtpServerError::Form)?;
        match port.ok_or(LmtpServerError::Port)? {
            25 => Err(LmtpServerError::SmtpPort),
            port => Ok(Self::Host { host, port }),
        }
    }
}

impl fmt::Display for LmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for LmtpServer {
    type Error = LmtpServerError;
    fn try_from(text: String) -> Result<Self, LmtpServerError> {
        text.parse()
    }
}

impl From<LmtpServer> for String {
    fn from(server: LmtpServer) -> Self {
        server.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lmtp_server_is_a_host_with_a_port_or_a_socket() {
        for text in ["127.0.0.1:24", "[::1]:24", "dovecot.test:2003", "unix:/run/lmtp", "unix:run/lmtp"] {
            assert_eq!(text.parse::<LmtpServer>().unwrap().to_string(), text);
        }
        for (text, wrong) in [
            ("", LmtpServerError::Form),
            ("unix:", LmtpServerError::Form),
            ("/run/lmtp", LmtpServerError::Form),
            ("a b:24", LmtpServerError::Form),
            ("127.0.0.1", LmtpServerError::Port),
            ("::1", LmtpServerError::Port),
            ("127.0.0.1:25", LmtpServerError::SmtpPort),
        ] {
            assert_eq!(text.parse::<LmtpServer>(), Err(wrong), "{text:?}");
        }
    }
}
