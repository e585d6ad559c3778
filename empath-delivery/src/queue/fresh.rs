use std::sync::Arc;

use bytes::Bytes;
use empath_common::{Envelope, ForwardPath};

/// What the first attempt need not read back from the spool.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) envelope: Arc<Envelope>,
    pub(super) content: Option<Bytes>,
}

impl Fresh {
    /// Octets of memory, more or less: what the allocator adds is in the figures for the envelope and its paths.
    pub(super) fn octets(&self) -> usize {
        let Envelope { reverse_path, metadata, .. } = &*self.envelope;
        let path = |path: &ForwardPath| 128 + path.as_str().len();
        let paths: usize = self.envelope.recipients().iter().map(path).sum();
        let metadata: usize = metadata.iter().map(|(name, value)| 128 + name.len() + value.len()).sum();
        let content = self.content.as_ref().map_or(0, Bytes::len);
        512 + reverse_path.as_str().len() + paths + metadata + content
    }
}
