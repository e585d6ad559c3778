use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use empath_smtp::client::{Failure, FailureKind, Target};
use tokio::time::{Instant, sleep};

use super::Shared;
use crate::{
    health::{Advice, Health},
    hosts::Candidate,
    order::HASTE,
    route::Terms,
};

/// How long a host is waited for until it is ready for mail, while others wait for the connection and no attempt at the message
/// has failed: the next one has the usual time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What attempts tell each other about hosts.
impl Shared {
    /// Whether a host could not be reached lately. Now and then this finds out in the background if it still is so.
    pub(crate) fn is_sick(self: &Arc<Self>, candidate: &Candidate, terms: &Arc<Terms>) -> bool {
        let advice = self.health().advice(&candidate.target, Instant::now());
        if advice == Advice::Probe {
            let (shared, stopping) = (Arc::clone(self), self.stopping.clone());
            let (candidate, terms) = (candidate.clone(), Arc::clone(terms));
            self.spawn(async move {
                let _ = stopping.run_until_cancelled(probe(shared, &candidate, &terms)).await;
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

    /// Whether others wait for a connection whose hosts may well answer.
    pub(crate) fn is_pressed(&self) -> bool {
        *self.pressed.borrow()
    }

    /// Completes when they do, but not before a host that answers would usually have done so.
    pub(crate) async fn pressed(&self) {
        self.pressed_after(PATIENCE).await;
    }

    /// Completes when they do, but not before so much time has passed.
    pub(crate) async fn pressed_after(&self, patience: Duration) {
        sleep(patience).await;
        let _ = self.pressed.subscribe().wait_for(|pressed| *pressed).await;
    }

    /// Completes when we stop, but not before a host that answers would usually have done so.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
        sleep(HASTE).await;
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(shared: Arc<Shared>, candidate: &Candidate, terms: &Terms) {
    let (target, live) = (&candidate.target, shared.live());
    match live.network.greet(candidate, terms, &shared.hostname, &live.timeouts).await {
        Ok(connection) => {
            shared.is_well(target);
            connection.quit().await;
        }
        // Who refuses is there.
        Err(Failure { kind: FailureKind::Refused(_), .. }) => shared.is_well(target),
        Err(_) => shared.health().probed(target, Instant::now()),
    }
}
