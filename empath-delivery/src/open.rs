//! Connections to hosts: made on the terms of their next hop, counted as long as they exist.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use empath_common::{Domain, TlsSession};
use empath_metrics::Gauge;
use empath_smtp::client::{
    self, Connection, Credentials, Dial, Expected, FailureKind, Stage, Target, Timeouts, Tls,
};
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    attempt::Outbound,
    config::{Config, HostAddr, TlsPolicy},
    denied::Denied,
    failure::{Failure, Footing, Scope},
    hosts::Candidate,
    log,
    metrics::Metrics,
    route::Terms,
};

/// How long a host whose STARTTLS is broken is spoken to in clear text.
const CLEAR_FOR: Duration = Duration::from_hours(1);
/// Most hosts that this is known of. Of another one it is found out again by each connection.
const MAX_CLEAR: usize = 10_000;

/// How hosts are reached.
pub(crate) struct Network {
    dial: Arc<dyn Dial>,
    tls: Tls,
    broken: Arc<Broken>,
    denied: Arc<Denied>,
    metrics: Metrics,
}

/// Hosts that offer STARTTLS and can't do it, and until when that is believed.
#[derive(Default)]
struct Broken(Mutex<HashMap<Target, Instant>>);

/// The host at the other end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As it is shown: `mx1.example.test[192.0.2.1]:25`, `unix:/run/lmtp`.
    pub(crate) shown: String,
    pub(crate) host: Option<HostAddr>,
    pub(crate) tls: Option<TlsSession>,
}

/// A greeted connection.
pub(crate) struct Open {
    pub(crate) connection: Connection,
    pub(crate) peer: Arc<Peer>,
    pub(crate) messages: u32,
    since: Instant,
    pub(crate) footing: Footing,
    broken: Arc<Broken>,
    /// It is of no more use: the host wants another one, with TLS.
    spent: bool,
    active: Active,
}

/// Counts a connection until it is dropped.
struct Active(Gauge);

impl Active {
    fn new(gauge: Gauge) -> Self {
        gauge.increment();
        Self(gauge)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

impl Broken {
    fn has(&self, target: &Target) -> bool {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(target).is_some_and(|until| *until > Instant::now())
    }

    fn add(&self, target: &Target) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if hosts.len() >= MAX_CLEAR {
            hosts.retain(|_, until| *until > now);
        }
        if hosts.len() < MAX_CLEAR {
            hosts.insert(target.clone(), now + CLEAR_FOR);
        }
    }

    fn remove(&self, target: &Target) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }
}

impl Network {
    pub(crate) fn new(dial: Arc<dyn Dial>, tls: Tls, metrics: Metrics) -> Self {
        Self { dial, tls, broken: Arc::default(), denied: Arc::default(), metrics }
    }

    /// The same, with another way to encrypt.
    pub(crate) fn with(&self, tls: Tls) -> Self {
        let Self { dial, broken, denied, metrics, .. } = self;
        let (dial, metrics) = (Arc::clone(dial), metrics.clone());
        Self { dial, tls, broken: Arc::clone(broken), denied: Arc::clone(denied), metrics }
    }

    /// Whether a host has refused what it would be shown, within that time.
    pub(crate) async fn is_denied(&self, target: &Target, terms: &Terms, within: Duration) -> bool {
        if terms.credentials.is_none() || !self.denied.knows(target) {
            return false;
        }
        match credentials(terms).await {
            Ok(Some(credentials)) => self.denied.has(target, self.denied.mark(&credentials), within),
            _ => false,
        }
    }

    /// Connects to a host to see whether it is there: in clear text, but for one that speaks TLS alone.
    pub(crate) async fn greet(
        &self,
        Candidate { host, target, tls, .. }: &Candidate,
        terms: &Terms,
        hostname: &Domain,
        timeouts: &Arc<Timeouts>,
    ) -> Result<Connection, client::Failure> {
        let (hello, way) = (terms.hello(hostname), terms.way(target));
        let timeouts = Arc::clone(timeouts);
        if !*tls {
            return Connection::open(&*self.dial, way, hello, timeouts).await;
        }
        let name = host.as_ref().map(expected_name).unwrap_or_default();
        // Nothing is said to it that matters.
        let expected = Expected { name: &name, verified: false };
        Connection::open_tls(&*self.dial, way, (&self.tls, &expected), hello, timeouts).await
    }

    /// Connects to a host, for mail to `domain`, and shows it who we are where that is asked.
    async fn enter(
        &self,
        candidate: &Candidate,
        terms: &Terms,
        domain: &Domain,
        manners: (&Domain, &Arc<Timeouts>),
    ) -> Result<Connection, Failure> {
        let credentials = credentials(terms).await?;
        let connection = match self.connect(candidate, terms, domain, manners).await {
            Ok(connection) => connection,
            Err(failure) => {
                let absent = terms.from(&candidate.target).filter(|_| is_nobodys(&failure));
                let footing = Footing { configured: candidate.configured, bare: false };
                return Err(absent.map_or_else(|| Failure::at(footing, failure), Failure::absent_source));
            }
        };
        match credentials {
            None => Ok(connection),
            Some(credentials) => self.authenticate(connection, candidate, credentials).await,
        }
    }

    async fn authenticate(
        &self,
        connection: Connection,
        Candidate { host, target, .. }: &Candidate,
        credentials: Credentials,
    ) -> Result<Connection, Failure> {
        let mark = self.denied.mark(&credentials);
        let name = host.as_ref().map(expected_name);
        let shown_to = connection.authenticate(credentials, name.as_deref()).await.map_err(Failure::from);
        match &shown_to {
            Ok(_) => self.denied.remove(target, mark),
            Err(failure) if failure.is_denied() && self.denied.add(target, mark) => {
                log::denied(&shown(host.as_ref(), target), failure);
            }
            Err(_) => {}
        }
        shown_to
    }

    /// On what footing we are with a host that we are connected to.
    fn footing(&self, connection: &Connection, terms: &Terms, configured: bool) -> Footing {
        let clear = terms.tls == TlsPolicy::Opportunistic && connection.tls().is_none();
        let bare = clear && (connection.offered().starttls || self.broken.has(connection.peer()));
        Footing { configured, bare }
    }

    /// Connects to a host, encrypted as the terms want it.
    async fn connect(
        &self,
        Candidate { host, target, tls, .. }: &Candidate,
        terms: &Terms,
        domain: &Domain,
        (hostname, timeouts): (&Domain, &Arc<Timeouts>),
    ) -> Result<Connection, client::Failure> {
        let (hello, way) = (terms.hello(hostname), terms.way(target));
        let name = match (&terms.name, host) {
            (Some(name), _) => name.to_string(),
            (None, Some(host)) => expected_name(host),
            (None, None) => domain.to_string(),
        };
        let expected = Expected { name: &name, verified: terms.verified };
        if *tls {
            let secured = (&self.tls, &expected);
            let opened = Connection::open_tls(&*self.dial, way, secured, hello, Arc::clone(timeouts)).await;
            if matches!(opened, Err(client::Failure { stage: Stage::Handshake, .. })) {
                self.metrics.tls_failed(domain, true);
            }
            return opened;
        }
        let in_clear = || Connection::open(&*self.dial, way, hello, Arc::clone(timeouts));
        let connection = in_clear().await?;
        let wanted = match terms.tls {
            TlsPolicy::Disabled => false,
            TlsPolicy::Opportunistic => connection.offered().starttls && !self.broken.has(target),
            TlsPolicy::Required => true,
        };
        if !wanted {
            return Ok(connection);
        }
        let failure = match connection.start_tls(&self.tls, &expected, hello).await {
            Ok(connection) => return Ok(connection),
            Err(failure) => failure,
        };
        if !is_broken(&failure) {
            return Err(failure);
        }
        let required = terms.tls == TlsPolicy::Required;
        self.metrics.tls_failed(domain, required);
        if required {
            return Err(failure);
        }
        self.broken.add(target);
        log::in_clear(&shown(host.as_ref(), target), &failure);
        in_clear().await
    }
}

/// Who we are to the hosts. Read each time: it may have changed.
async fn credentials(terms: &Terms) -> Result<Option<Credentials>, Failure> {
    let Some(auth) = terms.credentials.clone() else { return Ok(None) };
    match spawn_blocking(move || auth.credentials()).await {
        Ok(Ok(credentials)) => Ok(Some(credentials)),
        Ok(Err(error)) => Err(Failure::without_secret(&error)),
        Err(_) => Err(Failure::local("the password or token could not be read")),
    }
}

/// Whether the server can't do what it offers. One that has no time for us, or doesn't offer it, is another matter.
fn is_broken(client::Failure { stage, kind }: &client::Failure) -> bool {
    match (stage, kind) {
        (_, FailureKind::Unsupported(_)) | (Stage::EhloAgain | Stage::Lhlo, FailureKind::Refused(_)) => false,
        (_, FailureKind::Refused(reply)) => reply.code.get() != 421,
        _ => true,
    }
}

/// Whether a connection could not even begin, since it can't come from where it should.
fn is_nobodys(failure: &client::Failure) -> bool {
    matches!(&failure.kind, FailureKind::Io(error) if *error == io::ErrorKind::AddrNotAvailable)
}

/// What a host's certificate is for.
fn expected_name(host: &HostAddr) -> String {
    match host {
        HostAddr::Name(name) => name.to_string(),
        HostAddr::Ip(ip) => ip.to_string(),
    }
}

fn shown(host: Option<&HostAddr>, target: &Target) -> String {
    match (host, target) {
        (Some(HostAddr::Name(name)), Target::Tcp(address)) => {
            format!("{name}[{}]:{}", address.ip(), address.port())
        }
        (_, target) => target.to_string(),
    }
}

impl Candidate {
    fn peer(&self, tls: Option<TlsSession>) -> Arc<Peer> {
        let Self { host, target, .. } = self;
        Arc::new(Peer { shown: shown(host.as_ref(), target), host: host.clone(), tls })
    }
}

impl Open {
    /// Connects for mail to `domain`, in haste or with all the time there is.
    pub(crate) async fn connect(
        candidate: &Candidate,
        outbound: &Outbound<'_>,
        domain: &Domain,
        hasty: bool,
    ) -> Result<Self, (Failure, Arc<Peer>)> {
        let target = &candidate.target;
        let peer = |tls| candidate.peer(tls);
        let (terms, shared) = (outbound.terms, outbound.shared);
        let timeouts = if hasty { outbound.hasty } else { outbound.timeouts };
        let manners = (outbound.hostname, timeouts);
        match outbound.network.enter(candidate, terms, domain, manners).await {
            Ok(mut connection) => {
                shared.is_well(target);
                shared.metrics.pool_misses.increment();
                connection.forgo(!terms.pipelining, !terms.chunking);
                let active = Active::new(shared.metrics.active.with(&outbound.next_hop.to_string()));
                let peer = peer(connection.tls().cloned());
                let footing = outbound.network.footing(&connection, terms, candidate.configured);
                let broken = Arc::clone(&outbound.network.broken);
                let since = Instant::now();
                Ok(Self { connection, peer, messages: 0, since, footing, broken, spent: false, active })
            }
            Err(failure) => {
                // A host that doesn't meet our terms is there, and may meet those of other mail: only where the network or
                // the host itself failed it is sick.
                if failure.is_no_answer() {
                    shared.is_ill(target);
                }
                Err((failure, peer(None)))
            }
        }
    }

    /// A host is not waited for any longer.
    pub(crate) fn give_up(candidate: &Candidate, outbound: &Outbound<'_>) -> (Failure, Arc<Peer>) {
        outbound.shared.is_ill(&candidate.target);
        let reply = "it took too long to be ready, and other mail waited for the connection";
        (Failure::new(Scope::Host, (4, 4, 1), reply), candidate.peer(None))
    }

    /// What a failure means here. A host that wants TLS is tried with it again.
    pub(crate) fn failure(&mut self, failure: client::Failure) -> Failure {
        if self.footing.wants_tls(&failure) {
            self.broken.remove(self.connection.peer());
            self.spent = true;
        }
        Failure::at(self.footing, failure)
    }

    /// Whether it may take another message.
    pub(crate) fn may_continue(&self, config: &Config) -> bool {
        let pool = &config.connection_pool;
        !self.spent && self.messages < pool.max_messages && self.since.elapsed() < pool.max_age
    }

    /// Completes when the peer gives the idle connection up.
    pub(crate) async fn closed(&mut self) {
        self.connection.closed().await;
    }

    /// Takes leave. It bounds its time itself.
    pub(crate) async fn quit(self) {
        let Self { connection, active, .. } = self;
        connection.quit().await;
        drop(active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn broken_tls_is_remembered_for_an_hour_and_of_so_many_hosts() {
        let broken = Broken::default();
        let address = |n: u32| Target::Tcp((n.to_be_bytes(), 25).into());
        broken.add(&address(0));
        assert!(broken.has(&address(0)) && !broken.has(&address(1)));
        broken.remove(&address(0));
        assert!(!broken.has(&address(0)));
        broken.add(&address(0));
        tokio::time::advance(CLEAR_FOR).await;
        assert!(!broken.has(&address(0)));
        for n in 1..=10_001 {
            broken.add(&address(n));
        }
        // The one that had expired has made room, and one was too many.
        assert!(broken.has(&address(10_000)) && !broken.has(&address(10_001)));
        assert_eq!(broken.0.lock().unwrap().len(), MAX_CLEAR);
    }
}
