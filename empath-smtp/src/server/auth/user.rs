use std::{fmt, str::FromStr, sync::Arc};

use argon2::password_hash::phc::PasswordHash;
use empath_common::{Domain, DomainError, Mailbox, MailboxError};

use super::{Verifier, VerifierError, prepare};

/// A user, as a line of the users file has it: the name, an argon2id hash of the password (in the PHC string format),
/// a SCRAM-SHA-256 verifier (RFC 5803), and what the user may send as, with commas between.
///
/// ```text
/// alice@example.test $argon2id$v=19$m=19456,t=2,p=1$… SCRAM-SHA-256$100000:…$…:… sales@example.test,@alice.test
/// ```
#[derive(Clone)]
pub struct User {
    /// Who the user is, and what may be sent as.
    pub identity: Identity,
    pub(super) hash: PasswordHash,
    pub(super) verifier: Verifier,
}

/// Who somebody has turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub name: Box<str>,
    /// What the user may send as, besides the own name.
    pub senders: Arc<[Sender]>,
}

/// An address that a user may send as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// `sales@example.test`
    Mailbox(Mailbox),
    /// `@example.test`: every address of the domain.
    Domain(Domain),
}

/// Why a line names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Not the right number of fields.
    #[error(
        "a line has three or four fields: name, argon2id hash, SCRAM-SHA-256 verifier, addresses; make it with `empath user add`"
    )]
    Fields,
    /// Not a name.
    #[error(
        "the name is not one that SASLprep (RFC 4013) leaves as it is: use one of at most 255 octets without space and controls, and no # at its start"
    )]
    Name,
    /// Not an argon2id hash.
    #[error(
        "the second field is not an argon2id hash ($argon2id$v=19$…): set the password with `empath user add`"
    )]
    Hash,
    /// The hash would take more memory or time than a server has.
    #[error(
        "the argon2id hash takes more than 1 GiB of memory or 100 passes: set the password with `empath user add`"
    )]
    Cost,
    /// Not a verifier.
    #[error("the third field is no verifier: {0}; set the password with `empath user add`")]
    Verifier(#[from] VerifierError),
    /// Not an address or domain.
    #[error("{0}")]
    Sender(#[from] SenderError),
}

/// The text is neither an address nor a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// Of the form of an address.
    #[error(
        "not an address to send as: {0}; write \"sales@example.test\", or \"@example.test\" for a whole domain"
    )]
    Mailbox(#[from] MailboxError),
    /// Of the form of a domain.
    #[error("not a domain to send from: {0}; write \"@example.test\"")]
    Domain(#[from] DomainError),
}

/// Most memory (in KiB) and passes that a hash may take.
const MAX_COST: (u32, u32) = (1 << 20, 100);

impl Identity {
    /// Whether mail from this address is the user's own. Needless quotes mean nothing (RFC 5321 §4.1.2), nor does the local
    /// part's case here: nobody gives `Alice` and `alice` to two people.
    pub fn owns(&self, address: &Mailbox) -> bool {
        let same = |own: &Mailbox| {
            own.host() == address.host()
                && own.canonical_local_part().eq_ignore_ascii_case(&address.canonical_local_part())
        };
        self.name.parse().is_ok_and(|own| same(&own))
            || self.senders.iter().any(|sender| match sender {
                Sender::Mailbox(own) => same(own),
                Sender::Domain(domain) => address.domain() == Some(domain),
            })
    }
}

impl FromStr for User {
    type Err = UserError;

    fn from_str(line: &str) -> Result<Self, UserError> {
        let mut fields = line.split_ascii_whitespace();
        let (Some(name), Some(hash), Some(verifier), senders, None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(UserError::Fields);
        };
        check_name(name)?;
        let senders = senders.map(|text| text.split(',').map(Sender::from_str).collect()).transpose()?;
        Ok(Self {
            identity: Identity { name: name.into(), senders: senders.unwrap_or_default() },
            hash: parse_hash(hash)?,
            verifier: verifier.parse()?,
        })
    }
}

/// Whether a user may have this name: one that may be typed in other ways too would not be found.
pub(super) fn check_name(name: &str) -> Result<(), UserError> {
    let good = prepare::name(name.as_bytes()).as_deref() == Some(name) && !name.starts_with('#');
    if good { Ok(()) } else { Err(UserError::Name) }
}

fn parse_hash(text: &str) -> Result<PasswordHash, UserError> {
    let hash = PasswordHash::new(text).map_err(|_| UserError::Hash)?;
    if hash.algorithm.as_str() != "argon2id"
        || hash.version != Some(19)
        || hash.salt.is_none()
        || hash.hash.is_none()
    {
        return Err(UserError::Hash);
    }
    let params = argon2::Params::try_from(&hash).map_err(|_| UserError::Hash)?;
    let (memory, passes) = MAX_COST;
    if params.m_cost() > memory || params.t_cost() > passes || params.p_cost() > 64 {
        return Err(UserError::Cost);
    }
    Ok(hash)
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: Identity { name, senders }, hash, verifier } = self;
        write!(f, "{name} {hash} {verifier}")?;
        for (n, sender) in senders.iter().enumerate() {
            write!(f, "{}{sender}", if n == 0 { ' ' } else { ',' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl FromStr for Sender {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, SenderError> {
        match text.strip_prefix('@') {
            Some(domain) => Ok(Self::Domain(domain.parse()?)),
            None => Ok(Self::Mailbox(text.parse()?)),
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(mailbox) => mailbox.fmt(f),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str =
        "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$iO1kqfWVZQcMIKtKP2Nbz1zkCc8FlXMiOmwyMXuJVbQ";
    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_line_is_a_user_and_is_written_as_it_was_read() {
        for senders in ["", " sales@example.test", " sales@example.test,@alice.test"] {
            let line = format!("alice@example.test {HASH} {VERIFIER}{senders}");
            assert_eq!(line.parse::<User>().map(|user| user.to_string()), Ok(line));
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        let error =
            |line: &str| line.parse::<User>().map(|user| user.to_string()).map_err(|error| error.to_string());
        for (line, start) in [
            ("alice".to_owned(), "a line has three or four fields"),
            (format!("a {HASH} {VERIFIER} x@y.test z"), "a line has three or four fields"),
            (format!("\u{aa} {HASH} {VERIFIER}"), "the name is not one"),
            (format!("#a {HASH} {VERIFIER}"), "the name is not one"),
            (format!("a secret {VERIFIER}"), "the second field is not an argon2id hash"),
            (format!("a $argon2i${} {VERIFIER}", &HASH[10..]), "the second field is not an argon2id hash"),
            (format!("a {} {VERIFIER}", HASH.replace("m=64", "m=4194304")), "the argon2id hash takes more"),
            (format!("a {} {VERIFIER}", HASH.replace("t=1", "t=101")), "the argon2id hash takes more"),
            (format!("a {HASH} {HASH}"), "the third field is no verifier"),
            (format!("a {HASH} {VERIFIER} sales"), "not an address to send as"),
            (format!("a {HASH} {VERIFIER} @-"), "not a domain to send from"),
        ] {
            let error = error(&line).unwrap_err();
            assert!(error.starts_with(start), "{line}: {error}");
        }
    }

    #[test]
    fn a_user_owns_the_own_name_and_what_is_listed() {
        let senders = ["sales@example.test", "@alice.test"].map(|text| text.parse().unwrap());
        let identity = Identity { name: "Alice@example.test".into(), senders: senders.into() };
        for (address, owned) in [
            ("alice@example.test", true),
            ("ALICE@EXAMPLE.test", true),
            ("\"alice\"@example.test", true),
            ("\"al\\ice\"@example.test", true),
            ("\"al ice\"@example.test", false),
            ("sales@example.test", true),
            ("anything@alice.test", true),
            ("anything@sub.alice.test", false),
            ("bob@example.test", false),
            ("alice@[192.0.2.1]", false),
            ("\"alice@example.test\"@evil.test", false),
        ] {
            assert_eq!(identity.owns(&address.parse().unwrap()), owned, "{address}");
        }
        let identity = Identity { name: "alice".into(), senders: [].into() };
        assert!(!identity.owns(&"alice@example.test".parse().unwrap()));
    }

    #[test]
    fn debug_shows_no_hash() {
        let user: User = format!("a {HASH} {VERIFIER}").parse().unwrap();
        assert!(!format!("{user:?}").contains("argon2"), "{user:?}");
    }
}
