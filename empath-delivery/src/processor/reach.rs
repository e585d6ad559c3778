use std::sync::{Arc, MutexGuard, PoisonError};

use empath_smtp::client::{Failure, FailureKind, Hello, Protocol, Target};
use tokio::time::Instant;

use super::Shared;
use crate::health::{Advice, Health};

/// What attempts tell each other about hosts.
impl Shared {
    /// Whether a host could not be reached lately. Now and then this finds out in the background if it still is so.
    pub(crate) fn is_sick(self: &Arc<Self>, target: &Target, protocol: Protocol) -> bool {
        let advice = self.health().advice(target, Instant::now());
        if advice == Advice::Probe {
            let (shared, stopping) = (Arc::clone(self), self.stopping.clone());
            let target = target.clone();
            self.spawn(async move {
                let _ = stopping.run_until_cancelled(probe(shared, &target, protocol)).await;
            });
        }
        advice != Advice::Try
    }

    /// A connection to a host came about.
    pub(crate) fn is_well(&self, target: &Target) {
        self.health().well(target);
    }

    /// A connection to a host did not.
    pub(crate) fn is_ill(&self, target: &Target) {
        self.health().failed(target, Instant::now());
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(shared: Arc<Shared>, target: &Target, protocol: Protocol) {
    let (hello, live) = (Hello { protocol, name: shared.hostname.as_str() }, shared.live());
    match live.network.greet(target, hello, &live.timeouts).await {
        Ok(connection) => {
            shared.is_well(target);
            connection.quit().await;
        }
        // Who refuses is there.
        Err(Failure { kind: FailureKind::Refused(_), .. }) => shared.is_well(target),
        Err(_) => shared.health().probed(target, Instant::now()),
    }
}
