use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, OpenOptionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, fchmod, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, listen, socket_with},
};

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon serves this socket.
    #[error("the control socket {} is in use by another daemon", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else than a socket.
    #[error("{} is not a socket: move it away or choose another control_socket", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("the control socket {} can't be made: {source}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The right to the path of a socket: the lock beside it. The socket is removed when this is dropped, the lock stays,
/// since who removes a lock takes it from under another daemon that just opened it.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _lock: fs::File,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds `path`. At no moment can anyone but the owner connect, and at no moment after the first start is there no
/// socket: it is made under another name, with its mode, and then renamed.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, Place), SocketError> {
    let failed = |source: io::Error| SocketError::Bind { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let new = beside(path, ".new");
    let _ = fs::remove_file(&new);
    let listener = private_listener(&new).map_err(|error| failed(error.into()))?;
    fs::rename(&new, path).map_err(failed)?;
    Ok((listener.into(), Place { path: path.to_owned(), _lock: lock }))
}

fn private_listener(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Linux gives the bound name the mode of the socket, so it is right from the first moment on (unix(7)).
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind_socket(&socket, &address)?;
    listen(&socket, 128)?;
    Ok(socket)
}

/// Whoever holds the lock owns the path. The kernel releases it with the process, however that ends.
fn lock(path: &Path) -> Result<fs::File, SocketError> {
    let failed = |source: io::Error| SocketError::Bind { path: path.to_owned(), source };
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(beside(path, ".lock"))
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixStream};

    use super::*;

    #[test]
    fn the_socket_is_for_its_owner_only_and_goes_with_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let bound = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert!(!beside(&path, ".new").exists());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let living = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::InUse { .. })));
        UnixStream::connect(&path).unwrap();
        drop(living);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_is_too_long_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(120));
        let error = bind(&path).unwrap_err();
        assert!(error.to_string().contains("xxx"), "{error}");
    }
}
