use std::{
    net::SocketAddr,
    sync::{Arc, MutexGuard, PoisonError},
};

use empath_smtp::client::{Failure, FailureKind};
use tokio::time::Instant;

use super::Shared;
use crate::health::{Advice, Health};

/// What attempts tell each other about hosts.
impl Shared {
    /// Whether a host could not be reached lately. Now and then this finds out in the background if it still is so.
    pub(crate) fn is_sick(self: &Arc<Self>, address: SocketAddr) -> bool {
        let advice = self.health().advice(address, Instant::now());
        if advice == Advice::Probe {
            let (shared, stopping) = (Arc::clone(self), self.stopping.clone());
            self.spawn(async move {
                let _ = stopping.run_until_cancelled(probe(shared, address)).await;
            });
        }
        advice != Advice::Try
    }

    /// A connection to a host came about.
    pub(crate) fn is_well(&self, address: SocketAddr) {
        self.health().well(address);
    }

    /// A connection to a host did not.
    pub(crate) fn is_ill(&self, address: SocketAddr) {
        self.health().failed(address, Instant::now());
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(shared: Arc<Shared>, address: SocketAddr) {
    let helo = shared.settings.hostname.as_str();
    match shared.network.greet(address, helo, &shared.timeouts).await {
        Ok(connection) => {
            shared.is_well(address);
            connection.quit().await;
        }
        // Who refuses is there.
        Err(Failure { kind: FailureKind::Refused(_), .. }) => shared.is_well(address),
        Err(_) => shared.health().probed(address, Instant::now()),
    }
}
