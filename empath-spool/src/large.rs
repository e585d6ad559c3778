//! Content above the threshold: a file of its own in `large/`, written as it arrives.

use std::{
    io::{self, IoSlice},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use empath_common::MessageId;

use crate::{
    Content, Draft, Writing, content::PIECE, files::File, keeper::Keeper, segment::Journal,
    spool::CommitError,
};

/// Content in a file that is whole and durable.
pub(crate) struct Large {
    id: MessageId,
    file: Arc<dyn File>,
    length: u64,
    crc: u32,
    /// Until a record names the file, it goes when nobody needs it any more.
    unnamed: Option<Unnamed>,
}

/// A file that no record names.
struct Unnamed {
    id: MessageId,
    keeper: Arc<Keeper>,
    named: AtomicBool,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.named.load(Relaxed) {
            self.keeper.remove_large(self.id);
        }
    }
}

impl Large {
    /// Content that a record names.
    pub(crate) fn open(journal: &Journal, id: MessageId, length: u64, crc: u32) -> io::Result<Self> {
        Self::open_at(journal, &journal.large(id), id, length, crc)
    }

    /// The same in another place.
    pub(crate) fn open_at(
        journal: &Journal,
        path: &Path,
        id: MessageId,
        length: u64,
        crc: u32,
    ) -> io::Result<Self> {
        Ok(Self { id, file: Arc::from(journal.files.open_read(path)?), length, crc, unnamed: None })
    }

    pub(crate) fn id(&self) -> MessageId {
        self.id
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }

    /// A durable record names the file from now on.
    pub(crate) fn named(&self) {
        if let Some(unnamed) = &self.unnamed {
            unnamed.named.store(true, Relaxed);
        }
    }

    /// Room for the octets at `at`, as many as a piece has.
    pub(crate) fn buffer(&self, at: u64) -> Vec<u8> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(PIECE);
        vec![0; left.min(PIECE)]
    }

    /// The octets at `at`, as many as there is room for.
    pub(crate) fn piece(&self, at: u64, mut buffer: Vec<u8>) -> io::Result<Bytes> {
        if self.file.read_all_at(&mut buffer, at)? < buffer.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the content is cut off on disk"));
        }
        Ok(buffer.into())
    }

    /// Whether the checksum of all that was read is that of what was committed.
    pub(crate) fn verify(&self, crc: u32) -> io::Result<()> {
        if crc == self.crc {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the content is damaged on disk: its checksum does not match",
        ))
    }

    /// Reads all of it and checks that it is what was committed.
    pub(crate) fn check(&self) -> io::Result<()> {
        let (mut at, mut crc) = (0, 0);
        while at < self.length {
            let piece = self.piece(at, self.buffer(at))?;
            at += piece.len() as u64;
            crc = crc32c::crc32c_append(crc, &piece);
        }
        self.verify(crc)
    }
}

/// A file of `large/` that is being written.
pub(crate) struct LargeDraft {
    journal: Journal,
    file: Arc<dyn File>,
    /// Not yet in the file.
    buffer: Vec<u8>,
    /// Octets in the file.
    written: u64,
    crc: u32,
    unnamed: Unnamed,
}

impl LargeDraft {
    /// Creates the file. Blocks.
    pub(crate) fn create(journal: Journal, keeper: Arc<Keeper>, id: MessageId) -> io::Result<Self> {
        let file = Arc::from(journal.files.create(&journal.large(id))?);
        let unnamed = Unnamed { id, keeper, named: AtomicBool::new(false) };
        Ok(Self { journal, file, buffer: Vec::new(), written: 0, crc: 0, unnamed })
    }

    /// Moves what is buffered into the file, off the async threads.
    async fn flush(&mut self) -> io::Result<()> {
        let (file, octets, at) = (Arc::clone(&self.file), mem::take(&mut self.buffer), self.written);
        self.written += octets.len() as u64;
        let writing = tokio::task::spawn_blocking(move || {
            let crc = crc32c::crc32c(&octets);
            file.write_all_at(&mut [IoSlice::new(&octets)], at)?;
            Ok::<_, io::Error>((crc, octets))
        });
        let (crc, mut octets) = writing.await.map_err(io::Error::other)??;
        self.crc = crc32c::crc32c_combine(self.crc, crc, octets.len());
        octets.clear();
        self.buffer = octets;
        Ok(())
    }
}

impl Draft for LargeDraft {
    fn write<'a>(&'a mut self, mut octets: &'a [u8]) -> Writing<'a, ()> {
        Box::pin(async move {
            while !octets.is_empty() {
                self.buffer.reserve_exact(PIECE - self.buffer.len());
                let (some, rest) = octets.split_at(octets.len().min(PIECE - self.buffer.len()));
                self.buffer.extend_from_slice(some);
                octets = rest;
                if self.buffer.len() == PIECE {
                    self.flush().await.map_err(CommitError::from)?;
                }
            }
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> Writing<'static, Content> {
        Box::pin(async move {
            self.flush().await.map_err(CommitError::from)?;
            let Self { journal, file, written, crc, unnamed, .. } = *self;
            let syncing = tokio::task::spawn_blocking(move || {
                // Content and name are durable before the record that names them is written.
                journal.sync(&*file)?;
                journal.sync_dir(&journal.large_directory())?;
                Ok::<_, io::Error>(Large {
                    id: unnamed.id,
                    file,
                    length: written,
                    crc,
                    unnamed: Some(unnamed),
                })
            });
            let large = syncing.await.map_err(io::Error::other).flatten().map_err(CommitError::from)?;
            Ok(Content::large(Arc::new(large)))
        })
    }
}

/// The message of a name in `large/`.
pub(crate) fn id_of(name: &str) -> Option<MessageId> {
    name.parse().ok().filter(|id: &MessageId| id.to_string() == name)
}

impl Journal {
    pub(crate) fn large_directory(&self) -> PathBuf {
        self.root.join("large")
    }

    pub(crate) fn large(&self, id: MessageId) -> PathBuf {
        self.large_directory().join(id.to_string())
    }
}
