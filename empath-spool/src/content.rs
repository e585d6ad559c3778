use std::{fmt, io, mem, sync::Arc};

use bytes::Bytes;

use crate::large::Large;

/// The content of a message: in memory, or in a file that is read piece by piece.
#[derive(Clone)]
pub struct Content(Kind);

#[derive(Clone)]
enum Kind {
    Memory(Bytes),
    Large(Arc<Large>),
}

/// Most octets of large content that are in memory at a time, for each message that is read.
pub(crate) const PIECE: usize = 64 << 10;

impl Content {
    pub(crate) fn large(large: Arc<Large>) -> Self {
        Self(Kind::Large(large))
    }

    /// Octets of content.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Memory(octets) => octets.len() as u64,
            Kind::Large(large) => large.length(),
        }
    }

    /// Whether there is no octet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, if it is in memory.
    pub fn in_memory(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Memory(octets) => Some(octets),
            Kind::Large(_) => None,
        }
    }

    pub(crate) fn as_large(&self) -> Option<&Arc<Large>> {
        match &self.0 {
            Kind::Memory(_) => None,
            Kind::Large(large) => Some(large),
        }
    }

    /// Whether it is not what was committed. False as well if it cannot be read for another reason.
    pub async fn is_damaged(&self) -> bool {
        let mut reader = self.reader();
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(failure) => {
                    return matches!(
                        failure.kind(),
                        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                    );
                }
            }
        }
    }

    /// Reads it from the start.
    pub fn reader(&self) -> Reader {
        Reader { content: self.0.clone(), at: 0, crc: 0 }
    }
}

impl From<Bytes> for Content {
    fn from(octets: Bytes) -> Self {
        Self(Kind::Memory(octets))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} octets)", self.len())
    }
}

/// Reads content from its start to its end.
pub struct Reader {
    content: Kind,
    at: u64,
    crc: u32,
}

impl Reader {
    /// The next octets, at most 64 KiB of a large message; `None` at the end.
    ///
    /// The error may come at the very end: only then is it known whether a large message is what was committed. Whoever
    /// passes it on must not call it complete before this has returned `None`.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match &mut self.content {
            Kind::Memory(octets) => {
                let all = mem::take(octets);
                Ok((!all.is_empty()).then_some(all))
            }
            Kind::Large(large) if self.at == large.length() => large.verify(self.crc).map(|()| None),
            Kind::Large(large) => {
                let (large, at) = (Arc::clone(large), self.at);
                // Allocated and freed by the threads that send: the many that read would each keep some.
                let buffer = large.buffer(at);
                let reading = tokio::task::spawn_blocking(move || large.piece(at, buffer));
                let piece = reading.await.map_err(io::Error::other)??;
                self.at += piece.len() as u64;
                self.crc = crc32c::crc32c_append(self.crc, &piece);
                Ok(Some(piece))
            }
        }
    }
}
