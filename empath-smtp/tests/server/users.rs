//! The users of the tests: alice, whose password is `secret`, and who may send as anybody at `alice.example` too.

use empath_smtp::server::auth::{AuthAnswer, AuthQuery, Identity, Verifier};

pub(crate) const NAME: &str = "alice@test.example";
pub(crate) const PASSWORD: &str = "secret";
pub(crate) const NONCE: &str = "serverNonce";

/// Their users file. The hash is a cheap one, so that tests are quick.
pub(crate) const FILE: &str = "# users of the tests\n\n\
    alice@test.example $argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$+v0rf6ETYAIpqJIjJyARZ3W3zqJlkf+0TRXzsLHmR6o \
    SCRAM-SHA-256$4096:c2FsdHNhbHQ=$v9cxy4WCDtc8UMxTg6KXCtlxIku1bUKTGuWEXFC1L54=:rwGpSn6lR97mSEImO0RA7JCZ4WnpCnnKddTt3G/t6II= \
    @alice.example\n";

/// That of the file.
fn verifier() -> Verifier {
    FILE.split_ascii_whitespace().find_map(|field| field.parse().ok()).unwrap()
}

/// Answers as the users file would, without a file, hashing or delays.
pub(crate) fn answer(query: AuthQuery<'_>) -> AuthAnswer {
    let identity = || Identity { name: NAME.into(), senders: ["@alice.example".parse().unwrap()].into() };
    match query {
        AuthQuery::Password(NAME, password) if password.octets() == PASSWORD.as_bytes() => {
            AuthAnswer::Accepted(identity())
        }
        AuthQuery::Proof(NAME, true) => AuthAnswer::Accepted(identity()),
        AuthQuery::Password("broken", _) => AuthAnswer::Unavailable,
        AuthQuery::Password("guessed", _) => AuthAnswer::TooMany,
        AuthQuery::Password(..) | AuthQuery::Proof(..) => AuthAnswer::Refused,
        AuthQuery::Keys(_) => AuthAnswer::Keys(verifier(), NONCE.to_owned()),
    }
}
