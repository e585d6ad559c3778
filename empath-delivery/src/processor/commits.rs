use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use empath_common::MessageId;
use empath_spool::{Committed, Entry};

use super::Shared;

/// Most commits that one connection doesn't wait for.
const MAX_OPEN: usize = 64;

/// Commits whose answers nobody waits for, in their order.
///
/// A delivered message is delivered, whether the spool takes the news at once or not; the next job goes on
/// meanwhile.
#[derive(Default)]
pub(crate) struct Commits(VecDeque<Open>);

struct Open {
    id: MessageId,
    entry: Entry,
    committed: Committed,
}

impl Commits {
    /// Commits an outcome of a message; waits for the answer to the oldest when there are too many.
    pub(crate) async fn push(&mut self, shared: &Arc<Shared>, id: MessageId, entry: Entry) {
        if let Err(refusal) = shared.in_order(id) {
            return shared.keep(id, entry, refusal);
        }
        let committed = shared.spool.commit(entry.clone().into());
        self.0.push_back(Open { id, entry, committed });
        // Without a waker: an answer is not worth waking up for.
        while self.poll_first(shared, &mut Context::from_waker(Waker::noop())) == Poll::Ready(true) {}
        if self.0.len() >= MAX_OPEN {
            poll_fn(|context| self.poll_first(shared, context)).await;
        }
    }

    /// Waits until all are answered.
    pub(crate) async fn settled(&mut self, shared: &Arc<Shared>) {
        while poll_fn(|context| self.poll_first(shared, context)).await {}
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ready with false when there is none.
    fn poll_first(&mut self, shared: &Arc<Shared>, context: &mut Context<'_>) -> Poll<bool> {
        let Some(open) = self.0.front_mut() else {
            return Poll::Ready(false);
        };
        let Poll::Ready(answer) = Pin::new(&mut open.committed).poll(context) else {
            return Poll::Pending;
        };
        if let (Some(Open { id, entry, .. }), Err(refusal)) = (self.0.pop_front(), answer) {
            shared.keep(id, entry, refusal);
        }
        Poll::Ready(true)
    }
}
