use std::{path::Path, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_cert::{Certificate as X509, der::Decode as _};

use super::certificate::{self, Part};

/// Asks clients for certificates and turns nobody away: many clients show whatever they have to whoever asks, and a
/// failed handshake would be followed by one attempt in clear text.
#[derive(Debug)]
pub(super) struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Why clients' certificates could not be verified.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientsError {
    #[error(transparent)]
    File(#[from] certificate::CertificateError),
    #[error("a certificate in it can't be trusted: {0}")]
    Root(#[source] Error),
    #[error("{0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl Clients {
    /// Trusts the certificates in `file`.
    pub(super) fn load(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, ClientsError> {
        let mut roots = RootCertStore::empty();
        for root in certificate::chain(file, Part::Certificate)? {
            roots.add(root).map_err(ClientsError::Root)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()?;
        Ok(Self { verifier })
    }

    /// The subject of the certificate that a client has shown, if it is valid. That the client has its key is known
    /// from the handshake.
    pub(super) fn subject(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Box<str>> {
        let (own, intermediates) = chain.split_first()?;
        self.verifier.verify_client_cert(own, intermediates, now).ok()?;
        let subject = X509::from_der(own).ok()?.tbs_certificate.subject;
        Some(subject.to_string().into())
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    /// Whether it is valid is asked after the handshake, by [`subject`](Self::subject).
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
