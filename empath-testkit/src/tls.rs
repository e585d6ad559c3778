//! Certificates made for a test.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

/// An authority of its own.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate, and what a server needs to show it.
#[derive(Debug, Clone)]
pub struct Identity(pub(crate) Arc<ServerConfig>);

/// What is odd about a certificate or its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// Nothing.
    None,
    /// It has expired.
    Expired,
    /// The name is not where names belong, in the subject alone (RFC 9525 §6.3).
    CommonNameOnly,
    /// It does not say that it is an authority, as others that have signed themselves do.
    NoAuthority,
    /// Its key is not that of the server.
    WrongKey,
    /// The server knows nothing newer than TLS 1.2.
    Old,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self::from(params)
    }

    /// One that is a server, and says of itself whether it is an authority; and its certificate as PEM.
    pub fn named(name: &str, is_authority: bool) -> (Self, String) {
        let mut params = params(name, Oddity::None);
        params.is_ca =
            if is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let authority = Self::from(params);
        let pem = authority.pem();
        (authority, pem)
    }

    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    fn from(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name or an address.
    pub fn sign(&self, name: &str) -> Identity {
        self.sign_odd(name, Oddity::None)
    }

    /// One that clients may not like.
    ///
    /// # Panics
    /// If the name can't be that of a server.
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn sign_odd(&self, name: &str, odd: Oddity) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(name, odd).signed_by(&key, &self.0).expect("a certificate");
        Identity::new(&certificate, &key, odd)
    }
}

impl Identity {
    /// One that nobody else vouches for, as `openssl req -x509` makes it, and its certificate as PEM.
    ///
    /// # Panics
    /// If the name can't be that of a server.
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn self_signed(name: &str, odd: Oddity) -> (Self, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name, odd);
        if odd != Oddity::NoAuthority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = params.self_signed(&key).expect("a certificate");
        (Self::new(&certificate, &key, odd), certificate.pem())
    }

    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    fn new(certificate: &Certificate, key: &KeyPair, odd: Oddity) -> Self {
        let versions: &[&SupportedProtocolVersion] =
            if odd == Oddity::Old { &[&TLS12] } else { &[&TLS13, &TLS12] };
        let another = KeyPair::generate().expect("a key");
        let key = if odd == Oddity::WrongKey { &another } else { key };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key to sign with");
        let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        Self(Arc::new(config))
    }
}

#[expect(clippy::expect_used, reason = "a test fails by panicking")]
fn params(name: &str, odd: Oddity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if odd != Oddity::CommonNameOnly {
        let name = match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.try_into().expect("a name")),
        };
        params.subject_alt_names.push(name);
    }
    if odd == Oddity::Expired {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    }
    params
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
