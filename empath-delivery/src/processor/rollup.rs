use std::sync::Arc;

use empath_common::Domain;

use super::Shared;
use crate::{
    queue::{ConnectionId, Job, JobRecipient},
    site::Site,
};

/// What connections tell the queue about jobs that they do not send.
impl Shared {
    /// A connection's job was not sent: it has used no token of a rate limit.
    pub(crate) fn refund(self: &Arc<Self>, connection: ConnectionId) {
        let now = self.now();
        self.update(|queue| queue.refund(connection, now));
    }

    /// The hosts of a job's domain are these. True if it goes in their lane; this connection has been taken out of the queue
    /// then.
    pub(crate) fn roll_up(self: &Arc<Self>, connection: ConnectionId, job: &Job, site: Site) -> bool {
        let now = self.now();
        let gone = self.update(|queue| queue.roll_up(connection, job.id, &job.recipients, site, now));
        if gone {
            self.lock().connections.remove(&connection);
        }
        gone
    }

    /// A connection's job waits for name servers: whoever waits for a place may have its own. False if it keeps it.
    pub(crate) fn give_way(self: &Arc<Self>, connection: ConnectionId, job: &Job) -> bool {
        let now = self.now();
        self.update(|queue| queue.give_way(connection, job.id, &job.recipients, now))
    }

    /// A connection that gave way needs a place. False if there is none: the job waits for one, and the connection has been
    /// taken out of the queue. `None` if nobody wants the job any more.
    pub(crate) fn come_back(self: &Arc<Self>, connection: ConnectionId, job: &Job) -> Option<bool> {
        let now = self.now();
        let back = self.update(|queue| queue.come_back(connection, job.id, &job.recipients, now));
        if back == Some(false) {
            self.lock().connections.remove(&connection);
        }
        back
    }

    /// A domain has not the hosts of its lane: gives recipients of a job there back. False if nobody wants them any more.
    pub(crate) fn expel(
        self: &Arc<Self>,
        connection: ConnectionId,
        job: &Job,
        recipients: &[JobRecipient],
        domain: &Domain,
    ) -> bool {
        let now = self.now();
        self.update(|queue| queue.expel(connection, job.id, recipients, domain, now))
    }
}
