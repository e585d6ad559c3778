//! A disk in memory that fails, fills up, stops and loses what was not synced, as real ones may.

mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fastrand::Rng;
use rustix::io::Errno;

use super::{
    content::Content,
    fate::{Fate, Part, Storm},
    file::Open,
    names::Inode,
    state::State,
};
use crate::files::{File, Files, Free, Kind, Lock, LockError, Share};

/// A machine's disk. Clones are the same disk; the same operations and seeds give the same results.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(State::new(seed))
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last operation.
    pub(crate) fn operations(&self) -> u64 {
        self.state().fates.count
    }

    /// The numbers of the operations that were to change something. A stop at another is a stop at the next of them.
    pub(crate) fn changes(&self) -> Vec<u64> {
        self.state().fates.changes.clone()
    }

    /// Keeps the last operations, to be shown.
    pub(crate) fn keep_trace(&self, most: usize) {
        let mut state = self.state();
        (state.fates.trace, state.fates.traced) = (Some([].into()), most);
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.state().fates.trace.iter().flatten().cloned().collect()
    }

    /// Stops the machine at an operation, of which part may happen.
    pub(crate) fn crash_at(&self, operation: u64) {
        self.state().fates.crash_at = Some(operation);
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.state().fates.crashed
    }

    /// Makes one operation fail.
    pub(crate) fn fail_at(&self, operation: u64, error: Errno) {
        self.state().fates.fail_at.insert(operation, error);
    }

    /// Makes operations fail at random, until told otherwise.
    pub(crate) fn storm(&self, storm: Option<Storm>) {
        self.state().fates.storm = storm;
    }

    /// Makes reads and writes do less than they were asked for.
    pub(crate) fn dawdle(&self) {
        self.state().fates.dawdles = true;
    }

    /// Makes a sector of a file unreadable, for every reader and for as long as it is neither written nor mended.
    pub(crate) fn spoil(&self, path: &Path, sector: usize) {
        let mut state = self.state();
        if let Ok(inode) = state.find(path) {
            state.bad.insert((inode, sector));
        }
    }

    /// Gives back what was in the sectors that could not be read.
    pub(crate) fn mend(&self) {
        self.state().bad.clear();
    }

    /// Limits the space and the number of files and directories.
    pub(crate) fn limit(&self, octets: usize, inodes: usize) {
        let mut state = self.state();
        (state.octets, state.inodes) = (octets, inodes);
    }

    /// Octets and inodes in use.
    pub(crate) fn used(&self) -> (usize, usize) {
        self.state().used()
    }

    /// The files in a directory with their lengths.
    pub(crate) fn files(&self, directory: &Path) -> Vec<(String, usize)> {
        let state = self.state();
        let Ok(directory) = state.find(directory) else {
            return Vec::new();
        };
        let entries = state.names.list(directory);
        entries.map(|(name, inode)| (name.to_owned(), state.content(inode).map_or(0, Content::len))).collect()
    }

    /// What `kill -9` leaves: what was written is still in the page cache.
    pub(crate) fn kill(&self) -> Self {
        let mut state = self.state().kill();
        state.fates.note("the process is killed");
        Self::of(state)
    }

    /// What a power failure leaves: all that was synced, and some of the rest.
    pub(crate) fn power_loss(&self, rng: &mut Rng) -> Self {
        let mut state = self.state().power_loss(rng);
        state.fates.note("the power fails");
        Self::of(state)
    }

    /// An operation that changes something, and of which no part but all may happen.
    pub(super) fn change<T>(
        &self,
        operation: fmt::Arguments<'_>,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        match state.fates.next(true, operation) {
            Fate::Done => change(&mut state),
            Fate::Fails(failure, part) => {
                let done = (part == Part::All).then(|| change(&mut state));
                drop(state);
                // A file is closed here, for which the disk must be free.
                drop(done);
                Err(failure)
            }
        }
    }

    pub(super) fn look<T>(
        &self,
        operation: fmt::Arguments<'_>,
        look: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        match state.fates.next(false, operation) {
            Fate::Done => look(&mut state),
            Fate::Fails(failure, _) => Err(failure),
        }
    }

    fn file(&self, state: &mut State, inode: Inode) -> Box<dyn File> {
        if let Some(node) = &mut state.nodes[inode] {
            node.opened += 1;
        }
        Box::new(Open { disk: self.clone(), inode })
    }
}

impl Files for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(format_args!("create_dir {}", path.display()), |state| match state.find(path) {
            Ok(_) => Ok(()),
            Err(_) => state.create(path, None).map(drop),
        })
    }

    fn narrow(&self, path: &Path) -> io::Result<()> {
        self.look(format_args!("narrow {}", path.display()), |state| state.find(path).map(drop))
    }

    fn kind(&self, path: &Path) -> io::Result<Kind> {
        self.look(format_args!("kind {}", path.display()), |state| {
            let inode = state.find(path)?;
            Ok(state.content(inode).map_or(Kind::Directory, |_| Kind::File))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(format_args!("sync_dir {}", path.display()), |state| {
            let directory = state.find(path)?;
            state.names.sync(directory);
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.look(format_args!("list {}", path.display()), |state| {
            let directory = state.find(path)?;
            Ok(state.names.list(directory).map(|(name, _)| name.to_owned()).collect())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.change(format_args!("create {}", path.display()), |state| {
            let inode = state.create(path, Some(Content::default()))?;
            Ok(self.file(state, inode))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.look(format_args!("open {}", path.display()), |state| {
            let inode = state.find(path)?;
            state.content_mut(inode)?;
            Ok(self.file(state, inode))
        })
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(format_args!("rename {} {}", from.display(), to.display()), |state| {
            state.rename(from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(format_args!("remove {}", path.display()), |state| state.remove(path))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.look(format_args!("resolve {}", path.display()), |state| {
            state.find(path).map(|_| path.to_owned())
        })
    }

    fn owner(&self, path: &Path) -> io::Result<u32> {
        self.look(format_args!("owner {}", path.display()), |state| state.find(path).map(|_| 0))
    }

    fn user(&self) -> u32 {
        0
    }

    fn lock(&self, directory: &Path, _: Share) -> Result<Lock, LockError> {
        let locked = self.look(format_args!("lock {}", directory.display()), |state| {
            let inode = state.find(directory)?;
            let free = !state.locked.contains(&inode);
            if free {
                state.locked.push(inode);
            }
            Ok(free.then(|| Locked { disk: self.clone(), inode }))
        })?;
        let locked = locked.ok_or(LockError::Held(None))?;
        // The number of the process is a help for people.
        let _ = self.create(&directory.join("LOCK"));
        Ok(Box::new(locked))
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        self.look(format_args!("free {}", path.display()), |state| {
            let (octets, inodes) = state.used();
            let (octets, inodes) = (state.octets.saturating_sub(octets), state.inodes.saturating_sub(inodes));
            Ok(Free { octets: octets as u64, inodes: inodes as u64 })
        })
    }

    fn secret(&self) -> u64 {
        self.state().fates.rng.u64(..)
    }
}

struct Locked {
    disk: SimDisk,
    inode: Inode,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.disk.state().locked.retain(|inode| *inode != self.inode);
    }
}
