//! Joins the protocol and the spool: what a client sends becomes a durable, queued message here.

mod draft;
mod priority;
mod refusals;

use std::sync::{Arc, Mutex, PoisonError};

use empath_common::{Client, Clock, Envelope, Escaped, MessageId, MtPriority};
use empath_delivery::Processor;
use empath_smtp::server::{self, IntakeError, Limits};
use empath_spool::{Config, Entry, Spool};
use tracing::info;

pub use draft::Draft;
use draft::Storage;
pub use priority::Priorities;

/// Accepts content into the spool and hands committed messages to delivery.
pub struct Intake {
    storage: Arc<Storage>,
    processor: Processor,
    priorities: Priorities,
    clock: Arc<dyn Clock>,
    rng: Mutex<fastrand::Rng>,
    queue_size: usize,
}

impl Intake {
    /// Messages go to `spool`, which was opened with `config`, then to `processor`. None is begun while there are as many
    /// as `limits` allow.
    pub fn new(
        spool: Arc<dyn Spool>,
        config: &Config,
        processor: Processor,
        priorities: Priorities,
        clock: Arc<dyn Clock>,
        limits: &Limits,
    ) -> Self {
        let storage = Arc::new(Storage::new(spool, config, limits.content_memory.as_usize()));
        let rng = Mutex::new(fastrand::Rng::new());
        Self { storage, processor, priorities, clock, rng, queue_size: limits.queue_size }
    }
}

impl Intake {
    /// The same with other rules about what is taken in.
    #[must_use]
    pub fn successor(&self, priorities: Priorities, limits: &Limits) -> Self {
        Self {
            storage: Arc::clone(&self.storage),
            processor: self.processor.clone(),
            priorities,
            clock: Arc::clone(&self.clock),
            rng: Mutex::new(fastrand::Rng::new()),
            queue_size: limits.queue_size,
        }
    }
}

impl server::Intake for Intake {
    type Draft = Draft;

    fn begin(&self) -> Result<Draft, IntakeError> {
        if self.processor.queue_len() >= self.queue_size {
            return Err(IntakeError::Full);
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Draft::new(&self.storage, MessageId::generate(self.clock.now(), &mut rng)))
    }

    async fn commit(
        &self,
        draft: Draft,
        mut envelope: Envelope,
        client: &Client,
    ) -> Result<MessageId, IntakeError> {
        let id = server::Draft::id(&draft);
        let content = draft.finish().await?;
        envelope.priority = self.priorities.of(&envelope, &content, client).await;
        envelope.received_at = self.clock.now();
        let envelope = Arc::new(envelope);
        let entry = Entry::Accepted { id, envelope: Arc::clone(&envelope), content: content.clone() };
        let committed = self.storage.spool.commit(entry.into()).await;
        committed.map_err(|failure| self.storage.refusals.refuse(id, &failure))?;
        self.storage.refusals.stored();
        info!(
            message_id = %id,
            sender = envelope.reverse_path.as_str(),
            recipients = envelope.recipients().len(),
            size = content.len(),
            priority = envelope.priority.as_str(),
            mt_priority = envelope.mt_priority.map(MtPriority::get),
            future_release = envelope.future_release.map(tracing::field::display),
            peer = %client.peer,
            helo = %Escaped(client.helo.as_deref().unwrap_or_default().as_bytes()),
            user = client.user.as_deref().map(|user| Escaped(user.as_bytes()).to_string()),
            tls = client.tls.as_ref().map(|tls| tls.version),
            cipher = client.tls.as_ref().map(|tls| tls.cipher),
            certificate = client.tls.as_ref().and_then(|tls| tls.certificate.as_deref()),
            "received"
        );
        self.processor.accepted(id, envelope, &content);
        Ok(id)
    }
}
