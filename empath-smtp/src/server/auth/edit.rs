//! Changes of a users file, as `empath user` makes them: one at a time, and each whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    num::NonZeroU32,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use argon2::{
    Argon2,
    password_hash::{
        self, PasswordHasher as _,
        phc::{Output, PasswordHash},
    },
};
use aws_lc_rs::rand;

use super::{
    Identity, Secret, Sender, User, UserError, UsersError, Verifier, prepare, user,
    users::{self, is_comment},
};

/// Why a users file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The name can't be that of a user.
    #[error(transparent)]
    Name(#[from] UserError),
    /// The password is empty, or `SASLprep` (RFC 4013) forbids a character of it.
    #[error("the password is empty, or has a character that can't be typed everywhere: choose another")]
    Password,
    /// There is no such user.
    #[error("{}: there is no user {name}", .file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The name.
        name: String,
    },
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] UsersError),
    /// The file can't be written.
    #[error("{}: {source}", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The password can't be hashed.
    #[error("the password can't be hashed: {0}")]
    Hash(#[from] password_hash::Error),
    /// The system gives no random octets.
    #[error("the system gives no random octets")]
    Random,
}

/// What [`add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// There is a new user.
    New,
    /// The user was there, and has a new password.
    Changed,
}

/// Octets of a salt.
const SALT: usize = 16;

/// Rounds of PBKDF2 that a client computes at each login with SCRAM. RFC 7677 §4 asks for at least 4096.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

/// Adds a user to a users file, which is made if there is none, or gives a user another password. Without `senders`
/// those of before stay.
pub fn add(
    file: &Path,
    name: &str,
    password: &Secret,
    senders: Option<Vec<Sender>>,
) -> Result<Added, EditError> {
    user::check_name(name)?;
    let identity = Identity { name: name.into(), senders: senders.clone().unwrap_or_default().into() };
    let mut line = new_user(identity, password)?.to_string();
    let mut edit = Edit::begin(file)?;
    let place = edit.lines.iter().position(|line| is_of(line, name));
    match place.and_then(|at| edit.lines.get_mut(at)) {
        None => edit.lines.push(line),
        Some(old) => {
            if let (None, Some(senders)) = (senders, old.split_ascii_whitespace().nth(3)) {
                line = format!("{line} {senders}");
            }
            *old = line;
        }
    }
    edit.finish()?;
    Ok(if place.is_some() { Added::Changed } else { Added::New })
}

/// Takes a user out of a users file.
pub fn remove(file: &Path, name: &str) -> Result<(), EditError> {
    let mut edit = Edit::begin(file)?;
    let before = edit.lines.len();
    edit.lines.retain(|line| !is_of(line, name));
    if edit.lines.len() == before {
        return Err(EditError::Unknown { file: file.to_path_buf(), name: name.to_owned() });
    }
    edit.finish()
}

/// Whether it is the line of this user. The rest of the line may be damaged, and be replaced.
fn is_of(line: &str, name: &str) -> bool {
    !is_comment(line) && line.split_ascii_whitespace().next() == Some(name)
}

fn new_user(identity: Identity, password: &Secret) -> Result<User, EditError> {
    let text = str::from_utf8(password.octets()).ok().filter(|text| stringprep::saslprep(text).is_ok());
    let prepared = prepare::password(password);
    if text.is_none() || prepared.is_empty() {
        return Err(EditError::Password);
    }
    let mut salts = [[0; SALT]; 2];
    for salt in &mut salts {
        rand::fill(salt).map_err(|_| EditError::Random)?;
    }
    let hash = Argon2::default().hash_password_with_salt(&prepared, &salts[0])?;
    let verifier = Verifier::derive(&prepared, &salts[1], ITERATIONS);
    Ok(User { identity, hash, verifier })
}

/// A user whom no password fits and who costs as much as those that [`add`] makes.
pub(super) fn decoy(secret: &[u8; 32]) -> Result<User, EditError> {
    let mut octets = [0; 32];
    rand::fill(&mut octets).map_err(|_| EditError::Random)?;
    let params = argon2::Params::default();
    let hash = PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(argon2::Version::default().into()),
        params: params.try_into()?,
        salt: Some(password_hash::phc::Salt::new(&secret[..SALT]).map_err(password_hash::Error::from)?),
        hash: Some(Output::new(&octets).map_err(password_hash::Error::from)?),
    };
    let verifier =
        Verifier { iterations: ITERATIONS, salt: [0; SALT].into(), stored_key: octets, server_key: octets };
    Ok(User { identity: Identity { name: "".into(), senders: [].into() }, hash, verifier })
}

/// A users file that is being changed.
struct Edit {
    file: PathBuf,
    lines: Vec<String>,
    /// Locked, so that two edits don't undo each other.
    directory: File,
}

impl Edit {
    fn begin(file: &Path) -> Result<Self, EditError> {
        let failed = |source| EditError::Write { file: file.to_path_buf(), source };
        // What a link points to is replaced, not the link.
        let target = match fs::canonicalize(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_path_buf(),
            other => other.map_err(failed)?,
        };
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        directory.lock().map_err(failed)?;
        let text = match users::read(&target) {
            Err(UsersError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(Self { file: target, lines: text.lines().map(str::to_owned).collect(), directory })
    }

    fn finish(self) -> Result<(), EditError> {
        self.replace().map_err(|source| EditError::Write { file: self.file.clone(), source })
    }

    /// The new file takes the old one's name only when it is on disk. It has its owner and mode, or else 0600.
    fn replace(&self) -> io::Result<()> {
        let mut name = OsString::from(".");
        name.push(self.file.file_name().unwrap_or_default());
        name.push(".new");
        let temporary = self.file.with_file_name(name);
        // Left behind by a crash: the lock is ours.
        let _ = fs::remove_file(&temporary);
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = self.write(&mut new).and_then(|()| fs::rename(&temporary, &self.file));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.directory.sync_all()
    }

    fn write(&self, new: &mut File) -> io::Result<()> {
        for line in &self.lines {
            writeln!(new, "{line}")?;
        }
        if let Ok(old) = fs::metadata(&self.file) {
            let own = new.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                fchown(&*new, Some(old.uid()), Some(old.gid()))?;
            }
            new.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        new.sync_all()
    }
}
