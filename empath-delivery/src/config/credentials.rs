use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use empath_common::Problem;
use empath_smtp::client::{Credentials, MAX_TOKEN, Proof, Secret, Token, TokenError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest password in octets.
const MAX_PASSWORD: usize = 1024;

/// Credentials for a smarthost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmarthostAuth {
    /// The name by which the host knows us.
    ///
    /// Google and Microsoft have the address of the mailbox for it. Default: none, and it is needed.
    pub user: String,
    /// A file whose first line is the password.
    ///
    /// It is shown by the strongest of SCRAM-SHA-256, PLAIN and LOGIN that the host offers. It is read by the check of the configuration
    /// and again for each connection, so that a new password needs no restart. While it cannot be read, or the host refuses it,
    /// mail waits. Only the daemon's user should be able to read it. Relative to the configuration file. Default: none; either it or
    /// `token_file` is needed.
    #[schemars(with = "Option<String>")]
    pub password_file: Option<PathBuf>,
    /// A file whose first line is an OAuth 2.0 access token (RFC 6750), which another program keeps fresh.
    ///
    /// For hosts that take no passwords any more. It is shown by OAUTHBEARER (RFC 7628) if the host offers that, else by XOAUTH2. It is
    /// read as `password_file` is, so that program has nothing to do but to replace the file before the token expires, best by
    /// renaming a new one. At most 8192 octets. Only that program and the daemon's user should be able to read it. Relative to the
    /// configuration file. Default: none.
    #[schemars(with = "Option<String>")]
    pub token_file: Option<PathBuf>,
}

/// Why there is no password or token.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is not said where it is, or which it is.
    #[error("give either password_file or token_file")]
    NotOne,
    /// It can't be read.
    #[error("{}: {error}: give a file that the daemon can read", .file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its first line is empty.
    #[error("{}: its first line is empty: write the password or token there", .0.display())]
    Empty(PathBuf),
    /// Its first line is endless.
    #[error("{}: its first line is longer than {most} octets", .file.display())]
    TooLong {
        /// Which.
        file: PathBuf,
        /// How long it may be.
        most: usize,
    },
    /// Its first line is something else.
    #[error("{}: its first line is not a token: {error}", .file.display())]
    NoToken {
        /// Which.
        file: PathBuf,
        /// Why.
        error: TokenError,
    },
}

impl SmarthostAuth {
    /// The paths, which may be relative to the configuration file.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.password_file.iter_mut().chain(&mut self.token_file)
    }

    /// What is wrong with the values.
    pub(super) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.user.is_empty() || self.user.contains(char::is_control) {
            problems.push(Problem::new("user", "is needed, without control characters"));
        }
        if let Err(error) = self.proof() {
            let key = if self.token_file.is_some() { "token_file" } else { "password_file" };
            problems.push(Problem::new(key, error.to_string()));
        }
        problems
    }

    /// Reads the password or the token.
    pub(crate) fn credentials(&self) -> Result<Credentials, SecretError> {
        Ok(Credentials { user: self.user.as_str().into(), proof: self.proof()? })
    }

    fn proof(&self) -> Result<Proof, SecretError> {
        match (&self.password_file, &self.token_file) {
            (Some(file), None) => Ok(Proof::Password(first_line(file, MAX_PASSWORD)?)),
            (None, Some(file)) => {
                let token = Token::try_from(first_line(file, MAX_TOKEN)?);
                Ok(Proof::Token(token.map_err(|error| SecretError::NoToken { file: file.clone(), error })?))
            }
            _ => Err(SecretError::NotOne),
        }
    }
}

/// The first line of a file.
fn first_line(file: &Path, most: usize) -> Result<Secret, SecretError> {
    // CRLF too.
    let bound = most + 2;
    let mut text = Vec::with_capacity(bound);
    let read = File::open(file).and_then(|open| open.take(bound as u64).read_to_end(&mut text));
    // It is overwritten when it is dropped.
    let text = Secret::from(text);
    read.map_err(|error| SecretError::Read { file: file.to_path_buf(), error })?;
    let line = text.octets().split(|octet| *octet == b'\n').next().unwrap_or_default();
    match line.strip_suffix(b"\r").unwrap_or(line) {
        [] => Err(SecretError::Empty(file.to_path_buf())),
        line if line.len() > most => Err(SecretError::TooLong { file: file.to_path_buf(), most }),
        line => Ok(line.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let long = "x".repeat(1024);
        for (text, expected) in [
            ("sesame", Some("sesame")),
            ("sesame\n", Some("sesame")),
            (" open sesame \r\n# from 2026\n", Some(" open sesame ")),
            ("", None),
            ("\nsesame", None),
            (&format!("{long}\r\n"), Some(&*long)),
            (&format!("{long}x"), None),
            (&format!("{long}x\r\n"), None),
            (&format!("{long}{long}"), None),
        ] {
            std::fs::write(&file, text).unwrap();
            let read = first_line(&file, MAX_PASSWORD).ok();
            assert_eq!(read.as_ref().map(Secret::octets), expected.map(str::as_bytes), "{text:?}");
        }
        let gone = first_line(&directory.path().join("nowhere"), MAX_PASSWORD).unwrap_err().to_string();
        assert!(gone.contains("nowhere") && gone.contains("give a file"), "{gone}");
    }

    #[test]
    fn either_a_password_or_a_token_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            Some(file)
        };
        let auth = |password_file, token_file| SmarthostAuth { user: "u".into(), password_file, token_file };
        let problems =
            |auth: &SmarthostAuth| auth.validate().iter().map(Problem::to_string).collect::<Vec<_>>();
        let (secret, token) = (file("secret", "open sesame\n"), file("token", "ya29.a-b==\n"));

        let by_password = auth(secret.clone(), None);
        assert_eq!(problems(&by_password), Vec::<String>::new());
        assert!(matches!(by_password.credentials().unwrap().proof, Proof::Password(_)));
        let by_token = auth(None, token.clone());
        assert_eq!(problems(&by_token), Vec::<String>::new());
        let Proof::Token(shown) = by_token.credentials().unwrap().proof else {
            panic!("a token was expected")
        };
        assert_eq!(shown.octets(), b"ya29.a-b==");

        for (auth, expected) in [
            (auth(None, None), "password_file: give either password_file or token_file"),
            (auth(secret.clone(), token), "token_file: give either password_file or token_file"),
            (auth(None, secret), "token_file: /secret: its first line is not a token: a token has letters"),
            (auth(None, file("empty", "\n")), "token_file: /empty: its first line is empty"),
            (
                auth(None, file("long", &"x".repeat(8193))),
                "token_file: /long: its first line is longer than 8192 octets",
            ),
        ] {
            let problems = problems(&auth);
            let shown = problems[0].replace(directory.path().to_str().unwrap(), "");
            assert!(problems.len() == 1 && shown.starts_with(expected), "{shown}");
        }
    }
}
