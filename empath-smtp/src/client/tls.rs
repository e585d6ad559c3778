use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{self, CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
    server::ParsedCertificate,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_cert::{Certificate as X509, der::Decode as _, ext::pkix::BasicConstraints};

use super::{BoxStream, FailureKind};

/// Names of servers whose sessions are kept, to be resumed by the next connection: a few KiB each.
const SESSIONS: usize = 256;
/// Octets of a file with roots.
const MAX_FILE: u64 = 8 << 20;

/// What TLS handshakes with servers need.
///
/// Sessions of servers that were verified and of those that were not are kept apart: one that nobody verified is never
/// resumed in place of one that must be.
#[derive(Clone)]
pub struct Tls {
    verified: TlsConnector,
    unverified: TlsConnector,
}

/// Whom we expect at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The name or address of the server. A name is what we ask for (SNI, RFC 6066 §3).
    pub name: &'a str,
    /// Whether its certificate must be for that name and lead to a root that we trust.
    pub verified: bool,
}

/// Who is trusted: authorities that vouch for servers, and servers.
#[derive(Debug, Clone)]
pub struct Roots {
    store: RootCertStore,
    /// Those of files: each speaks for itself, also if it is no authority.
    own: Vec<CertificateDer<'static>>,
}

/// Why the roots in a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It can't be read.
    #[error("{}: {error}: give a PEM file that the daemon can read", .file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not PEM.
    #[error("{}: {error}: give a PEM file", .file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// Why.
        error: pem::Error,
    },
    /// It has no certificate.
    #[error("{}: there is no certificate in it: give a PEM file with one", .0.display())]
    Empty(PathBuf),
    /// A certificate in it is not understood.
    #[error("{}: a certificate in it can't be trusted: {error}", .file.display())]
    Unusable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: Error,
    },
}

impl Roots {
    /// None.
    pub fn none() -> Self {
        Self { store: RootCertStore::empty(), own: Vec::new() }
    }

    /// Those of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`. What can't be read or used is left out.
    pub fn of_system() -> Self {
        let mut roots = Self::none();
        roots.store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    }

    /// Adds those in a file. Certificates of servers may be among them: who shows one of these needs nobody to vouch for him.
    /// Only those that say so are authorities (RFC 5280 §4.2.1.9).
    pub fn add(&mut self, file: &Path) -> Result<(), RootsError> {
        let read = || {
            let mut octets = Vec::new();
            File::open(file)?.take(MAX_FILE).read_to_end(&mut octets)?;
            Ok(octets)
        };
        let octets = read().map_err(|error| RootsError::Read { file: file.to_path_buf(), error })?;
        let mut found = false;
        for root in CertificateDer::pem_slice_iter(&octets) {
            let root = root.map_err(|error| RootsError::Pem { file: file.to_path_buf(), error })?;
            let unusable = |error| RootsError::Unusable { file: file.to_path_buf(), error };
            if is_authority(&root).ok_or_else(|| unusable(CertificateError::BadEncoding.into()))? {
                self.store.add(root.clone()).map_err(unusable)?;
            }
            self.own.push(root);
            found = true;
        }
        if found { Ok(()) } else { Err(RootsError::Empty(file.to_path_buf())) }
    }

    /// Whether there is nobody to trust.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty() && self.own.is_empty()
    }
}

/// `None` for a certificate that is not understood.
fn is_authority(certificate: &CertificateDer<'_>) -> Option<bool> {
    let parsed = X509::from_der(certificate).ok()?.tbs_certificate;
    let constraints = parsed.get::<BasicConstraints>().ok()?;
    Some(constraints.is_some_and(|(_, constraints)| constraints.ca))
}

impl Tls {
    /// Trusts these roots.
    pub fn new(roots: Roots) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let builder =
            || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions);
        let Roots { store, own } = roots;
        let authorities = if store.is_empty() {
            None
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(&provider));
            Some(verifier.build().map_err(|error| Error::General(error.to_string()))?)
        };
        let trusted = Trusted { authorities, own, provider: Arc::clone(&provider) };
        let verified =
            builder()?.dangerous().with_custom_certificate_verifier(Arc::new(trusted)).with_no_client_auth();
        let unverified = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(&provider))))
            .with_no_client_auth();
        Ok(Self { verified: connector(verified), unverified: connector(unverified) })
    }

    /// Does the handshake.
    pub(super) async fn connect(
        &self,
        stream: BoxStream,
        expected: &Expected<'_>,
    ) -> Result<TlsStream<BoxStream>, FailureKind> {
        let name = ServerName::try_from(expected.name).map_err(|_| Error::UnsupportedNameType)?;
        let connector = if expected.verified { &self.verified } else { &self.unverified };
        connector.connect(name.to_owned(), stream).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(failure) => FailureKind::Tls(failure.clone()),
                None => error.into(),
            }
        })
    }
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Arc::new(config).into()
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Takes what authorities vouch for, and what is trusted itself: as an authority that signed itself is no server, those who
/// made a certificate with `openssl req -x509` would have nothing to name.
#[derive(Debug)]
struct Trusted {
    /// `None` if there are none.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.own.contains(shown) {
            let authorities = self.authorities.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            return authorities.verify_server_cert(shown, intermediates, name, ocsp, now);
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        let parsed = X509::from_der(shown).map_err(|_| CertificateError::BadEncoding)?;
        let validity = parsed.tbs_certificate.validity;
        if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, shown, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, shown, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes every certificate: where nothing is verified, whoever stands in between could show one of his own anyway, and
/// an odd one is still better than clear text (RFC 7435 §3).
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
