//! The hosts of a next hop in the order in which they are tried: those that could not be reached lately come last, and
//! after them those that have refused our credentials.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    attempt::Outbound,
    failure::Failure,
    hosts::{Candidate, Hosts},
    open::Network,
    processor::Shared,
    queue::ConnectionId,
    route::Terms,
    source::Origin,
};

/// How long connecting to a host may take while there are others: a second SYN has been answered or lost by then (RFC 6298
/// §2.1). The host has the usual time when nobody else took the message.
pub(crate) const HASTE: Duration = Duration::from_secs(3);

/// The hosts that were not tried yet.
pub(crate) struct Order<'a> {
    hosts: Hosts<'a>,
    last: VecDeque<Candidate>,
    /// Those that refused what they would be shown.
    denied: VecDeque<Candidate>,
    shared: &'a Arc<Shared>,
    connection: ConnectionId,
    terms: &'a Arc<Terms>,
    network: &'a Network,
    /// How long a refusal of our credentials is remembered.
    denied_for: Duration,
    /// The source has no address of the family of some hosts.
    out_of_reach: bool,
}

/// A host whose turn it is.
pub(crate) struct Turn {
    pub(crate) candidate: Candidate,
    /// There are others, so it has not to be waited for.
    pub(crate) hasty: bool,
}

impl<'a> Order<'a> {
    /// The hosts of the next hop, best first.
    pub(crate) async fn of(outbound: &'a Outbound<'_>, rng: &mut fastrand::Rng) -> Result<Self, Failure> {
        let Outbound { next_hop, terms, config, network, resolver, own, shared, connection, .. } = outbound;
        let _resolving = shared.resolving(*connection);
        let hosts = Hosts::of(next_hop, config.mx_port, resolver, own, rng).await?;
        Ok(Self {
            hosts,
            last: VecDeque::new(),
            denied: VecDeque::new(),
            shared,
            connection: *connection,
            terms,
            network,
            denied_for: config.circuit_breaker.timeout,
            out_of_reach: false,
        })
    }

    /// The next address, or why a host has none. Once a host has listened, those that refuse our credentials are left alone: the
    /// circuit breaker would not see that they do.
    pub(crate) async fn next(&mut self, listened: bool) -> Option<Result<Turn, Failure>> {
        let _resolving = self.shared.resolving(self.connection);
        loop {
            match self.hosts.next().await {
                Some(Err(failure)) => return Some(Err(failure)),
                Some(Ok(candidate)) if !self.terms.reach(&candidate.target) => self.out_of_reach = true,
                Some(Ok(candidate)) => {
                    let hasty = self.hosts.has_more() || !self.last.is_empty();
                    if (hasty || listened)
                        && self.network.is_denied(&candidate.target, self.terms, self.denied_for).await
                    {
                        self.denied.push_back(candidate);
                        continue;
                    }
                    if !(hasty && self.shared.is_sick(&candidate, self.terms)) {
                        return Some(Ok(Turn { candidate, hasty }));
                    }
                    self.put_last(candidate);
                }
                None => {
                    let denied = || self.denied.pop_front().filter(|_| !listened);
                    let candidate = self.last.pop_front().or_else(denied)?;
                    return Some(Ok(Turn { candidate, hasty: false }));
                }
            }
        }
    }

    /// The source that some hosts can't be reached from.
    pub(crate) fn out_of_reach(&self) -> Option<&Origin> {
        self.terms.source.as_deref().filter(|_| self.out_of_reach)
    }

    /// Tries a host when all others have been.
    pub(crate) fn put_last(&mut self, candidate: Candidate) {
        self.last.push_back(candidate);
    }
}
