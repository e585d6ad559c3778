use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use empath_common::MessageId;
use empath_smtp::server::{self, IntakeError};
use empath_spool::{Backend, Config, Content, Spool};

use super::refusals::Refusals;

/// What a message that is written to a file as it arrives has in memory.
const BUFFER: usize = 64 << 10;

/// Where content goes.
pub(super) struct Storage {
    pub(super) spool: Arc<dyn Spool>,
    /// Most octets of a message in memory; `None` where the spool is memory itself, so that nothing is won elsewhere.
    threshold: Option<usize>,
    /// For content in memory.
    memory: Arc<Budget>,
    /// For content that is written to files: apart, so that mail is still taken when the other is used up.
    buffers: Arc<Budget>,
    /// Refusals by the journal.
    pub(super) refusals: Refusals,
    /// Refusals of content that was to go into a file of its own: they come apart from the others.
    large_refusals: Refusals,
}

/// Octets that all messages share.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// Octets taken from a budget until this is dropped.
#[derive(Debug)]
struct Reserved {
    budget: Arc<Budget>,
    octets: usize,
}

/// The content of one message, growing: in memory at first, and in the spool from the moment when it is too large for that
/// or the memory for all content is used up.
pub struct Draft {
    id: MessageId,
    storage: Arc<Storage>,
    content: Vec<u8>,
    reserved: Reserved,
    large: Option<Box<dyn empath_spool::Draft>>,
}

/// Committed content: its memory goes back to the budget when delivery drops the last reference.
struct Held {
    content: Vec<u8>,
    _reserved: Reserved,
}

impl Storage {
    /// A spool that was opened with `config`, and so much memory for content.
    pub(super) fn new(spool: Arc<dyn Spool>, config: &Config, content_memory: usize) -> Self {
        let threshold = match config.backend {
            Backend::File => Some(config.large_threshold.as_usize()),
            Backend::Memory => None,
        };
        let buffers = threshold.map_or(0, |_| BUFFER.max(content_memory / 4));
        let memory = Budget::new(content_memory.saturating_sub(buffers));
        let (refusals, large_refusals) = <(Refusals, Refusals)>::default();
        Self { spool, threshold, memory, buffers: Budget::new(buffers), refusals, large_refusals }
    }
}

impl Budget {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    fn take(&self, octets: usize) -> Result<(), IntakeError> {
        let used = self.used.fetch_add(octets, Relaxed);
        if used.saturating_add(octets) <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(octets, Relaxed);
        Err(IntakeError::Full)
    }
}

impl Reserved {
    fn nothing(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), octets: 0 }
    }

    fn grow(&mut self, octets: usize) -> Result<(), IntakeError> {
        self.budget.take(octets)?;
        self.octets += octets;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.octets, Relaxed);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Draft {
    pub(super) fn new(storage: &Arc<Storage>, id: MessageId) -> Self {
        let reserved = Reserved::nothing(&storage.memory);
        Self { id, storage: Arc::clone(storage), content: Vec::new(), reserved, large: None }
    }

    /// All of it, to be committed.
    pub(super) async fn finish(self) -> Result<Content, IntakeError> {
        let Self { id, content, reserved, large, storage } = self;
        match large {
            Some(large) => {
                let finished = large.finish().await;
                let content = finished.map_err(|failure| storage.large_refusals.refuse(id, &failure))?;
                storage.large_refusals.stored();
                Ok(content)
            }
            None => Ok(Bytes::from_owner(Held { content, _reserved: reserved }).into()),
        }
    }

    /// Appends to what is in memory. False if there is no room.
    fn fits(&mut self, octets: &[u8]) -> bool {
        let (length, before) = (self.content.len() + octets.len(), self.content.capacity());
        let limit = self.storage.threshold.unwrap_or(usize::MAX);
        if self.large.is_some() || length > limit {
            return false;
        }
        if length > before {
            // Reserve before growing: the buffer doubles, so the budget sees what is really allocated.
            let wanted = length.max(before * 2).min(limit);
            if self.reserved.grow(wanted - before).is_err() {
                return false;
            }
            self.content.reserve_exact(wanted - self.content.len());
        }
        self.content.extend_from_slice(octets);
        true
    }

    /// Appends to what is in the spool, where everything is from now on.
    async fn write_large(&mut self, octets: &[u8]) -> Result<(), IntakeError> {
        let refused = |failure| self.storage.large_refusals.refuse(self.id, &failure);
        let large = match &mut self.large {
            Some(large) => large,
            none => {
                let mut reserved = Reserved::nothing(&self.storage.buffers);
                reserved.grow(BUFFER)?;
                let large = none.insert(self.storage.spool.draft(self.id).await.map_err(refused)?);
                large.write(&mem::take(&mut self.content)).await.map_err(refused)?;
                self.reserved = reserved;
                large
            }
        };
        large.write(octets).await.map_err(refused)
    }
}

impl server::Draft for Draft {
    fn id(&self) -> MessageId {
        self.id
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), IntakeError> {
        if self.fits(octets) {
            return Ok(());
        }
        if self.storage.threshold.is_none() {
            return Err(IntakeError::Full);
        }
        self.write_large(octets).await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use empath_common::ByteSize;
    use empath_metrics::Registry;
    use empath_smtp::server::Draft as _;

    use super::*;

    const THRESHOLD: usize = 4096;

    /// A spool below `directory` with so much memory for content.
    fn storage(directory: &Path, backend: Backend, content_memory: usize) -> Arc<Storage> {
        let path = directory.join("spool");
        let large_threshold = ByteSize(THRESHOLD as u64);
        let config = Config { path, backend, large_threshold, preallocate: false, ..Config::default() };
        let (spool, _) =
            empath_spool::open(&config, empath_spool::Metrics::new(&Registry::default())).unwrap();
        Arc::new(Storage::new(spool, &config, content_memory))
    }

    fn draft(storage: &Arc<Storage>, number: u8) -> Draft {
        Draft::new(storage, MessageId::from_bytes([number; 16]))
    }

    async fn read(content: &Content) -> Vec<u8> {
        let (mut all, mut reader) = (Vec::new(), content.reader());
        while let Some(piece) = reader.next().await.unwrap() {
            all.extend_from_slice(&piece);
        }
        all
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory.join("spool/large")).unwrap().count()
    }

    #[tokio::test]
    async fn content_above_the_threshold_is_written_to_a_file_and_no_other_is() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(directory.path(), Backend::File, 1 << 20);
        for (number, size, files_of_it) in [(1, THRESHOLD, 0), (2, THRESHOLD + 1, 1), (3, 1_000_000, 1)] {
            let mut draft = draft(&storage, number);
            let octets: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
            for part in octets.chunks(1000) {
                draft.write(part).await.unwrap();
            }
            let content = draft.finish().await.unwrap();
            assert_eq!(content.in_memory().is_none(), files_of_it == 1, "{size}");
            assert_eq!(files(directory.path()), files_of_it, "{size}");
            assert!(read(&content).await == octets, "{size}");
        }
        assert_eq!(storage.memory.used.load(Relaxed), 0);
        assert_eq!(storage.buffers.used.load(Relaxed), 0);
        storage.spool.close().await;
    }

    #[tokio::test]
    async fn when_memory_is_used_up_small_content_goes_to_files_until_their_buffers_are_too() {
        let directory = tempfile::tempdir().unwrap();
        // One buffer, and memory for one message.
        let storage = storage(directory.path(), Backend::File, BUFFER + 100);
        let (mut one, mut other, mut third) = (draft(&storage, 1), draft(&storage, 2), draft(&storage, 3));
        one.write(&[b'1'; 60]).await.unwrap();
        other.write(&[b'2'; 40]).await.unwrap();
        other.write(b"2").await.unwrap();
        assert_eq!(storage.memory.used.load(Relaxed), 60, "the file has what was in memory");
        assert_eq!(third.write(&[b'3'; 41]).await, Err(IntakeError::Full));
        drop(one);
        third.write(&[b'3'; 100]).await.unwrap();
        assert_eq!(files(directory.path()), 1);
        assert_eq!(read(&other.finish().await.unwrap()).await, [b'2'; 41]);
        let kept = third.finish().await.unwrap();
        assert_eq!(storage.memory.used.load(Relaxed), 100);
        drop(kept);
        assert_eq!(storage.memory.used.load(Relaxed) + storage.buffers.used.load(Relaxed), 0);
        storage.spool.close().await;
    }

    #[tokio::test]
    async fn a_draft_that_is_dropped_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(directory.path(), Backend::File, 1 << 20);
        let mut draft = draft(&storage, 1);
        draft.write(&[b'x'; 2 * THRESHOLD]).await.unwrap();
        assert_eq!(files(directory.path()), 1);
        drop(draft);
        storage.spool.close().await;
        drop(storage);
        assert_eq!(files(directory.path()), 0);
    }

    #[tokio::test]
    async fn a_spool_in_memory_takes_no_more_than_the_memory_for_content() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(directory.path(), Backend::Memory, 2 * THRESHOLD);
        let mut draft = draft(&storage, 1);
        draft.write(&[b'x'; 2 * THRESHOLD]).await.unwrap();
        assert_eq!(draft.write(b"x").await, Err(IntakeError::Full));
        assert!(draft.finish().await.unwrap().in_memory().is_some());
    }
}
