//! Files that fail when a test says so.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use empath_spool::files::{Disk, File, Files, Free, Kind, Lock, LockError, Share};

/// The machine's files with faults. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failing(Arc<Faults>);

#[derive(Debug, Default)]
struct Faults {
    /// Every write fails like this.
    write: Mutex<Option<io::ErrorKind>>,
    /// So many more syncs of files fail, after they have done their work.
    syncs: AtomicU32,
    /// No file can be created or renamed.
    no_new_files: AtomicBool,
    /// Octets for which files have no space; 0 for no limit.
    too_large: AtomicU64,
    /// The name of a file that can't be opened.
    locked: Mutex<Option<String>>,
    /// The name of a directory that can't be listed.
    unlisted: Mutex<Option<String>>,
    /// No directory can be synced.
    no_directory_syncs: AtomicBool,
    /// A file of this name can be read so many times.
    brittle: Mutex<Option<(String, u32)>>,
    /// Nothing can be cut off a file.
    no_truncate: AtomicBool,
    /// We are another user than the owner of the files.
    stranger: AtomicBool,
    /// A write takes only a few octets.
    short: AtomicBool,
    /// Nothing can be removed.
    no_removal: AtomicBool,
    /// How often files were synced, with and without what is not needed to read them, and directories.
    synced: [AtomicU64; 3],
    /// Octets that were written.
    written: AtomicU64,
}

impl Failing {
    pub(crate) fn fail_writes(&self, with: Option<io::ErrorKind>) {
        *self.0.write.lock().unwrap_or_else(PoisonError::into_inner) = with;
    }

    pub(crate) fn fail_syncs(&self, count: u32) {
        self.0.syncs.store(count, SeqCst);
    }

    pub(crate) fn refuse_new_files(&self, refuse: bool) {
        self.0.no_new_files.store(refuse, SeqCst);
    }

    /// No file of `size` octets can be prepared any more; 0 takes this back.
    pub(crate) fn refuse_size(&self, size: u64) {
        self.0.too_large.store(size, SeqCst);
    }

    pub(crate) fn refuse_open(&self, name: Option<&str>) {
        *self.0.locked.lock().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }

    pub(crate) fn refuse_list(&self, name: Option<&str>) {
        *self.0.unlisted.lock().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }

    pub(crate) fn fail_directory_syncs(&self, fail: bool) {
        self.0.no_directory_syncs.store(fail, SeqCst);
    }

    /// Lets a file of this name be read so many times.
    pub(crate) fn fail_reads(&self, name: &str, after: u32) {
        *self.0.brittle.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), after));
    }

    pub(crate) fn write_short(&self, short: bool) {
        self.0.short.store(short, SeqCst);
    }

    pub(crate) fn refuse_truncate(&self, refuse: bool) {
        self.0.no_truncate.store(refuse, SeqCst);
    }

    pub(crate) fn refuse_removal(&self, refuse: bool) {
        self.0.no_removal.store(refuse, SeqCst);
    }

    /// How often `sync`, `sync_all` and `sync_dir` were called.
    pub(crate) fn synced(&self) -> [u64; 3] {
        self.0.synced.each_ref().map(|count| count.load(SeqCst))
    }

    /// Octets that were written.
    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(SeqCst)
    }

    pub(crate) fn be_a_stranger(&self) {
        self.0.stranger.store(true, SeqCst);
    }

    fn wrap(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        let brittle = self.0.brittle.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = brittle.as_ref().filter(|(name, _)| path.ends_with(name));
        let reads = reads.map_or(u32::MAX, |(_, reads)| *reads).into();
        Box::new(FailingFile { faults: Arc::clone(&self.0), reads, file })
    }

    fn may_open(&self, path: &Path) -> io::Result<()> {
        let locked = self.0.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = locked.as_deref().is_some_and(|name| path.ends_with(name));
        if refused { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn new_name(&self) -> io::Result<()> {
        if self.0.no_new_files.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Files for Failing {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn narrow(&self, path: &Path) -> io::Result<()> {
        Disk.narrow(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Kind> {
        Disk.kind(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.synced[2].fetch_add(1, SeqCst);
        if self.0.no_directory_syncs.load(SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let unlisted = self.0.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        if unlisted.as_deref().is_some_and(|name| path.ends_with(name)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Disk.list(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.new_name()?;
        Disk.create(path).map(|file| self.wrap(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.may_open(path)?;
        Disk.open(path).map(|file| self.wrap(path, file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.may_open(path)?;
        Disk.open_read(path).map(|file| self.wrap(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.new_name()?;
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.0.no_removal.load(SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Disk.remove(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Disk.resolve(path)
    }

    fn owner(&self, path: &Path) -> io::Result<u32> {
        Disk.owner(path)
    }

    fn user(&self) -> u32 {
        Disk.user() + u32::from(self.0.stranger.load(SeqCst))
    }

    fn lock(&self, directory: &Path, share: Share) -> Result<Lock, LockError> {
        Disk.lock(directory, share)
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        Disk.free(path)
    }

    fn secret(&self) -> u64 {
        Disk.secret()
    }
}

struct FailingFile {
    faults: Arc<Faults>,
    /// How often it can still be read.
    reads: AtomicU32,
    file: Box<dyn File>,
}

impl File for FailingFile {
    fn allocate(&self, len: u64) -> io::Result<()> {
        match self.faults.too_large.load(SeqCst) {
            limit if limit > 0 && len >= limit => Err(io::ErrorKind::StorageFull.into()),
            _ => self.file.allocate(len),
        }
    }

    fn write_at(&self, octets: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if let Some(kind) = *self.faults.write.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(kind.into());
        }
        match octets.iter().find(|slice| !slice.is_empty()) {
            Some(slice) if self.faults.short.load(SeqCst) => {
                self.file.write_at(&[IoSlice::new(slice.get(..100).unwrap_or(slice))], offset)
            }
            _ => self.file.write_at(octets, offset),
        }
        .inspect(|written| {
            self.faults.written.fetch_add(*written as u64, SeqCst);
        })
    }

    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.reads.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => self.file.read_at(octets, offset),
            Err(_) => Err(io::Error::other("read failed")),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.synced[0].fetch_add(1, SeqCst);
        // The worst case: everything is on disk, and still it is said to have failed.
        self.file.sync()?;
        match self.faults.syncs.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(io::Error::other("sync failed")),
            Err(_) => Ok(()),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.faults.synced[1].fetch_add(1, SeqCst);
        self.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.faults.no_truncate.load(SeqCst) {
            return Err(io::Error::other("truncate failed"));
        }
        self.file.truncate(len)
    }
}
