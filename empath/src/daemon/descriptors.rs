//! File descriptors: a session is one, and so is a connection to a next hop.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use crate::config::Config;

/// Descriptors for the rest: the spool, listeners, the control socket, HTTP, the log.
const RESERVE: u64 = 256;

/// Raises the soft limit to the hard one, and warns when that is less than the configuration may need.
pub(super) fn raise(config: &Config) {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(failure) = setrlimit(Resource::Nofile, wanted) {
        warn!(error = %failure, "the limit of open files could not be raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let needed = needed(config);
    debug!(?limit, needed, "open files");
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        warn!(
            limit,
            needed,
            "too few open files for smtp.limits.connections and delivery.max_concurrent: raise LimitNOFILE= of the \
             service (ulimit -Hn), or lower them"
        );
    }
}

fn needed(config: &Config) -> u64 {
    let connections = config.smtp.limits.connections.saturating_add(config.delivery.max_concurrent);
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(RESERVE)
}
