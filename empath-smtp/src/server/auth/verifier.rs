use std::{fmt, num::NonZeroU32, str::FromStr};

use aws_lc_rs::constant_time;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::sasl::{Keys, hash, sign};

/// What is kept of a password for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677). It is written as RFC 5803 §2 says:
/// `SCRAM-SHA-256$iterations:salt$stored-key:server-key`.
///
/// Who has it can play the server, and try passwords, but can't log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

/// Why some text is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// It is of another mechanism, or of none.
    #[error("it does not have the form SCRAM-SHA-256$iterations:salt$stored-key:server-key")]
    Form,
    /// RFC 7677 §4 asks for at least 4096; clients refuse less, and give up on too many.
    #[error("the iterations are not a number from 4096 to 10000000")]
    Iterations,
    /// A part is not base64.
    #[error("a part is not base64")]
    Base64,
    /// The salt is too short, or a key has another length than SHA-256 gives.
    #[error("the salt has less than 8 or more than 64 octets, or a key has not 32")]
    Length,
}

const PREFIX: &str = "SCRAM-SHA-256$";

impl Verifier {
    /// The verifier of a prepared password.
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let keys = Keys::derive(password, salt, iterations);
        Self { iterations, salt: salt.into(), stored_key: keys.stored(), server_key: keys.server }
    }

    /// Whether the proof was made with the password, for these messages (RFC 5802 §3).
    pub(super) fn is_proof(&self, proof: &[u8], messages: &str) -> bool {
        let signature = sign(&self.stored_key, messages.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(p, s)| p ^ s).collect();
        proof.len() == signature.len()
            && constant_time::verify_slices_are_equal(&hash(&client_key), &self.stored_key).is_ok()
    }

    /// What shows the client that we know its password too.
    pub(super) fn signature(&self, messages: &str) -> String {
        STANDARD.encode(sign(&self.server_key, messages.as_bytes()))
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let rest = text.strip_prefix(PREFIX).ok_or(VerifierError::Form)?;
        let (start, keys) = rest.split_once('$').ok_or(VerifierError::Form)?;
        let (iterations, salt) = start.split_once(':').ok_or(VerifierError::Form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Form)?;
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| VerifierError::Iterations)?;
        if !(4096..=10_000_000).contains(&iterations.get()) {
            return Err(VerifierError::Iterations);
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| VerifierError::Base64);
        let key = |text: &str| decode(text)?.try_into().map_err(|_| VerifierError::Length);
        let salt = decode(salt)?;
        if !(8..=64).contains(&salt.len()) {
            return Err(VerifierError::Length);
        }
        Ok(Self { iterations, salt: salt.into(), stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&*self.salt, &self.stored_key, &self.server_key].map(|octets| STANDARD.encode(octets));
        write!(f, "{PREFIX}{}:{salt}${stored_key}:{server_key}", self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of RFC 7677 §3, password `pencil`.
    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_is_derived_from_the_password_and_written_as_rfc_5803_says() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive(b"pencil", &salt, 4096.try_into().unwrap());
        assert_eq!(verifier.to_string(), VERIFIER);
        assert_eq!(VERIFIER.parse(), Ok(verifier));
    }

    #[test]
    fn what_is_no_verifier_is_refused_with_the_reason() {
        let keys =
            "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        for (text, error) in [
            ("", VerifierError::Form),
            ("SCRAM-SHA-1$4096:c2FsdHNhbHQ=$a:b", VerifierError::Form),
            ("SCRAM-SHA-256$4096:c2FsdHNhbHQ=", VerifierError::Form),
            (&format!("SCRAM-SHA-256$4095:c2FsdHNhbHQ={keys}"), VerifierError::Iterations),
            (&format!("SCRAM-SHA-256$-1:c2FsdHNhbHQ={keys}"), VerifierError::Iterations),
            (&format!("SCRAM-SHA-256$99999999999:c2FsdHNhbHQ={keys}"), VerifierError::Iterations),
            (&format!("SCRAM-SHA-256$4096:c2FsdHNhbHQ{keys}"), VerifierError::Base64),
            (&format!("SCRAM-SHA-256$4096:c2FsdA=={keys}"), VerifierError::Length),
            ("SCRAM-SHA-256$4096:c2FsdHNhbHQ=$c2FsdA==:c2FsdA==", VerifierError::Length),
        ] {
            assert_eq!(text.parse::<Verifier>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_proof_of_another_length_is_wrong() {
        let verifier: Verifier = VERIFIER.parse().unwrap();
        for len in [0, 31, 33, 1000] {
            assert!(!verifier.is_proof(&vec![0; len], "messages"));
        }
    }
}
