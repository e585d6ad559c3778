//! Joins the protocol and the spool: what a client sends becomes a durable, queued message here.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use empath_common::{Client, Clock, Envelope, Escaped, MessageId};
use empath_delivery::Processor;
use empath_smtp::server::{self, IntakeError, Limits};
use empath_spool::{CommitError, Entry, Spool};
use tracing::{error, info};

/// Accepts content into the spool and hands committed messages to delivery.
pub struct Intake {
    spool: Arc<dyn Spool>,
    processor: Processor,
    clock: Arc<dyn Clock>,
    rng: Mutex<fastrand::Rng>,
    memory: Arc<ContentMemory>,
    queue_size: usize,
}

/// A budget of octets that all content in memory shares.
#[derive(Debug)]
struct ContentMemory {
    used: AtomicUsize,
    limit: usize,
}

/// Octets taken from the budget until this is dropped.
#[derive(Debug)]
struct Reserved {
    memory: Arc<ContentMemory>,
    octets: usize,
}

/// The content of one message, growing.
pub struct Draft {
    id: MessageId,
    content: Vec<u8>,
    reserved: Reserved,
}

/// Committed content: its memory goes back to the budget when delivery drops the last reference.
struct Held {
    content: Vec<u8>,
    _reserved: Reserved,
}

impl Intake {
    /// Messages go to `spool`, then to `processor`. None is begun while there are as many as `limits` allow.
    pub fn new(spool: Arc<dyn Spool>, processor: Processor, clock: Arc<dyn Clock>, limits: &Limits) -> Self {
        Self {
            spool,
            processor,
            clock,
            rng: Mutex::new(fastrand::Rng::new()),
            memory: ContentMemory::new(limits.content_memory.as_usize()),
            queue_size: limits.queue_size,
        }
    }
}

impl ContentMemory {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    fn reserve(&self, octets: usize) -> Result<(), IntakeError> {
        let used = self.used.fetch_add(octets, Relaxed);
        if used.saturating_add(octets) <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(octets, Relaxed);
        Err(IntakeError::Full)
    }
}

impl Reserved {
    fn grow(&mut self, octets: usize) -> Result<(), IntakeError> {
        self.memory.reserve(octets)?;
        self.octets += octets;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.octets, Relaxed);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl server::Draft for Draft {
    fn id(&self) -> MessageId {
        self.id
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), IntakeError> {
        let before = self.content.capacity();
        if before - self.content.len() < octets.len() {
            // Reserve before growing: the buffer doubles, so the budget sees what is really allocated.
            let wanted = (self.content.len() + octets.len()).max(before * 2);
            self.reserved.grow(wanted - before)?;
            self.content.reserve_exact(wanted - self.content.len());
        }
        self.content.extend_from_slice(octets);
        Ok(())
    }
}

impl server::Intake for Intake {
    type Draft = Draft;

    fn begin(&self) -> Result<Draft, IntakeError> {
        if self.processor.queue_len() >= self.queue_size {
            return Err(IntakeError::Full);
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let id = MessageId::generate(self.clock.now(), &mut rng);
        let reserved = Reserved { memory: Arc::clone(&self.memory), octets: 0 };
        Ok(Draft { id, content: Vec::new(), reserved })
    }

    async fn commit(
        &self,
        draft: Draft,
        mut envelope: Envelope,
        client: &Client,
    ) -> Result<MessageId, IntakeError> {
        let Draft { id, content, reserved } = draft;
        envelope.received_at = self.clock.now();
        let envelope = Arc::new(envelope);
        let content = Bytes::from_owner(Held { content, _reserved: reserved });
        let entry = Entry::Accepted { id, envelope: Arc::clone(&envelope), content: content.clone() };
        if let Err(failure) = self.spool.commit(entry.into()).await {
            error!(message_id = %id, error = %failure, "message refused: it could not be stored");
            return Err(match failure {
                CommitError::Full(_) => IntakeError::Full,
                CommitError::TooLarge(_) => IntakeError::TooLarge,
                CommitError::Io(_) | CommitError::Closed => IntakeError::Failed,
            });
        }
        info!(
            message_id = %id,
            sender = envelope.reverse_path.as_str(),
            recipients = envelope.recipients().len(),
            size = content.len(),
            peer = %client.peer,
            helo = %Escaped(client.helo.as_deref().unwrap_or_default().as_bytes()),
            user = client.user.as_deref().map(|user| Escaped(user.as_bytes()).to_string()),
            tls = client.tls.as_ref().map(|tls| tls.version),
            cipher = client.tls.as_ref().map(|tls| tls.cipher),
            certificate = client.tls.as_ref().and_then(|tls| tls.certificate.as_deref()),
            "received"
        );
        self.processor.accepted(id, envelope, content);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_refuses_what_exceeds_it_and_takes_back_what_is_dropped() {
        let memory = ContentMemory::new(100);
        let mut one = Reserved { memory: Arc::clone(&memory), octets: 0 };
        let mut other = Reserved { memory: Arc::clone(&memory), octets: 0 };
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(IntakeError::Full));
        assert_eq!(other.grow(40), Ok(()));
        drop(one);
        assert_eq!(other.grow(60), Ok(()));
        drop(other);
        assert_eq!(memory.used.load(Relaxed), 0);
    }
}
