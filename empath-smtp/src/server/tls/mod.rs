//! TLS for clients: certificates by name, read again when their files change; clients' certificates, if asked for.

mod certificate;
mod choice;
mod clients;

use std::{fmt, io, sync::Arc, time::Duration};

use empath_common::{Problem, TlsSession};
use jiff::Timestamp;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::UnixTime,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{certificate::Certificate, choice::Choice, clients::Clients};
use super::Config;

pub use certificate::CertificateConfig;

/// What a TLS handshake with a client needs. Cloning shares it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    clients: Option<Arc<Clients>>,
}

impl Tls {
    /// Loads the certificates of `config`: `None` without any, or everything that is wrong.
    pub fn load(config: &Config) -> Result<Option<Self>, Vec<Problem>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (certificates, mut problems) = certificates(config, &provider);
        let clients = config.client_ca.as_ref().and_then(|file| match Clients::load(file, &provider) {
            Ok(clients) => Some(Arc::new(clients)),
            Err(error) => {
                problems.push(Problem::new("client_ca", error.to_string()));
                None
            }
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let Some(choice) = Choice::new(certificates) else {
            return Ok(None);
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| vec![Problem::new("tls", error.to_string())])?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::<Clients>::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_cert_resolver(Arc::new(choice))));
        Ok(Some(Self { acceptor, clients }))
    }

    /// What works and still needs somebody's attention: certificates that are not valid at `now`.
    pub fn warnings(config: &Config, now: Timestamp) -> Vec<Problem> {
        let (certificates, _) = certificates(config, &aws_lc_rs::default_provider());
        let warning = |(n, certificate): (usize, Certificate)| {
            let message = certificate.validity()?.fault(now)?;
            Some(Problem::new(format!("tls[{n}].certificate"), message))
        };
        certificates.into_iter().enumerate().filter_map(warning).collect()
    }

    /// Does the handshake. The client hears of a failure; its connection comes back to be closed, nothing else.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        now: Timestamp,
    ) -> Result<(TlsStream<S>, TlsSession), (io::Error, S)> {
        let stream = self.acceptor.accept(stream).into_fallible().await?;
        let session = self.session(stream.get_ref().1, now);
        Ok((stream, session))
    }

    fn session(&self, connection: &ServerConnection, now: Timestamp) -> TlsSession {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or(0)));
        let chain = connection.peer_certificates().unwrap_or_default();
        let certificate = self.clients.as_ref().and_then(|clients| clients.subject(chain, now));
        crate::tls::session(connection, certificate)
    }
}

/// The certificates that can be loaded, and what is wrong with the others.
fn certificates(config: &Config, provider: &CryptoProvider) -> (Vec<Certificate>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut certificates = Vec::new();
    for (n, config) in config.tls.iter().enumerate() {
        match Certificate::load(config, provider) {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => problems.push(Problem::new(format!("tls[{n}].{}", error.key()), error.to_string())),
        }
    }
    (certificates, problems)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients).finish_non_exhaustive()
    }
}
