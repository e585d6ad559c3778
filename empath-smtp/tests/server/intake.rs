//! Where the tests' messages go.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use empath_common::{Client, Clock, Envelope, MessageId};
use empath_smtp::server::{Draft, Intake, IntakeError};
use jiff::Timestamp;
use tokio::{sync::Notify, time::sleep};

use crate::script::Stage;

#[derive(Default, Clone)]
pub(crate) struct Shelf(Arc<Inner>);

#[derive(Default)]
struct Inner {
    messages: Mutex<Vec<(Envelope, Vec<u8>)>>,
    failing: Option<(Stage, IntakeError)>,
    /// Commits wait for it, if there is one.
    gate: Option<Notify>,
    /// How long it takes to write content.
    pace: Duration,
    begun: AtomicU8,
    drafts: AtomicUsize,
}

pub(crate) struct Growing {
    id: MessageId,
    content: Vec<u8>,
    inner: Arc<Inner>,
}

impl Shelf {
    pub(crate) fn failing(failing: Option<(Stage, IntakeError)>) -> Self {
        Self(Arc::new(Inner { failing, ..Inner::default() }))
    }

    /// One that commits only when it is told to.
    pub(crate) fn gated() -> Self {
        Self(Arc::new(Inner { gate: Some(Notify::new()), ..Inner::default() }))
    }

    /// One that takes so long for each piece of content.
    pub(crate) fn slow(pace: Duration) -> Self {
        Self(Arc::new(Inner { pace, ..Inner::default() }))
    }

    pub(crate) fn open(&self) {
        self.0.gate.as_ref().unwrap().notify_one();
    }

    /// What was committed.
    pub(crate) fn messages(&self) -> Vec<(Envelope, Vec<u8>)> {
        self.0.messages.lock().unwrap().clone()
    }

    /// Messages that are growing at present.
    pub(crate) fn drafts(&self) -> usize {
        self.0.drafts.load(SeqCst)
    }
}

impl Inner {
    fn check(&self, stage: Stage) -> Result<(), IntakeError> {
        match self.failing {
            Some((failing, error)) if failing == stage => Err(error),
            _ => Ok(()),
        }
    }
}

impl Intake for Shelf {
    type Draft = Growing;

    fn begin(&self) -> Result<Growing, IntakeError> {
        self.0.check(Stage::Begin)?;
        self.0.drafts.fetch_add(1, SeqCst);
        let id = MessageId::from_bytes([self.0.begun.fetch_add(1, SeqCst); 16]);
        Ok(Growing { id, content: Vec::new(), inner: Arc::clone(&self.0) })
    }

    async fn commit(&self, draft: Growing, envelope: Envelope, _: &Client) -> Result<MessageId, IntakeError> {
        if let Some(gate) = &self.0.gate {
            gate.notified().await;
        }
        self.0.check(Stage::Commit)?;
        self.0.messages.lock().unwrap().push((envelope, draft.content.clone()));
        Ok(draft.id)
    }
}

impl Draft for Growing {
    fn id(&self) -> MessageId {
        self.id
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), IntakeError> {
        // The trace field is ours; what fails is the client's content.
        if !self.content.is_empty() {
            self.inner.check(Stage::Write)?;
            if !self.inner.pace.is_zero() {
                sleep(self.inner.pace).await;
            }
        }
        self.content.extend_from_slice(octets);
        Ok(())
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.inner.drafts.fetch_sub(1, SeqCst);
    }
}

/// A clock that stands still.
pub(crate) struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        "2026-11-21T09:08:07Z".parse().unwrap()
    }
}
