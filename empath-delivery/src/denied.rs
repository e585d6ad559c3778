//! Which hosts have refused our credentials lately.
//!
//! A host that is shown a wrong password or an expired token by every connection takes that for an attack and locks us out. The circuit breaker sees to that
//! where no other host takes the mail; here it is seen to for the hosts of a list of which another one does.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use empath_smtp::client::{Credentials, Proof, Target};
use tokio::time::Instant;

/// Most hosts and credentials that are remembered.
const MAX_DENIED: usize = 1000;

/// Hosts that refused credentials, and when they last did.
#[derive(Default)]
pub(crate) struct Denied {
    since: Mutex<HashMap<(Target, Mark), Instant>>,
    hasher: RandomState,
}

/// Tells credentials from others, and a mended password or renewed token from the wrong one, without keeping them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u64);

impl Denied {
    /// The mark of these credentials.
    pub(crate) fn mark(&self, Credentials { user, proof }: &Credentials) -> Mark {
        let (is_token, octets) = match proof {
            Proof::Password(password) => (false, password.octets()),
            Proof::Token(token) => (true, token.octets()),
        };
        Mark(self.hasher.hash_one((user, is_token, octets)))
    }

    /// Whether the host has refused any at all: nothing else has to be read then.
    pub(crate) fn knows(&self, target: &Target) -> bool {
        self.since().keys().any(|(known, _)| known == target)
    }

    /// Whether the host has refused these within that time.
    pub(crate) fn has(&self, target: &Target, mark: Mark, within: Duration) -> bool {
        self.since().get(&(target.clone(), mark)).is_some_and(|since| since.elapsed() < within)
    }

    /// The host has refused these. True if that is news.
    pub(crate) fn add(&self, target: &Target, mark: Mark) -> bool {
        let (mut since, key) = (self.since(), (target.clone(), mark));
        if since.len() >= MAX_DENIED && !since.contains_key(&key) {
            let oldest = since.iter().min_by_key(|(_, since)| **since).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| since.remove(&oldest));
        }
        since.insert(key, Instant::now()).is_none()
    }

    /// The host has taken these.
    pub(crate) fn remove(&self, target: &Target, mark: Mark) {
        self.since().remove(&(target.clone(), mark));
    }

    fn since(&self) -> MutexGuard<'_, HashMap<(Target, Mark), Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use empath_smtp::client::Secret;

    use super::*;

    const WITHIN: Duration = Duration::from_mins(5);

    fn target(number: u32) -> Target {
        Target::Tcp((number.to_be_bytes(), 587).into())
    }

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), proof: Proof::Password(password.as_bytes().into()) }
    }

    fn token(token: &str) -> Credentials {
        let token = Secret::from(token.as_bytes()).try_into().unwrap();
        Credentials { user: "alice".into(), proof: Proof::Token(token) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_is_another_one() {
        let denied = Denied::default();
        let expired = denied.mark(&token("expired"));
        denied.add(&target(0), expired);
        assert!(denied.has(&target(0), expired, WITHIN));
        assert!(!denied.has(&target(0), denied.mark(&token("renewed")), WITHIN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_of_these_credentials_at_this_host_for_that_long() {
        let denied = Denied::default();
        let wrong = denied.mark(&credentials("alice", "sesam"));
        assert!(!denied.knows(&target(0)));
        assert!(denied.add(&target(0), wrong) && !denied.add(&target(0), wrong));
        assert!(denied.knows(&target(0)) && denied.has(&target(0), wrong, WITHIN));
        let others = [("alice", "sesame"), ("bob", "sesam"), ("alices", "esam")];
        for other in
            others.map(|(user, password)| credentials(user, password)).into_iter().chain([token("sesam")])
        {
            assert!(!denied.has(&target(0), denied.mark(&other), WITHIN), "{}", other.user);
        }
        assert!(!denied.knows(&target(1)) && !denied.has(&target(1), wrong, WITHIN));
        tokio::time::advance(WITHIN).await;
        assert!(!denied.has(&target(0), wrong, WITHIN));
        denied.add(&target(0), wrong);
        assert!(denied.has(&target(0), wrong, WITHIN));
        denied.remove(&target(0), wrong);
        assert!(!denied.has(&target(0), wrong, WITHIN));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_refusal_is_forgotten_when_there_are_too_many() {
        let denied = Denied::default();
        let mark = denied.mark(&credentials("alice", "sesam"));
        for number in 0..=1000 {
            denied.add(&target(number), mark);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(!denied.knows(&target(0)) && denied.knows(&target(1)) && denied.knows(&target(1000)));
        assert_eq!(denied.since().len(), MAX_DENIED);
    }
}
