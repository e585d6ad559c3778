use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use empath_common::DomainPattern;
use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_cert::{Certificate as X509, der::Decode as _};

use super::super::log;

/// A certificate with its key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateConfig {
    /// The names for which clients are shown this certificate: `"mx.example.test"`, `"*.example.test"` for all
    /// names below, `"*"` for all others.
    ///
    /// The longest match wins. A client that asks for no name, or for one that none of the certificates has, is shown
    /// that of `"*"`, or else the first. Default: `["*"]`.
    #[schemars(with = "Vec<String>")]
    pub names: Vec<DomainPattern>,
    /// The file with the certificate and those that lead to its root (PEM, the server's own certificate first).
    ///
    /// Relative to the configuration file.
    #[schemars(with = "String")]
    pub certificate: PathBuf,
    /// The file with the private key (PEM: PKCS#8, SEC1 or PKCS#1, without passphrase).
    ///
    /// Relative to the configuration file.
    #[schemars(with = "String")]
    pub key: PathBuf,
}

/// Why a certificate and its key can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("is not given: name a PEM file with the {0}")]
    Missing(Part),
    #[error("{}: {error}: give a PEM file that the daemon can read", .file.display())]
    Read { part: Part, file: PathBuf, error: io::Error },
    #[error("{}: {error}: give a PEM file", .file.display())]
    Pem { part: Part, file: PathBuf, error: pem::Error },
    #[error("{}: there is no {part} in it: give a PEM file with one", .file.display())]
    Empty { part: Part, file: PathBuf },
    #[error("{}: the key needs a passphrase, and there is nobody to give it: store it without one", .0.display())]
    Passphrase(PathBuf),
    #[error("{}: this {part} can't be used: {error}", .file.display())]
    Unusable { part: Part, file: PathBuf, error: rustls::Error },
    #[error("{} is not the key of the certificate in {}: give the two that belong together", .key.display(), .certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
}

/// One of the two files, by its key in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Key,
}

/// A certificate in use.
#[derive(Debug)]
pub(super) struct Certificate {
    config: CertificateConfig,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    /// The files when they were last read, whether or not that went well.
    stamps: [Option<Stamp>; 2],
}

/// What changes when a file does.
type Stamp = (u64, u64, i64, i64);

/// From when to when a certificate is valid.
pub(super) struct Validity {
    from: Timestamp,
    to: Timestamp,
}

/// Octets of a file with certificates or a key.
const MAX_FILE: u64 = 1 << 20;

impl Default for CertificateConfig {
    fn default() -> Self {
        Self { names: vec![DomainPattern::Any], certificate: PathBuf::new(), key: PathBuf::new() }
    }
}

impl Certificate {
    pub(super) fn load(
        config: &CertificateConfig,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        // Taken first: what changes while the files are read is noticed.
        let stamps = stamps(config);
        let key = Arc::new(load(config, provider)?);
        Ok(Self { config: config.clone(), current: Mutex::new(Current { key, stamps }) })
    }

    pub(super) fn names(&self) -> &[DomainPattern] {
        &self.config.names
    }

    /// The certificate as its files have it now. Looking at them costs microseconds, a handshake a hundred times that;
    /// and an idle daemon does nothing. When they are no good, the last good one goes on.
    pub(super) fn current(&self, provider: &CryptoProvider) -> Arc<CertifiedKey> {
        let stamps = stamps(&self.config);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != current.stamps {
            current.stamps = stamps;
            match load(&self.config, provider) {
                Ok(key) => {
                    current.key = Arc::new(key);
                    log::certificate_changed(&self.config.certificate);
                }
                Err(error) => log::certificate_kept(&error),
            }
        }
        Arc::clone(&current.key)
    }

    /// `None` for a certificate that clients may understand and we don't.
    pub(super) fn validity(&self) -> Option<Validity> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let validity = X509::from_der(current.key.cert.first()?).ok()?.tbs_certificate.validity;
        let time = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
            Timestamp::from_second(seconds).ok()
        };
        Some(Validity { from: time(validity.not_before)?, to: time(validity.not_after)? })
    }
}

impl Validity {
    /// Why the certificate is not valid now.
    pub(super) fn fault(&self, now: Timestamp) -> Option<String> {
        let Self { from, to } = self;
        if now > *to {
            Some(format!("expired at {to}: renew it, or clients that verify it will not connect"))
        } else if now < *from {
            Some(format!("is valid from {from} only: clients that verify it will not connect"))
        } else {
            None
        }
    }
}

impl CertificateError {
    /// The key of the configuration that is to blame.
    pub(super) fn key(&self) -> Part {
        match self {
            Self::Read { part, .. }
            | Self::Pem { part, .. }
            | Self::Missing(part)
            | Self::Empty { part, .. }
            | Self::Unusable { part, .. } => *part,
            Self::Passphrase(_) | Self::Mismatch { .. } => Part::Key,
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
        })
    }
}

fn stamps(config: &CertificateConfig) -> [Option<Stamp>; 2] {
    [&config.certificate, &config.key].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
    })
}

fn load(config: &CertificateConfig, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let chain = chain(&config.certificate, Part::Certificate)?;
    let key = key(&config.key)?;
    let unusable = |part, file: &Path| {
        let file = file.to_path_buf();
        move |error| CertificateError::Unusable { part, file, error }
    };
    let key = provider.key_provider.load_private_key(key).map_err(unusable(Part::Key, &config.key))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
        }),
        Err(error) => Err(unusable(Part::Certificate, &config.certificate)(error)),
    }
}

/// The certificates in a file, at least one.
pub(super) fn chain(file: &Path, part: Part) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let octets = read(file, part)?;
    let chain = CertificateDer::pem_slice_iter(&octets).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| CertificateError::Pem { part, file: file.to_path_buf(), error })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { part, file: file.to_path_buf() });
    }
    Ok(chain)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let (octets, part) = (read(file, Part::Key)?, Part::Key);
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| {
        let file = file.to_path_buf();
        let has = |text: &[u8]| memchr::memmem::find(&octets, text).is_some();
        match error {
            pem::Error::NoItemsFound if has(b"BEGIN ENCRYPTED PRIVATE KEY") => {
                CertificateError::Passphrase(file)
            }
            pem::Error::NoItemsFound => CertificateError::Empty { part, file },
            _ if has(b"Proc-Type: 4,ENCRYPTED") => CertificateError::Passphrase(file),
            error => CertificateError::Pem { part, file, error },
        }
    })
}

fn read(file: &Path, part: Part) -> Result<Vec<u8>, CertificateError> {
    if file.as_os_str().is_empty() {
        return Err(CertificateError::Missing(part));
    }
    let read = || {
        let mut octets = Vec::new();
        File::open(file)?.take(MAX_FILE).read_to_end(&mut octets)?;
        Ok(octets)
    };
    read().map_err(|error| CertificateError::Read { part, file: file.to_path_buf(), error })
}
