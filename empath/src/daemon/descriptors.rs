//! File descriptors: a session is one, and so is a connection to a next hop.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use crate::config::Config;

/// Descriptors for the rest: 512 for lookups in the DNS, each of which asks from a port of its own, and 256 for the
/// spool, large messages, listeners, the control socket, HTTP and the log.
const RESERVE: usize = 512 + 256;

/// Raises the soft limit to the hard one. Where that is less than the configuration may need, there is a warning, and fewer
/// connections than configured: a flood of clients is refused then while there are descriptors for everything else. One
/// address has no more than half of them.
pub(super) fn fit(config: &mut Config) {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(failure) = setrlimit(Resource::Nofile, wanted) {
        warn!(error = %failure, "the limit of open files could not be raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let limits = &mut config.smtp.limits;
    let (sessions, deliveries) = (&mut limits.connections, &mut config.delivery.max_concurrent);
    let needed = sessions.saturating_add(*deliveries).saturating_add(RESERVE);
    debug!(limit, needed, "open files");
    if limit < needed {
        (*sessions, *deliveries) = shares(limit, *sessions, *deliveries);
        limits.connections_per_address = limits.connections_per_address.min((*sessions / 2).max(1));
        warn!(
            limit,
            needed,
            connections = *sessions,
            max_concurrent = *deliveries,
            "too few open files for smtp.limits.connections and delivery.max_concurrent, so they are less than \
             configured: raise LimitNOFILE= of the service (ulimit -Hn), or lower them"
        );
    }
}

/// How many sessions and deliveries there can be. Deliveries have a quarter at most, unless sessions need less.
fn shares(limit: usize, sessions: usize, deliveries: usize) -> (usize, usize) {
    let connections = limit - RESERVE.min(limit / 2);
    let deliveries = deliveries.min((connections / 4).max(connections.saturating_sub(sessions))).max(1);
    (sessions.min(connections - deliveries.min(connections)).max(1), deliveries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_deliveries_and_the_rest_share_the_descriptors_that_there_are() {
        for (limit, sessions, deliveries, shared) in [
            (64, 10_000, 500, (24, 8)),
            (1024, 10_000, 500, (384, 128)),
            (1024, 10_000, 10, (502, 10)),
            (1024, 300, 500, (300, 212)),
            (4096, 20_000, 500, (2828, 500)),
            (1, 10_000, 500, (1, 1)),
        ] {
            assert_eq!(shares(limit, sessions, deliveries), shared, "{limit} {sessions} {deliveries}");
            assert!(limit == 1 || shared.0 + shared.1 + RESERVE.min(limit / 2) <= limit);
        }
    }
}
