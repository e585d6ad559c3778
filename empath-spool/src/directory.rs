//! The directories of a spool: which may be one, and who has it.

use std::{
    io::{
        self,
        ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem},
    },
    path::{Path, PathBuf},
};

use crate::{
    OpenError,
    config::check,
    files::{Files, Kind, Lock, LockError, Share},
};

/// The directories in a spool.
const PARTS: [&str; 3] = ["journal", "large", "damaged"];

/// The file with the number of the process that has the spool.
const LOCK: &str = "LOCK";

/// What the root of a file system has besides.
const LOST_AND_FOUND: &str = "lost+found";

/// Creates what is missing of the directories and checks the rules; returns the path without symbolic links. Nothing is
/// changed in a directory that is not a spool.
pub(crate) fn prepare(files: &dyn Files, configured: &Path) -> Result<PathBuf, OpenError> {
    rule(configured)?;
    create(files, configured)?;
    let path = resolve(files, configured)?;
    let (owner, user) = (files.owner(&path).map_err(failed("look at", &path))?, files.user());
    if owner != user {
        return Err(OpenError::Owner { path, owner, user });
    }
    let made = is_whole(files, &path)?;
    if !made {
        let names = files.list(&path).map_err(failed("list", &path))?;
        let ours = |name: &str| PARTS.contains(&name) || [LOCK, LOST_AND_FOUND].contains(&name);
        if let Some(name) = names.into_iter().find(|name| !ours(name)) {
            return Err(OpenError::NotASpool { path, name });
        }
    }
    files.narrow(&path).map_err(failed("take the rights of others off", &path))?;
    if !made {
        // Where the directories in it are, those above are durable. Nothing was created in one that we may not look into,
        // nor on a file system that takes nothing.
        let cannot_be_ours = [PermissionDenied, ReadOnlyFilesystem, InvalidInput];
        for above in path.ancestors().skip(1) {
            match files.sync_dir(above) {
                Err(failure) if cannot_be_ours.contains(&failure.kind()) => {}
                synced => synced.map_err(failed("sync", above))?,
            }
        }
    }
    for part in PARTS.map(|part| path.join(part)) {
        if !made {
            files.create_dir(&part).map_err(failed("create", &part))?;
        }
        files.narrow(&part).map_err(failed("take the rights of others off", &part))?;
    }
    Ok(path)
}

/// Finds the spool that is there, for reading; returns the path without symbolic links.
pub(crate) fn find(files: &dyn Files, path: &Path) -> Result<PathBuf, OpenError> {
    let path = resolve(files, path)?;
    is_whole(files, &path)?;
    Ok(path)
}

/// Whether all that a spool has is there. A symbolic link in the place of any of it would lead out of the spool.
fn is_whole(files: &dyn Files, path: &Path) -> Result<bool, OpenError> {
    is(files, path.join(LOCK), Kind::File)?;
    let mut whole = true;
    for part in PARTS {
        whole &= is(files, path.join(part), Kind::Directory)?;
    }
    Ok(whole)
}

/// False if nothing is there, an error if something else is.
fn is(files: &dyn Files, path: PathBuf, expected: Kind) -> Result<bool, OpenError> {
    match files.kind(&path) {
        Ok(found) if found == expected => Ok(true),
        Ok(found) => Err(OpenError::Kind { path, found, expected }),
        Err(failure) if failure.kind() == NotFound => Ok(false),
        Err(failure) => Err(failed("look at", &path)(failure)),
    }
}

/// Locks the spool for this process.
pub(crate) fn lock(files: &dyn Files, root: &Path, share: Share) -> Result<Lock, OpenError> {
    files.lock(root, share).map_err(|failure| match failure {
        LockError::Held(pid) => OpenError::InUse { path: root.to_owned(), pid },
        LockError::Io(source) => failed("lock", root)(source),
    })
}

fn resolve(files: &dyn Files, path: &Path) -> Result<PathBuf, OpenError> {
    files.resolve(path).map_err(failed("resolve", path))
}

fn rule(path: &Path) -> Result<(), OpenError> {
    check(path).map_err(|problem| OpenError::Path { path: path.to_owned(), problem })
}

/// Creates a directory and those above it; what exists stays as it is. A symbolic link does not lead around the rules.
fn create(files: &dyn Files, path: &Path) -> Result<(), OpenError> {
    match files.resolve(path) {
        Ok(existing) => return rule(&existing),
        Err(failure) if failure.kind() == NotFound && path != Path::new(".") => {}
        Err(failure) => return Err(failed("resolve", path)(failure)),
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A spool may be in the root, only not be it.
    if parent != Path::new("/") {
        create(files, parent)?;
    }
    files.create_dir(path).map_err(failed("create", path))
}

pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { operation, path, source }
}
