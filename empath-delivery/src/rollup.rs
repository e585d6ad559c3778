//! Before a connection sees to a job: whether its lane is the right one for the job's domains.

use std::{sync::Arc, time::Duration};

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

/// Most hosts whose addresses are asked for at a time: few, for as many jobs as wait may ask for theirs.
const MAX_FIRST: usize = 2;

/// How long name servers have to say what they know already, before others that wait have the place.
const GRACE: Duration = Duration::from_millis(20);

/// Whose job it is.
pub(crate) enum Whose {
    /// This connection's. If there is a failure, its hosts could not be found.
    Ours(Option<Failure>),
    /// It goes in other lanes, and this connection is wanted for others.
    Others,
    /// It goes in another lane or waits for a place, and this connection has been taken out.
    AnotherLanes,
    /// We stop, and the next start finds it as it was.
    Nobodys,
}

impl Lane {
    /// Looks up the hosts of the job's domains, and gives those recipients back whose mail goes in another lane.
    pub(crate) async fn sort(&mut self, job: &mut Job) -> Whose {
        self.away = false;
        let mut whose = self.look_up(job).await;
        if matches!(whose, Whose::Ours(None)) && self.hear_of_addresses(job).await.is_none() {
            whose = Whose::Nobodys;
        }
        if !(self.away && matches!(whose, Whose::Ours(None))) {
            return whose;
        }
        match self.shared.come_back(self.id, job) {
            Some(true) => {
                self.away = false;
                Whose::Ours(None)
            }
            Some(false) => Whose::AnotherLanes,
            None => Whose::Ours(Some(unwanted("nobody waits for a connection any more"))),
        }
    }

    async fn look_up(&mut self, job: &mut Job) -> Whose {
        let rollup = self.live.delivery.connection_pool.mx_rollup;
        match self.next_hop.clone() {
            // The bare <Postmaster> has no domain to share. An open connection is to the hosts of the domain.
            NextHop::Mx(domain, _) if (rollup || self.open.is_none()) && job.domain() == Some(&domain) => {
                let resolver = Arc::clone(&self.live.resolver);
                let site = match self.answer(job, resolver.mx(&domain)).await {
                    None => return Whose::Nobodys,
                    Some(Err(failure)) => return Whose::Ours(Some(Failure::from(&failure))),
                    Some(Ok(hosts)) => Site::of(hosts),
                };
                let gone = rollup && self.shared.roll_up(self.id, job, site);
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

    /// Waits until the addresses of one of the hosts that are tried first are known, if any are needed. `None` if we stop.
    async fn hear_of_addresses(&mut self, job: &Job) -> Option<()> {
        let resolver = Arc::clone(&self.live.resolver);
        let hosts = match self.next_hop.clone() {
            _ if self.open.is_some() => return Some(()),
            NextHop::Mx(domain, _) => self.answer(job, resolver.mx(&domain)).await?.unwrap_or_default(),
            NextHop::Site(site, _) => site.hosts(),
            _ => return Some(()),
        };
        let best = hosts.iter().map(|host| host.preference).min();
        let first: Vec<_> =
            hosts.into_iter().filter(|host| Some(host.preference) == best).take(MAX_FIRST).collect();
        self.answer(job, resolver.any_addresses(&first)).await
    }

    /// What name servers say. While they are silent, whoever waits for a place has this connection's if it is not open, and the
    /// job has its own again before it is tried. `None` if we stop.
    async fn answer<T>(&mut self, job: &Job, lookup: impl Future<Output = T>) -> Option<T> {
        let Self { shared, id, open, away, .. } = self;
        let _resolving = shared.resolving(*id);
        let mut may_go = open.is_none() && !*away;
        tokio::pin!(lookup);
        loop {
            tokio::select! {
                biased;
                answer = &mut lookup => return Some(answer),
                () = shared.stopped() => return None,
                () = shared.pressed_after(GRACE), if may_go => {
                    (may_go, *away) = (false, shared.give_way(*id, job));
                }
            }
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
        let resolver = Arc::clone(&self.live.resolver);
        for other in domains {
            // What is known is there at once, also when patience is over.
            let hosts = self.answer(job, timeout_at(patience, resolver.mx(&other))).await;
            let hosts = hosts.and_then(Result::ok).and_then(Result::ok);
            if rollup && hosts.is_some_and(|hosts| Site::of(hosts) == *site) {
                continue;
            }
            let is_there = |recipient: &JobRecipient| domain(job, recipient) == Some(&other);
            let (out, rest) = job.recipients.iter().copied().partition::<Vec<_>, _>(is_there);
            if !self.shared.expel(self.id, job, &out, &other) {
                return Some(unwanted("the domain has other hosts now"));
            }
            job.recipients = rest;
        }
        None
    }
}

/// Of what is not to be tried again.
fn unwanted(why: &str) -> Failure {
    Failure::new(Scope::Destination, (4, 4, 0), why)
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
