use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{User, UserError};

/// The users of a users file: one a line (see [`User`]); empty lines, and lines that start with `#`, mean nothing.
#[derive(Debug, Default)]
pub struct Users {
    users: Vec<Arc<User>>,
    by_name: HashMap<Box<str>, usize>,
}

/// Something in a users file, or the file itself, is no good.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file can't be read.
    #[error("{}: {source}: make one with `empath user add`, readable by the daemon", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is too large.
    #[error("{}: a users file has at most {MAX_FILE} octets", .0.display())]
    TooLarge(PathBuf),
    /// The file is not text.
    #[error("{}:{line}: not UTF-8: restore the file, or remove the line", .file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line names no user.
    #[error("{}:{line}: {source}", .file.display())]
    User {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The cause.
        source: UserError,
    },
    /// A user is named twice.
    #[error("{}:{line}: {name} is in line {first} already: remove one of them", .file.display())]
    Twice {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The user.
        name: Box<str>,
        /// The other line.
        first: usize,
    },
}

/// Octets of a users file.
const MAX_FILE: u64 = 64 << 20;

impl Users {
    /// Reads a users file; `Err` is everything that is wrong with it.
    pub fn read(file: &Path) -> Result<Self, Vec<UsersError>> {
        let text = read(file).map_err(|error| vec![error])?;
        let (mut users, mut errors, mut lines) = (Self::default(), Vec::new(), HashMap::new());
        for (n, line) in (1..).zip(text.lines()) {
            if is_comment(line) {
                continue;
            }
            match line.parse::<User>() {
                Ok(user) => {
                    let name = user.identity.name.clone();
                    if let Some(first) = lines.insert(name.clone(), n) {
                        errors.push(UsersError::Twice { file: file.to_path_buf(), line: n, name, first });
                    }
                    users.insert(user);
                }
                Err(source) => errors.push(UsersError::User { file: file.to_path_buf(), line: n, source }),
            }
        }
        if errors.is_empty() { Ok(users) } else { Err(errors) }
    }

    fn insert(&mut self, user: User) {
        self.by_name.insert(user.identity.name.clone(), self.users.len());
        self.users.push(Arc::new(user));
    }

    /// All users, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.iter().map(AsRef::as_ref)
    }

    /// The user of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name).and_then(|at| self.users.get(*at))
    }

    /// Some user, for whom another can be mistaken: the same one for the same number.
    pub(super) fn any(&self, number: u64) -> Option<&Arc<User>> {
        let at = number.checked_rem(self.users.len() as u64)?;
        usize::try_from(at).ok().and_then(|at| self.users.get(at))
    }
}

pub(super) fn is_comment(line: &str) -> bool {
    matches!(line.trim_start().chars().next(), None | Some('#'))
}

/// The text of a users file.
pub(super) fn read(file: &Path) -> Result<String, UsersError> {
    let read = || {
        let mut octets = Vec::new();
        File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut octets)?;
        Ok(octets)
    };
    let octets = read().map_err(|source| UsersError::Read { file: file.to_path_buf(), source })?;
    if octets.len() as u64 > MAX_FILE {
        return Err(UsersError::TooLarge(file.to_path_buf()));
    }
    String::from_utf8(octets).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + memchr::memchr_iter(b'\n', valid).count();
        UsersError::NotUtf8 { file: file.to_path_buf(), line }
    })
}
