use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

/// The keys of SCRAM-SHA-256 (RFC 5802 §3, RFC 7677). Who has the client key can log in.
pub(crate) struct Keys {
    pub(crate) client: Zeroizing<[u8; 32]>,
    pub(crate) server: [u8; 32],
}

impl Keys {
    /// Those of a prepared password. It takes time as `iterations` says.
    pub(crate) fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut *salted);
        Self { client: Zeroizing::new(sign(&*salted, b"Client Key")), server: sign(&*salted, b"Server Key") }
    }

    /// What the server keeps of the client key.
    pub(crate) fn stored(&self) -> [u8; 32] {
        hash(&*self.client)
    }
}

pub(crate) fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    tag
}

pub(crate) fn hash(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    hash
}
