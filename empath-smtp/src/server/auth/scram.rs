//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Fault, Verifier, prepare};

/// The client's first message, `gs2-header n=name,r=nonce` (RFC 5802 §7).
#[derive(Debug)]
pub(super) struct ClientFirst {
    /// The name, prepared.
    pub(super) name: Box<str>,
    gs2_header: Box<str>,
    bare: Box<str>,
    nonce: Box<str>,
}

/// After our first message.
#[derive(Debug)]
pub(super) struct Challenged {
    pub(super) name: Box<str>,
    gs2_header: Box<str>,
    /// Theirs and ours together.
    nonce: String,
    /// All messages so far, as they are signed.
    messages: String,
    verifier: Verifier,
}

/// After the client's final message.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) name: Box<str>,
    /// Our final message. `None` when the client's proof is wrong.
    pub(super) server_final: Option<String>,
}

/// Longest nonce of a client that is taken. Ours is made of it, and goes out in one line.
const MAX_NONCE: usize = 256;

impl ClientFirst {
    pub(super) fn parse(message: &[u8]) -> Result<Self, Fault> {
        let message = str::from_utf8(message).map_err(|_| Fault::Scram("invalid-encoding"))?;
        let mut parts = message.splitn(3, ',');
        let (flag, authzid) = (parts.next(), parts.next());
        let bare = parts.next().ok_or(Fault::Malformed)?;
        match flag {
            // `y`: the client could bind to the channel, and believes that we could not. It is right.
            Some("n" | "y") => {}
            Some(flag) if flag.starts_with("p=") => {
                return Err(Fault::Scram("channel-binding-not-supported"));
            }
            _ => return Err(Fault::Malformed),
        }
        if bare.starts_with("m=") {
            return Err(Fault::Scram("extensions-not-supported"));
        }
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|a| a.strip_prefix("n=")).ok_or(Fault::Malformed)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(Fault::Malformed)?;
        if nonce.is_empty() || nonce.len() > MAX_NONCE || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::Malformed);
        }
        let name = saslname(name)?;
        match authzid.unwrap_or_default() {
            "" => {}
            authzid => {
                if saslname(authzid.strip_prefix("a=").ok_or(Fault::Malformed)?)? != name {
                    return Err(Fault::OtherIdentity);
                }
            }
        }
        let gs2_header = message.strip_suffix(bare).unwrap_or_default();
        Ok(Self { name, gs2_header: gs2_header.into(), bare: bare.into(), nonce: nonce.into() })
    }

    /// Our first message. `nonce` is random, and has only visible ASCII without commas.
    pub(super) fn challenge(self, verifier: Verifier, nonce: &str) -> (Challenged, String) {
        let nonce = format!("{}{nonce}", self.nonce);
        let server_first =
            format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let messages = format!("{},{server_first}", self.bare);
        let challenged =
            Challenged { name: self.name, gs2_header: self.gs2_header, nonce, messages, verifier };
        (challenged, server_first)
    }
}

impl Challenged {
    /// Checks the client's final message, `c=binding,r=nonce,p=proof`.
    pub(super) fn prove(mut self, message: &[u8]) -> Result<Proven, Fault> {
        let message = str::from_utf8(message).map_err(|_| Fault::Scram("invalid-encoding"))?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|a| a.strip_prefix("c=")).ok_or(Fault::Malformed)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(Fault::Malformed)?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| Fault::Scram("invalid-encoding"));
        let proof = decode(proof)?;
        if decode(binding)? != self.gs2_header.as_bytes() {
            return Err(Fault::Scram("channel-bindings-dont-match"));
        }
        if nonce != self.nonce {
            return Err(Fault::Scram("other-error"));
        }
        self.messages.push(',');
        self.messages.push_str(without_proof);
        let right = self.verifier.is_proof(&proof, &self.messages);
        let server_final = right.then(|| format!("v={}", self.verifier.signature(&self.messages)));
        Ok(Proven { name: self.name, server_final })
    }
}

/// A name with `=2C` for a comma and `=3D` for an equals sign; no other `=` may stand in it (RFC 5802 §5.1).
fn saslname(text: &str) -> Result<Box<str>, Fault> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Fault::Scram("invalid-username-encoding")),
        };
        name.push(character);
        name.push_str(rest);
    }
    prepare::name(name.as_bytes()).ok_or(Fault::Scram("invalid-username-encoding"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 7677 §3
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn verifier(password: &str) -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::derive(password.as_bytes(), &salt, 4096.try_into().unwrap())
    }

    fn challenged(password: &str) -> Challenged {
        ClientFirst::parse(CLIENT_FIRST).unwrap().challenge(verifier(password), NONCE).0
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let first = ClientFirst::parse(CLIENT_FIRST).unwrap();
        assert_eq!(&*first.name, "user");
        let (challenged, server_first) = first.challenge(verifier("pencil"), NONCE);
        assert_eq!(server_first, SERVER_FIRST);
        let proven = challenged.prove(CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!((&*proven.name, proven.server_final.as_deref()), ("user", Some(SERVER_FINAL)));
    }

    #[test]
    fn a_proof_made_with_another_password_is_wrong() {
        let proven = challenged("pencils").prove(CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!(proven.server_final, None);
    }

    #[test]
    fn first_messages() {
        let name =
            |message: &str| ClientFirst::parse(message.as_bytes()).map(|first| String::from(first.name));
        for (message, expected) in [
            ("n,,n=user,r=x", Ok("user".to_owned())),
            ("y,,n=user,r=x", Ok("user".to_owned())),
            ("n,a=user,n=user,r=x", Ok("user".to_owned())),
            ("n,,n=a=2Cb=3Dc,r=x,future=1", Ok("a,b=c".to_owned())),
            ("n,a=root,n=user,r=x", Err(Fault::OtherIdentity)),
            ("p=tls-exporter,,n=user,r=x", Err(Fault::Scram("channel-binding-not-supported"))),
            ("n,,m=ext,n=user,r=x", Err(Fault::Scram("extensions-not-supported"))),
            ("n,,n=a=2cb,r=x", Err(Fault::Scram("invalid-username-encoding"))),
            ("n,,n=a=,r=x", Err(Fault::Scram("invalid-username-encoding"))),
            ("n,,n=,r=x", Err(Fault::Scram("invalid-username-encoding"))),
            ("n,,n=user,r=", Err(Fault::Malformed)),
            ("n,,n=user,r=\u{7}", Err(Fault::Malformed)),
            ("n,,n=user", Err(Fault::Malformed)),
            ("n,,r=x,n=user", Err(Fault::Malformed)),
            ("n,user,n=user,r=x", Err(Fault::Malformed)),
            ("x,,n=user,r=x", Err(Fault::Malformed)),
            ("n", Err(Fault::Malformed)),
            ("", Err(Fault::Malformed)),
        ] {
            assert_eq!(name(message), expected, "{message:?}");
        }
        assert_eq!(name(&format!("n,,n=user,r={}", "x".repeat(257))), Err(Fault::Malformed));
        assert_eq!(ClientFirst::parse(b"\xff").err(), Some(Fault::Scram("invalid-encoding")));
    }

    proptest! {
        #[test]
        fn no_message_brings_it_down_or_is_a_proof(
            first in "([nyp],(a=)?[a-z]{0,2},)?(n=[a=,2C3D\u{e9}]{0,6})?(,r=[a-z]{0,3})?.{0,4}",
            last in "(c=[a-zA-Z=]{0,6})?(,r=[a-z]{0,4})?.{0,4}(,p=[a-zA-Z+/=]{0,44})?",
        ) {
            if let Ok(first) = ClientFirst::parse(first.as_bytes()) {
                let (challenged, server_first) = first.challenge(VERIFIER.parse().unwrap(), "nonce");
                prop_assert!(server_first.starts_with("r="));
                let accepted = challenged.prove(last.as_bytes()).is_ok_and(|proven| proven.server_final.is_some());
                prop_assert!(!accepted);
            }
        }
    }

    #[test]
    fn final_messages() {
        let nonce = format!("rOprNGfwEbeRWgbNEkqO{NONCE}");
        for (message, expected) in [
            (format!("c=eSws,r={nonce},p=AAAA"), Fault::Scram("channel-bindings-dont-match")),
            (format!("c=biws,r={nonce}x,p=AAAA"), Fault::Scram("other-error")),
            (format!("c=biws,r={NONCE},p=AAAA"), Fault::Scram("other-error")),
            (format!("c=biws,r={nonce},p=AAA"), Fault::Scram("invalid-encoding")),
            (format!("c=bi,r={nonce},p=AAAA"), Fault::Scram("invalid-encoding")),
            (format!("c=biws,r={nonce}"), Fault::Malformed),
            (format!("r={nonce},c=biws,p=AAAA"), Fault::Malformed),
            (String::new(), Fault::Malformed),
        ] {
            assert_eq!(challenged("pencil").prove(message.as_bytes()).err(), Some(expected), "{message:?}");
        }
        let short = challenged("pencil").prove(format!("c=biws,r={nonce},p=AAAA").as_bytes()).unwrap();
        assert_eq!(short.server_final, None);
    }
}
