//! Making durable what a start has found.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use crate::{files::about, segment::Journal};

/// What counts from a start on, and may not be on disk: the names of files and the last writes.
///
/// After a mere crash of the process the page cache may hold batches of the last write that are not on disk, and after a
/// failed sync the kernel believes that they are. Nobody can tell whether they were acknowledged. Written once more, they
/// are synced in truth. Until that has succeeded nothing is built on them: no segment is begun or given up, no file
/// removed.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Vec<Arc<LastWrite>>);

/// The end of a segment. After another failed sync the disk may not give it back: until it is durable, it is read from here.
#[derive(Debug)]
pub(crate) struct LastWrite {
    pub(crate) segment: u32,
    offset: u64,
    octets: Vec<u8>,
}

impl LastWrite {
    /// Copies what there is of a segment from this offset on; returns how many octets.
    pub(crate) fn read(&self, octets: &mut [u8], offset: u64) -> usize {
        let from = offset.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok());
        let there = from.and_then(|from| self.octets.get(from..)).unwrap_or_default();
        octets.iter_mut().zip(there).map(|(octet, there)| *octet = *there).count()
    }
}

impl Unsettled {
    /// Adds the last write to a segment.
    pub(crate) fn add(&mut self, segment: u32, offset: u64, octets: Vec<u8>) {
        self.0.push(Arc::new(LastWrite { segment, offset, octets }));
    }

    /// The last writes.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Arc<LastWrite>> {
        self.0.iter()
    }

    /// Makes all of it durable. If it fails, all of it is to be done again.
    pub(crate) fn settle(&self, journal: &Journal) -> io::Result<()> {
        for directory in [&journal.root, &journal.directory()] {
            journal.sync_dir(directory).map_err(about("sync", directory))?;
        }
        for LastWrite { segment, offset, octets } in self.0.iter().map(|write| &**write) {
            let path = journal.segment(*segment);
            let write = || {
                let file = journal.files.open(&path)?;
                file.write_all_at(&mut [IoSlice::new(octets)], *offset)?;
                journal.sync(&*file)
            };
            write().map_err(about("write", &path))?;
        }
        Ok(())
    }
}
