use empath_common::Domain;

use super::{BreakerState, lane::Lane};
use crate::route::NextHop;

/// What happened to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its breaker has changed.
    Breaker {
        /// Where to.
        next_hop: NextHop,
        /// The domain by which it is known.
        domain: String,
        /// From now on.
        state: BreakerState,
    },
    /// Mail waits for a rate limit.
    RateLimited {
        /// The domain by which its destination is known.
        domain: String,
    },
}

impl Event {
    pub(super) fn breaker(next_hop: &NextHop, lane: &Lane) -> Self {
        let domain = known_as(next_hop, lane.domain.as_ref());
        Self::Breaker { next_hop: next_hop.clone(), domain, state: lane.breaker.state() }
    }

    pub(super) fn limited(next_hop: &NextHop, lane: &Lane) -> Self {
        Self::RateLimited { domain: known_as(next_hop, lane.domain.as_ref()) }
    }
}

fn known_as(next_hop: &NextHop, domain: Option<&Domain>) -> String {
    match (next_hop, domain) {
        (NextHop::Mx(domain, _), _) | (_, Some(domain)) => domain.to_string(),
        (next_hop, None) => next_hop.to_string(),
    }
}
