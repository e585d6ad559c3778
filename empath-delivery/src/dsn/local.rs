//! What outsiders are told of our own troubles.

use empath_common::{EnhancedStatus, Reply};

/// A failure that lies with this host or its configuration, as outsiders are told of it. The detail names files, addresses
/// and users of ours: it is for the log and for operators.
///
/// It follows from what is stored of an attempt, so that it is the same after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Local {
    /// Files can't be read or written.
    #[error("the mail system has a local problem")]
    System,
    /// No space, or no more of it for the recipient.
    #[error("the mail system has no space for the message")]
    Full,
    /// The next hop can't be reached the way that is configured.
    #[error("the mail system is not configured to reach the next hop")]
    Configuration,
    /// Our credentials are not accepted.
    #[error("the next hop does not let the mail system in")]
    Credentials,
    /// No file can have a name for this address.
    #[error("the address is too long")]
    Address,
}

impl Local {
    /// What is told of an attempt that ended like this; `None` if it may be told in full. Without a reply it was us who
    /// chose the status.
    pub(crate) fn of(status: EnhancedStatus, reply: Option<&Reply>) -> Option<Self> {
        match (status.class, status.subject, status.detail) {
            _ if reply.is_some() => None,
            (4, 3, 0) => Some(Self::System),
            (4, 3, 1) => Some(Self::Full),
            (4, 3, 5) => Some(Self::Configuration),
            // What a host says to AUTH may be about our user.
            (4, 3, 2) | (4, 7, 0 | 8) => Some(Self::Credentials),
            (5, 1, 3) => Some(Self::Address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use empath_smtp::client::{self, FailureKind, Stage};

    use super::*;
    use crate::{
        config::SecretError,
        failure::{Failure, Scope},
        maildir::MaildirError,
        resolve::ResolveError,
    };

    fn told(failure: &Failure) -> Option<Local> {
        Local::of(failure.status, failure.reply.as_ref())
    }

    #[test]
    fn of_our_own_troubles_outsiders_hear_no_details() {
        let path = || PathBuf::from("/srv/mail/bob/tmp");
        let source = || io::ErrorKind::AlreadyExists.into();
        let configured = ResolveError::NoSuchDomain("relay.corp.test".parse().unwrap());
        let said = |stage, code, text: &str| {
            let kind = FailureKind::Refused(Reply::plain(code, "").with_text(text.to_owned()));
            Failure::from(client::Failure { stage, kind })
        };
        for (failure, expected) in [
            ((&MaildirError::Io { path: path(), source: source() }).into(), Local::System),
            ((&MaildirError::Full { path: path(), source: source() }).into(), Local::Full),
            ((&MaildirError::NameTooLong { path: path() }).into(), Local::Address),
            ((&MaildirError::Stopped).into(), Local::System),
            (Failure::unreadable(), Local::System),
            (Failure::without_secret(&SecretError::Empty(path())), Local::Configuration),
            (Failure::absent_source("192.0.2.1".parse().unwrap()), Local::Configuration),
            (Failure::of_configured_host(&configured), Local::Configuration),
            (Failure::configured_loop(), Local::Configuration),
            (said(Stage::Auth, 535, "no user relay17"), Local::Credentials),
            (said(Stage::Auth, 454, "relay17: later"), Local::Credentials),
            (said(Stage::Auth, 421, "relay17: too many connections"), Local::Credentials),
        ] {
            assert_eq!(told(&failure), Some(expected), "{failure:?}");
            let text = expected.to_string();
            assert!(!text.contains(['/', '@', '.']) && !text.contains(&failure.detail), "{text}");
        }
    }

    #[test]
    fn what_others_did_is_told_in_full() {
        let refused = FailureKind::Refused(Reply::new(450, (4, 3, 0), "sick"));
        for failure in [
            (&ResolveError::NoSuchDomain("gone.test".parse().unwrap())).into(),
            Failure::new(Scope::Host, (4, 4, 1), "connect: timed out"),
            client::Failure { stage: Stage::RcptTo, kind: refused }.into(),
            Failure::loops_back(),
            Failure::lost(),
        ] {
            assert_eq!(told(&failure), None, "{failure:?}");
        }
    }
}
