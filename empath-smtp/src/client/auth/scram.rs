//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::sasl::{Keys, Secret, prepare, sign};

/// Most iterations that are made for a server: more is no protection, but an attack on us.
const MAX_ITERATIONS: u32 = 1_000_000;

/// After our first message.
#[derive(Debug)]
pub(super) struct First {
    bare: String,
    nonce: String,
}

/// After our final message.
#[derive(Debug)]
pub(super) struct Challenged {
    signature: [u8; 32],
}

impl First {
    /// Our first message, `n,,n=name,r=nonce`.
    pub(super) fn new(user: &str, nonce: &str) -> (Self, String) {
        let name = prepare::name(user.as_bytes()).unwrap_or_else(|| user.into());
        let bare = format!("n={},r={nonce}", super::saslname(&name));
        let message = format!("n,,{bare}");
        (Self { bare, nonce: nonce.to_owned() }, message)
    }

    /// Our answer to the server's first message, `r=nonce,s=salt,i=iterations`, unless that is none.
    pub(super) fn respond(self, password: &Secret, server_first: &[u8]) -> Option<(Challenged, String)> {
        let server_first = str::from_utf8(server_first).ok()?;
        let mut attributes = server_first.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = STANDARD.decode(attributes.next()?.strip_prefix("s=")?).ok()?;
        let iterations: NonZeroU32 = attributes.next()?.strip_prefix("i=")?.parse().ok()?;
        // RFC 7677 §4: with less than 4096 the password could be found from what we say.
        let is_sane = (4096..=MAX_ITERATIONS).contains(&iterations.get());
        // RFC 5802 §5.1: it begins with ours, and the server has added something.
        if !is_sane || nonce.strip_prefix(self.nonce.as_str())?.is_empty() {
            return None;
        }
        let keys = Keys::derive(&prepare::password(password), &salt, iterations);
        let without_proof = format!("c=biws,r={nonce}");
        let messages = format!("{},{server_first},{without_proof}", self.bare);
        let signature = sign(&keys.stored(), messages.as_bytes());
        let proof: Vec<u8> = keys.client.iter().zip(signature).map(|(key, octet)| key ^ octet).collect();
        let challenged = Challenged { signature: sign(&keys.server, messages.as_bytes()) };
        Some((challenged, format!("{without_proof},p={}", STANDARD.encode(proof))))
    }
}

impl Challenged {
    /// Whether the server's final message, `v=signature`, was made by somebody who knows the password.
    pub(super) fn is_signature(&self, server_final: &[u8]) -> bool {
        let text = str::from_utf8(server_final).ok().and_then(|text| text.strip_prefix("v="));
        let signature =
            text.and_then(|text| STANDARD.decode(text.split(',').next().unwrap_or_default()).ok());
        signature.is_some_and(|signature| {
            constant_time::verify_slices_are_equal(&signature, &self.signature).is_ok()
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// RFC 7677 §3
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub(in super::super) const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    pub(in super::super) const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    pub(in super::super) const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn first() -> First {
        First::new("user", "rOprNGfwEbeRWgbNEkqO").0
    }

    fn pencil() -> Secret {
        Secret::from(&b"pencil"[..])
    }

    #[test]
    fn the_example_of_rfc_7677() {
        assert_eq!(First::new("user", "rOprNGfwEbeRWgbNEkqO").1, CLIENT_FIRST);
        let (challenged, message) = first().respond(&pencil(), SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(message, CLIENT_FINAL);
        assert!(challenged.is_signature(SERVER_FINAL.as_bytes()));
        for wrong in ["", "v=", "v=AAAA", "e=invalid-proof", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="] {
            assert!(!challenged.is_signature(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_first_message_of_a_server_gets_no_proof() {
        for wrong in [
            "",
            "r=other%x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
            "r=rOprNGfwEbeRWgbNEkqO%x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1000001",
            "r=rOprNGfwEbeRWgbNEkqO%x,s=W22ZaJ0SNY7soEsUEjb6gQ==",
            "r=rOprNGfwEbeRWgbNEkqO%x,s=!,i=4096",
            "m=ext,r=rOprNGfwEbeRWgbNEkqO%x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ] {
            assert!(first().respond(&pencil(), wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_comma_and_an_equals_sign_in_a_name_are_written_as_rfc_5802_says() {
        assert_eq!(First::new("a,b=c", "x").1, "n,,n=a=2Cb=3Dc,r=x");
    }
}
