//! Every file operation of the spool goes through [`Files`], so that tests can make any of them fail.

use std::{
    collections::hash_map::RandomState,
    fmt,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    hash::BuildHasher,
    io::{self, IoSlice, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, OFlags},
    io::Errno,
};

/// A directory tree. A new or renamed name survives power loss only after [`sync_dir`](Self::sync_dir).
pub trait Files: Send + Sync + 'static {
    /// Creates a directory of mode 0700; one that exists stays as it is.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a directory the mode 0700.
    fn narrow(&self, path: &Path) -> io::Result<()>;
    /// What a path is; a symbolic link is not followed.
    fn kind(&self, path: &Path) -> io::Result<Kind>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. In those that are not UTF-8, for none of ours is, U+FFFD stands for what is not.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Creates a file of mode 0600, which must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading and writing. A symbolic link is not followed, and only a file is opened.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// The same for reading alone, for which neither the file system nor the file need be writable.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The path without symbolic links.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// The user who owns a path.
    fn owner(&self, path: &Path) -> io::Result<u32>;
    /// The user that we are.
    fn user(&self) -> u32;
    /// Locks a directory until the lock is dropped. Who has it alone leaves the number of the process in the file `LOCK`.
    fn lock(&self, directory: &Path, share: Share) -> Result<Lock, LockError>;
    /// What is left of the file system of `path`.
    fn free(&self, path: &Path) -> io::Result<Free>;
    /// A number that nobody outside can guess.
    fn secret(&self) -> u64;
}

/// An open file.
pub trait File: Send + Sync {
    /// Takes the space for the first `len` octets, or fails with `StorageFull`.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Writes some of the octets, as one vectored write; returns how many.
    fn write_at(&self, octets: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads some octets; none at the end of the file.
    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes everything about the file durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Octets in the file.
    fn size(&self) -> io::Result<u64>;
    /// Cuts the file off.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// What is left of a file system for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Octets.
    pub octets: u64,
    /// Files that can still be created. As many as a number can say, where the file system has no such limit.
    pub inodes: u64,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::File => "a file",
            Self::Link => "a symbolic link",
            Self::Other => "a pipe, a socket or a device",
        })
    }
}

/// Whom a lock lets in beside its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Nobody: for those who write.
    Nobody,
    /// Others that read. Nothing is written for such a lock.
    Readers,
}

/// What a lock holds on to.
pub type Lock = Box<dyn Send + Sync>;

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it; its number, where it could be read.
    #[error("another process has the lock")]
    Held(Option<u32>),
    /// The directory could not be opened or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An operation that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
struct Failed {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Says in an error what was tried on which file; its kind stays.
pub(crate) fn about(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |source| io::Error::new(source.kind(), Failed { operation, path, source })
}

/// Most slices in one vectored write (`IOV_MAX` of Linux).
const MAX_SLICES: usize = 1024;

impl fmt::Debug for dyn File + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}

impl dyn File + '_ {
    /// Writes everything, with as few calls as the system allows.
    pub(crate) fn write_all_at(&self, mut octets: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // Empty slices at the front would look like a write that makes no progress.
        IoSlice::advance_slices(&mut octets, 0);
        while !octets.is_empty() {
            let some = octets.get(..MAX_SLICES).unwrap_or(octets);
            match self.write_at(some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut octets, written);
                    offset += written as u64;
                }
                Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Fills `octets` as far as the file goes; returns how many there were.
    pub(crate) fn read_all_at(&self, mut octets: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let wanted = octets.len();
        while !octets.is_empty() {
            match self.read_at(octets, offset) {
                Ok(0) => break,
                Ok(read) => {
                    octets = octets.get_mut(read..).unwrap_or_default();
                    offset += read as u64;
                }
                Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(wanted - octets.len())
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            // The umask may have taken bits away, even ours.
            Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700)),
            Err(failure) if failure.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn narrow(&self, path: &Path) -> io::Result<()> {
        // On a file system that is read-only what is right already is no error.
        if fs::metadata(path)?.mode() & 0o7777 == 0o700 {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(0o700))
    }

    fn kind(&self, path: &Path) -> io::Result<Kind> {
        Ok(kind(fs::symlink_metadata(path)?.file_type()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        // The umask may have taken bits away, even ours.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(open(OpenOptions::new().read(true).write(true), path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(open(OpenOptions::new().read(true), path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn owner(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.uid())
    }

    fn user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    // The lock on the directory counts, for that on a file is gone when the file is removed. That on the file keeps
    // daemons out that look at nothing else, and on NFS those of other hosts.
    fn lock(&self, directory: &Path, share: Share) -> Result<Lock, LockError> {
        let name = directory.join("LOCK");
        let whole = fs::File::open(directory)?;
        flock(&whole, &name, share)?;
        let mut options = OpenOptions::new();
        options.read(true).write(share == Share::Nobody).create(share == Share::Nobody).mode(0o600);
        let file = match open(&mut options, &name) {
            Ok(file) => {
                flock(&file, &name, share)?;
                if share == Share::Nobody {
                    // The number is a help for people; a full disk may have no room for it.
                    let _ = file.set_permissions(Permissions::from_mode(0o600));
                    let _ = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
                }
                Some(file)
            }
            Err(failure) => {
                if share == Share::Nobody {
                    tracing::warn!(file = %name.display(), error = %failure, "the number of this process cannot be left");
                }
                None
            }
        };
        Ok(Box::new((whole, file)))
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        let system = rustix::fs::statvfs(path)?;
        // A file system that makes inodes as it needs them says that it has none at all.
        let inodes = if system.f_files == 0 { u64::MAX } else { system.f_favail };
        Ok(Free { octets: system.f_bavail.saturating_mul(system.f_frsize), inodes })
    }

    fn secret(&self) -> u64 {
        // SipHash with keys from the operating system's randomness.
        RandomState::new().hash_one(0_u8)
    }
}

fn kind(found: fs::FileType) -> Kind {
    if found.is_dir() {
        Kind::Directory
    } else if found.is_file() {
        Kind::File
    } else if found.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}

/// Opens a file and nothing else. Without `NONBLOCK` a pipe would wait for somebody to write.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<fs::File> {
    let not_a_file = |kind: Kind| io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}"));
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file =
        options.custom_flags(flags).open(path).map_err(|failure| match Errno::from_io_error(&failure) {
            Some(Errno::LOOP) => not_a_file(Kind::Link),
            _ => failure,
        })?;
    match kind(file.metadata()?.file_type()) {
        Kind::File => Ok(file),
        Kind::Directory => Err(io::ErrorKind::IsADirectory.into()),
        other => Err(not_a_file(other)),
    }
}

/// Locks an open file. `name` is the file with the number of the process that has the lock.
fn flock(file: &fs::File, name: &Path, share: Share) -> Result<(), LockError> {
    let reading = || rustix::fs::flock(file, FlockOperation::NonBlockingLockShared);
    let locked = match share {
        Share::Nobody => rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive),
        Share::Readers => reading(),
    };
    match locked {
        // Those who only read have left no number: the one that is there is older.
        Err(Errno::WOULDBLOCK) if share == Share::Nobody && reading().is_ok() => Err(LockError::Held(None)),
        Err(Errno::WOULDBLOCK) => {
            let number = || {
                let mut number = String::new();
                let file = open(OpenOptions::new().read(true), name).ok()?;
                file.take(20).read_to_string(&mut number).ok()?;
                number.trim().parse().ok()
            };
            Err(LockError::Held(number()))
        }
        locked => Ok(locked.map_err(io::Error::from)?),
    }
}

impl File for fs::File {
    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, len) {
            // A file system without it takes the space when it is written.
            Err(Errno::OPNOTSUPP) => Ok(()),
            allocated => Ok(allocated?),
        }
    }

    fn write_at(&self, octets: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, octets, offset)?)
    }

    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, octets, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        fs::File::sync_all(self)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}
