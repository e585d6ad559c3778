//! Mail goes other ways when its senders are given other routes.

use std::sync::Arc;

use empath_common::MessageId;

use super::Shared;

/// How many messages are looked at while the queue is locked.
const PAGE: usize = 256;

/// Looks whose mail is queued whenever other senders have routes of their own.
pub(super) async fn run(shared: Arc<Shared>) {
    let stopping = shared.stopping.clone();
    while stopping.run_until_cancelled(shared.senders.notified()).await.is_some() {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                // What has been found was routed again with all the rest; the others are looked at anew.
                () = shared.senders.notified() => {}
                () = shared.reclassify() => break,
            }
        }
    }
}

impl Shared {
    /// What the queue keeps of a sender is its route alone: who it is stands in the spool.
    async fn reclassify(self: &Arc<Self>) {
        let (mut after, mut changed) = (None, false);
        loop {
            let ids: Vec<MessageId> =
                self.lock().queue.page(after, PAGE).iter().map(|message| message.id).collect();
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            let stored = self.spool.load_some(ids).await;
            let mut state = self.lock();
            for (id, stored) in stored {
                changed |=
                    stored.is_ok_and(|stored| state.queue.reclassify(id, &stored.envelope.reverse_path));
            }
        }
        if changed {
            let now = self.now();
            self.update(|queue| queue.route_all_again(now));
        }
    }
}
