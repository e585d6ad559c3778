use std::sync::Arc;

use empath_common::{Domain, DomainPattern};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::Certificate;

/// Chooses the certificate for the name that a client asks for (SNI, RFC 6066 §3).
#[derive(Debug)]
pub(super) struct Choice {
    certificates: Vec<Certificate>,
    /// The place of the one for everybody else.
    default: usize,
    provider: CryptoProvider,
}

impl Choice {
    /// `None` when there is nothing to choose from.
    pub(super) fn new(certificates: Vec<Certificate>) -> Option<Self> {
        let names = || certificates.iter().map(Certificate::names);
        let default = names().position(|names| names.contains(&DomainPattern::Any)).unwrap_or(0);
        certificates.get(default)?;
        Some(Self { certificates, default, provider: aws_lc_rs::default_provider() })
    }

    fn choose(&self, name: Option<&str>) -> Option<&Certificate> {
        let names = self.certificates.iter().map(Certificate::names);
        // Names that are not domains (`a_b.test`) are nobody's.
        let best = name.and_then(|name| Domain::parse(name).ok()).and_then(|name| best(names, &name));
        self.certificates.get(best.unwrap_or(self.default))
    }
}

/// The place of the names that match `name` best.
fn best<'a>(all: impl Iterator<Item = &'a [DomainPattern]>, name: &Domain) -> Option<usize> {
    let matched = |names: &[DomainPattern]| {
        let lengths = names.iter().filter_map(|pattern| match pattern {
            DomainPattern::Exact(exact) => (exact == name).then_some(usize::MAX),
            DomainPattern::Below(ancestor) => name.is_below(ancestor).then(|| ancestor.as_str().len()),
            DomainPattern::Any => None,
        });
        lengths.max()
    };
    let matches = all.enumerate().filter_map(|(n, names)| Some((matched(names)?, n)));
    // Of equals, the first.
    matches.max_by_key(|(length, n)| (*length, std::cmp::Reverse(*n))).map(|(_, n)| n)
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name()).map(|certificate| certificate.current(&self.provider))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_wins_and_strangers_match_nothing() {
        let all: Vec<Vec<DomainPattern>> =
            [&["*"][..], &["*.example.test"], &["*.a.example.test", "mx.example.test"], &["mx.example.test"]]
                .map(|names| names.iter().map(|name| name.parse().unwrap()).collect())
                .to_vec();
        for (name, place) in [
            ("mx.example.test", Some(2)),
            ("MX.Example.Test", Some(2)),
            ("other.example.test", Some(1)),
            ("x.a.example.test", Some(2)),
            ("a.example.test", Some(1)),
            ("example.test", None),
            ("elsewhere.test", None),
        ] {
            let name = Domain::parse(name).unwrap();
            assert_eq!(best(all.iter().map(Vec::as_slice), &name), place, "{name}");
        }
    }
}
