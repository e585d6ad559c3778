//! Before a connection sees to a job: whether its lane is the right one for the job's domains.

use std::time::Duration;

use empath_common::{Domain, ForwardPath};
use tokio::time::{Instant, timeout_at};

use crate::{
    failure::{Failure, Scope},
    lane::Lane,
    queue::{Job, JobRecipient},
    route::NextHop,
    site::Site,
};

/// How long a lane that domains share waits for the name servers of those of a message. An answer that is late is waited for in
/// the domain's own lane.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose job it is.
pub(crate) enum Whose {
    /// This connection's. If there is a failure, its hosts could not be found.
    Ours(Option<Failure>),
    /// It goes in other lanes, and this connection is wanted for others.
    Others,
    /// It goes in another lane, and this connection has been taken out.
    AnotherLanes,
}

impl Lane {
    /// Looks up the hosts of the job's domains, and gives those recipients back whose mail goes in another lane.
    pub(crate) async fn sort(&mut self, job: &mut Job) -> Whose {
        let rollup = self.live.delivery.connection_pool.mx_rollup;
        match self.next_hop.clone() {
            // The bare <Postmaster> has no domain to share.
            NextHop::Mx(domain, _) if rollup && job.domain() == Some(&domain) => {
                let _resolving = self.shared.resolving(self.id);
                let site = match self.live.resolver.mx(&domain).await {
                    Err(failure) => return Whose::Ours(Some(Failure::from(&failure))),
                    Ok(hosts) => Site::of(hosts),
                };
                let gone = self.shared.roll_up(self.id, job, site);
                if gone { Whose::AnotherLanes } else { Whose::Ours(None) }
            }
            NextHop::Site(site, _) => match self.stay_away(&site, job, rollup).await {
                Some(failure) => Whose::Ours(Some(failure)),
                None if job.recipients.is_empty() => Whose::Others,
                None => Whose::Ours(None),
            },
            _ => Whose::Ours(None),
        }
    }

    /// Gives recipients back whose domains have other hosts than these now, or none: a message goes to nobody else than a
    /// host of its domain. What that means is found out in the domain's own lane. It is a failure only if nobody is to try
    /// the message again.
    async fn stay_away(&mut self, site: &Site, job: &mut Job, rollup: bool) -> Option<Failure> {
        let mut domains: Vec<Domain> =
            job.recipients.iter().filter_map(|recipient| domain(job, recipient)).cloned().collect();
        domains.sort_unstable();
        domains.dedup();
        let patience = Instant::now() + PATIENCE;
        let _resolving = self.shared.resolving(self.id);
        for other in domains {
            // What is known is there at once, also when patience is over.
            let hosts = timeout_at(patience, self.live.resolver.mx(&other)).await;
            if rollup && hosts.is_ok_and(|hosts| hosts.is_ok_and(|hosts| Site::of(hosts) == *site)) {
                continue;
            }
            let is_there = |recipient: &JobRecipient| domain(job, recipient) == Some(&other);
            let (out, rest) = job.recipients.iter().copied().partition::<Vec<_>, _>(is_there);
            if !self.shared.expel(self.id, job, &out, &other) {
                return Some(Failure::new(Scope::Destination, (4, 4, 0), "the domain has other hosts now"));
            }
            job.recipients = rest;
        }
        None
    }
}

/// The next hop of a job as it is shown: that of its domain, if it has one.
pub(crate) fn shown(next_hop: &NextHop, job: &Job) -> NextHop {
    let first = job.domain();
    let one = job.recipients.iter().all(|recipient| domain(job, recipient) == first);
    next_hop.to_domain(first.filter(|_| one))
}

fn domain<'a>(job: &'a Job, recipient: &JobRecipient) -> Option<&'a Domain> {
    job.envelope.recipients().get(recipient.index as usize).and_then(ForwardPath::domain)
}
