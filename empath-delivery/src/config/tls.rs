use std::path::PathBuf;

use empath_common::Problem;
use empath_smtp::client::{Roots, Tls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether connections to servers are encrypted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsPolicy {
    /// Where the server offers it, and then without looking at its certificate: it keeps out who only listens. Where the
    /// handshake fails, mail goes in clear text.
    #[default]
    Opportunistic,
    /// Always, and the certificate must be for the name of the MX host. What can't be delivered so is deferred.
    Required,
    /// Never.
    Disabled,
}

/// How connections to servers are encrypted (RFC 3207).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The policy for domains that have none of their own.
    ///
    /// `Opportunistic` encrypts where it can and verifies nothing, `Required` verifies or defers, `Disabled` never
    /// encrypts. Much of the world's mail can't be delivered under `Required`. A server whose STARTTLS or handshake fails
    /// is left in peace with it for an hour under `Opportunistic`. Default: `Opportunistic`.
    pub default_policy: TlsPolicy,
    /// Takes every certificate where encryption is required: expired ones, those of strangers, those for another name.
    ///
    /// Whoever stands between the hosts can then read and change the mail; there is a warning at each start and reload. Rather set
    /// it for the one domain that needs it. Default: `false`.
    pub accept_invalid_certs: bool,
    /// A file with roots that are trusted beside those of the system (PEM).
    ///
    /// For servers whose certificates come from an authority of your own, or which have signed them themselves: such a
    /// certificate is trusted if it is in the file, for the names in it and until it expires. One that says that it is an
    /// authority, as `openssl req -x509` writes it without `-addext basicConstraints=critical,CA:FALSE`, vouches for every
    /// name that its owner signs; one of X.509 version 1 says nothing, and vouches for nobody else. The system's roots are read at the start and at each reload, from
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set, where a policy verifies certificates. Relative to the
    /// configuration file. Default: none.
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// What handshakes need; `verifies` if certificates will be verified.
    pub(super) fn load(&self, verifies: bool) -> Result<Tls, Problem> {
        let mut roots = if verifies { Roots::of_system() } else { Roots::none() };
        if let Some(file) = &self.ca_file {
            roots.add(file).map_err(|error| Problem::new("ca_file", error.to_string()))?;
        }
        if verifies && roots.is_empty() {
            let message = "certificates are to be verified, and the system has no roots: install its package of them \
                           (ca-certificates), or name a file";
            return Err(Problem::new("ca_file", message));
        }
        Tls::new(roots).map_err(|error| Problem::new("ca_file", error.to_string()))
    }
}
