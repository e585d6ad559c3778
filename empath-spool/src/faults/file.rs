use std::io::{self, IoSlice};

use rustix::io::Errno;

use super::{
    content::{Content, SECTOR},
    disk::SimDisk,
    fate::{Fate, Part},
    names::Inode,
    state::State,
};
use crate::files::File;

/// An open file.
pub(super) struct Open {
    pub(super) disk: SimDisk,
    pub(super) inode: Inode,
}

impl Open {
    /// Makes the file longer, as far as there is space.
    fn grow(&self, state: &mut State, length: usize) -> io::Result<()> {
        let most = state.most(self.inode);
        if length > most {
            return Err(Errno::NOSPC.into());
        }
        state.content_mut(self.inode)?.extend(length);
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(node) = &mut self.disk.state().nodes[self.inode] {
            node.opened -= 1;
        }
    }
}

impl File for Open {
    fn allocate(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).unwrap_or(usize::MAX);
        let mut state = self.disk.state();
        match state.fates.next(true, format_args!("allocate {} {length}", self.inode)) {
            Fate::Done => self.grow(&mut state, length),
            Fate::Fails(failure, part) => {
                let length = match part {
                    Part::Nothing => 0,
                    Part::Some => state.fates.rng.usize(..length.max(1)),
                    Part::All => length,
                };
                // It fails in any case.
                let _ = self.grow(&mut state, length);
                Err(failure)
            }
        }
    }

    fn write_at(&self, octets: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let length: usize = octets.iter().map(|slice| slice.len()).sum();
        let mut state = self.disk.state();
        let fate = state.fates.next(true, format_args!("write {} {at} +{length}", self.inode));
        let asked = match &fate {
            Fate::Done => state.fates.some(length),
            Fate::Fails(_, Part::Nothing) => 0,
            Fate::Fails(_, Part::Some) => {
                let end = at + state.fates.rng.usize(..length.max(1));
                (end - end % SECTOR).saturating_sub(at)
            }
            Fate::Fails(_, Part::All) => length,
        };
        let written = asked.min(state.most(self.inode).saturating_sub(at));
        state.content_mut(self.inode)?.write(octets, written, at);
        // The disk takes other sectors in their place, without what was there.
        for sector in state.bad(self.inode, at..at + written) {
            state.bad.remove(&sector);
        }
        match fate {
            Fate::Done if written == 0 && length > 0 => Err(Errno::NOSPC.into()),
            Fate::Done => Ok(written),
            Fate::Fails(failure, _) => Err(failure),
        }
    }

    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.disk.look(format_args!("read {} {at} +{}", self.inode, octets.len()), |state| {
            let length = state.fates.some(octets.len());
            if !state.bad(self.inode, at..at.saturating_add(length)).is_empty() {
                return Err(Errno::IO.into());
            }
            Ok(state.content_mut(self.inode)?.read(&mut octets[..length], at))
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fate = state.fates.next(true, format_args!("sync {}", self.inode));
        let State { fates, nodes, .. } = &mut *state;
        let content = nodes[self.inode].as_mut().and_then(|node| node.content.as_mut());
        match (fate, content) {
            (Fate::Done, content) => content.into_iter().for_each(Content::sync),
            (Fate::Fails(failure, _), content) => {
                if let Some(content) = content.filter(|_| !fates.crashed) {
                    content.fail_sync(&mut fates.rng);
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.look(format_args!("size {}", self.inode), |state| {
            Ok(state.content_mut(self.inode)?.len() as u64)
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).unwrap_or(usize::MAX);
        self.disk.change(format_args!("truncate {} {length}", self.inode), |state| {
            state.content_mut(self.inode)?.truncate(length);
            Ok(())
        })
    }
}
