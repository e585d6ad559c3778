//! Certificates made for a test, and clients that trust them.

use std::{fs, io, path::PathBuf, sync::Arc};

use empath_smtp::server::{CertificateConfig, Config};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::TLS12,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An authority, and a directory for what it signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) dir: TempDir,
}

/// A certificate and its key, both PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, dir: tempfile::tempdir().unwrap() }
    }

    /// A certificate for a name of DNS, which is its common name too.
    pub(crate) fn sign(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign_with(&params)
    }

    pub(crate) fn sign_with(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The authority's own certificate, as PEM.
    pub(crate) fn certificate(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        fs::write(&file, content).unwrap();
        file
    }

    /// Writes a certificate for `name` to files called after it.
    pub(crate) fn entry(&self, names: &[&str], name: &str) -> CertificateConfig {
        let pair = self.sign(name);
        CertificateConfig {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            certificate: self.file(&format!("{name}.pem"), &pair.certificate),
            key: self.file(&format!("{name}.key"), &pair.key),
        }
    }

    /// `config` with one certificate for all, in place of those that it has.
    pub(crate) fn certify(&self, config: &Config) -> Config {
        Config { tls: vec![self.entry(&["*"], "mx.test.example")], ..config.clone() }
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client_with(None)
    }

    /// A client that trusts this authority and has a certificate itself.
    pub(crate) fn client_with(&self, own: Option<&Pair>) -> Arc<ClientConfig> {
        self.make(DEFAULT_VERSIONS, own)
    }

    /// A client that knows nothing newer than TLS 1.2.
    pub(crate) fn old_client(&self) -> Arc<ClientConfig> {
        self.make(&[&TLS12], None)
    }

    /// A client that does not care for whom the certificate is.
    pub(crate) fn careless_client(&self) -> Arc<ClientConfig> {
        let mut client = ClientConfig::clone(&self.client());
        client.dangerous().set_certificate_verifier(Arc::new(Careless));
        Arc::new(client)
    }

    fn make(&self, versions: &[&'static SupportedProtocolVersion], own: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }
}

#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    name: &str,
    stream: S,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}
