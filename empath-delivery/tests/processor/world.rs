//! A processor with its spool, its clock and its network.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use empath_common::{Clock, Envelope, MessageId};
use empath_delivery::{
    Config, DsnConfig, MessageView, Metrics, Parts, Processor, RecipientView, Reload, Resolver, Settings,
    config::DomainConfig, resolve::lookup::Lookup,
};
use empath_metrics::Registry;
use empath_smtp::client::{BoxStream, Dial, Dialing, Sockets, Target};
use empath_spool::{Content, Entry, RecipientState, Spool};
use empath_testkit::clock::VirtualClock;
use empath_testkit::peer::{Peer, Script};
use empath_testkit::spool::HookedSpool;
use jiff::Timestamp;
use tokio::time::sleep;

use crate::{failing::Failing, names::Names};

pub(crate) const CONTENT: &[u8] = b"Subject: hello\r\n\r\n.dot\r\nbody\r\n";

type TestSpool = HookedSpool<Failing>;

pub(crate) struct World {
    pub(crate) spool: Arc<TestSpool>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) dsn: DsnConfig,
    pub(crate) own_addresses: Vec<SocketAddr>,
    pub(crate) registry: Registry,
    pub(crate) processor: Processor,
    dial: Arc<dyn Dial>,
    resolver: Arc<Resolver>,
    /// Where frozen domains are kept.
    pub(crate) frozen: Option<PathBuf>,
    accepted: u8,
}

/// Hosts that are reached over pipes in memory: no time passes unless everybody waits for it.
#[derive(Default)]
pub(crate) struct Pipes(HashMap<SocketAddr, Arc<Peer>>);

impl Pipes {
    pub(crate) fn to(peers: &[&Arc<Peer>]) -> Self {
        Self(peers.iter().map(|peer| (peer.address(), Arc::clone(peer))).collect())
    }
}

impl Pipes {
    pub(crate) fn at(peers: &[(&str, &Arc<Peer>)]) -> Self {
        Self(peers.iter().map(|(address, peer)| (address.parse().unwrap(), Arc::clone(peer))).collect())
    }
}

impl Dial for Pipes {
    fn dial<'a>(&'a self, target: &'a Target, _: Option<IpAddr>) -> Dialing<'a> {
        let Target::Tcp(address) = target else { panic!("no host at {target}") };
        let connected = self.0.get(address).map(|peer| {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(peer.serve(theirs));
            Box::new(ours) as BoxStream
        });
        Box::pin(std::future::ready(connected.ok_or(io::ErrorKind::ConnectionRefused.into())))
    }
}

impl World {
    /// Without name servers: every domain needs its place in the configuration.
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config, DsnConfig::default(), Vec::new())
    }

    pub(crate) fn with(config: Config, dsn: DsnConfig, own_addresses: Vec<SocketAddr>) -> Self {
        Self::dialling(Arc::new(Sockets), config, dsn, own_addresses)
    }

    /// Without sockets.
    pub(crate) fn over(pipes: Pipes, config: Config) -> Self {
        Self::dialling(Arc::new(pipes), config, DsnConfig::default(), Vec::new())
    }

    fn dialling(
        dial: Arc<dyn Dial>,
        mut config: Config,
        dsn: DsnConfig,
        own_addresses: Vec<SocketAddr>,
    ) -> Self {
        if config.dns.servers.is_empty() {
            config.dns.servers = vec!["127.0.0.1:1".parse().unwrap()];
        }
        let resolver = Resolver::new(&config.dns).unwrap();
        Self::of((dial, resolver), config, dsn, own_addresses)
    }

    /// With names looked up in memory: time stands still unless all wait.
    pub(crate) fn with_names(config: Config, names: &Arc<Names>) -> Self {
        Self::looking_up(config, Arc::clone(names) as _)
    }

    /// The same with any source of answers.
    pub(crate) fn looking_up(config: Config, names: Arc<dyn Lookup>) -> Self {
        let resolver = Resolver::over(names, &config.dns, &Registry::default());
        Self::of((Arc::new(Sockets), resolver), config, DsnConfig::default(), Vec::new())
    }

    /// Both.
    pub(crate) fn over_names(pipes: Pipes, config: Config, names: &Arc<Names>) -> Self {
        let resolver = Resolver::over(Arc::clone(names) as _, &config.dns, &Registry::default());
        Self::of((Arc::new(pipes), resolver), config, DsnConfig::default(), Vec::new())
    }

    fn of(
        (dial, resolver): (Arc<dyn Dial>, Resolver),
        config: Config,
        dsn: DsnConfig,
        own_addresses: Vec<SocketAddr>,
    ) -> Self {
        assert_eq!(config.validate(), []);
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::start());
        let spool = Arc::new(TestSpool::default());
        let registry = Registry::default();
        let resolver = Arc::new(resolver);
        let parts = (&dial, &spool, &resolver);
        let processor = start(&config, &dsn, &own_addresses, parts, &clock, &registry);
        Self {
            spool,
            clock,
            config,
            dsn,
            own_addresses,
            registry,
            processor,
            dial,
            resolver,
            frozen: None,
            accepted: 0,
        }
    }

    /// Ids may be used again: there is no message any more.
    pub(crate) fn forget(&mut self) {
        self.accepted = 0;
    }

    /// A new processor on the same spool, as after a restart.
    pub(crate) async fn restart(&mut self) {
        assert!(self.processor.shutdown(Duration::from_secs(30)).await);
        let Self { config, dsn, own_addresses, spool, dial, resolver, clock, registry, .. } = self;
        let parts = (&*dial, &*spool, &*resolver);
        self.processor = start(config, dsn, own_addresses, parts, clock, registry);
        self.keep_frozen();
        self.processor.recover().await;
    }

    /// Changes the configuration while the processor runs.
    pub(crate) fn reload(&mut self, change: impl FnOnce(&mut Config, &mut DsnConfig)) {
        let before = self.config.dns.clone();
        change(&mut self.config, &mut self.dsn);
        assert_eq!(self.config.validate(), []);
        let mut resolver = self.processor.resolver();
        if self.config.dns != before {
            resolver = Arc::new(resolver.renewed(&self.config.dns, &self.registry).unwrap());
        }
        self.processor.reload(Reload {
            delivery: self.config.clone(),
            dsn: self.dsn.clone(),
            own_names: vec!["local.test".parse().unwrap()],
            resolver,
            tls: self.config.tls().unwrap(),
        });
    }

    pub(crate) fn keep_frozen(&self) {
        if let Some(path) = self.frozen.clone() {
            self.processor.keep_frozen_in(path).unwrap();
        }
    }

    /// Accepts a message as the daemon does: stored first.
    pub(crate) async fn accept(&mut self, sender: &str, recipients: &[&str]) -> MessageId {
        self.accept_asking(sender, recipients, |_| {}).await
    }

    /// The same with other content.
    pub(crate) async fn accept_content(
        &mut self,
        sender: &str,
        recipients: &[&str],
        content: &'static [u8],
    ) -> MessageId {
        self.take_in(sender, recipients, content, |_| {}).await
    }

    /// The same from a sender who asks for something.
    pub(crate) async fn accept_asking(
        &mut self,
        sender: &str,
        recipients: &[&str],
        ask: impl FnOnce(&mut Envelope),
    ) -> MessageId {
        self.take_in(sender, recipients, CONTENT, ask).await
    }

    /// The same with both.
    pub(crate) async fn take_in(
        &mut self,
        sender: &str,
        recipients: &[&str],
        content: &'static [u8],
        ask: impl FnOnce(&mut Envelope),
    ) -> MessageId {
        self.accepted += 1;
        let id = MessageId::from_bytes([self.accepted; 16]);
        let mut paths = recipients.iter().map(|address| format!("<{address}>").parse().unwrap());
        let mut envelope = Envelope::new(format!("<{sender}>").parse().unwrap(), paths.next().unwrap());
        paths.for_each(|path| envelope.add(path, 1000).unwrap());
        envelope.received_at = self.clock.now();
        ask(&mut envelope);
        let (envelope, content) = (Arc::new(envelope), Content::from(Bytes::from_static(content)));
        let entry = Entry::Accepted { id, envelope: Arc::clone(&envelope), content: content.clone() };
        self.spool.commit(entry.into()).await.unwrap();
        self.processor.accepted(id, envelope, &content);
        id
    }

    pub(crate) async fn view(&self, id: MessageId) -> Option<MessageView> {
        self.processor.view(id).await.map(|(view, _)| view)
    }

    /// The first recipient of a message.
    pub(crate) async fn recipient(&self, id: MessageId) -> RecipientView {
        self.recipient_at(id, 0).await
    }

    pub(crate) async fn recipient_at(&self, id: MessageId, index: usize) -> RecipientView {
        self.view(id).await.unwrap().recipients.remove(index)
    }

    pub(crate) async fn stored(&self, id: MessageId) -> Vec<RecipientState> {
        self.spool.load(id).await.unwrap().recipients
    }

    /// Lets time pass until nothing is in flight or waits for a connection.
    pub(crate) async fn rest(&self) {
        until(async || {
            let messages = self.processor.list(&empath_delivery::Filter::default(), None, usize::MAX).await;
            messages.iter().all(|message| message.status == empath_delivery::MessageStatus::Deferred)
        })
        .await;
    }

    /// Lets time pass until every message has ended, in the queue and in the spool.
    pub(crate) async fn done(&self) {
        until(async || self.processor.queue_len() == 0 && self.spool.is_empty()).await;
    }

    /// Lets time pass until this moment.
    pub(crate) async fn at(&self, moment: Timestamp) {
        let left = Duration::try_from(moment.duration_since(self.clock.now())).unwrap_or_default();
        sleep(left).await;
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let page = self.registry.encode();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {sample} in\n{page}"))
    }
}

fn start(
    config: &Config,
    dsn: &DsnConfig,
    own_addresses: &[SocketAddr],
    (dial, spool, resolver): (&Arc<dyn Dial>, &Arc<TestSpool>, &Arc<Resolver>),
    clock: &Arc<dyn Clock>,
    registry: &Registry,
) -> Processor {
    let settings = Settings {
        delivery: config.clone(),
        dsn: dsn.clone(),
        hostname: "mx.home.test".parse().unwrap(),
        own_names: vec!["local.test".parse().unwrap()],
        own_addresses: own_addresses.to_vec(),
        content_memory: 1 << 20,
    };
    let parts = Parts {
        spool: Arc::clone(spool) as _,
        resolver: Arc::clone(resolver),
        dial: Arc::clone(dial),
        tls: config.tls().unwrap(),
        clock: Arc::clone(clock),
        metrics: Metrics::new(registry),
        rng: fastrand::Rng::with_seed(1),
    };
    Processor::start(settings, parts)
}

/// Mail for these domains goes to these peers.
pub(crate) fn routes(domains: &[(&str, &Peer)]) -> Config {
    let mut config = Config::default();
    for (domain, peer) in domains {
        let over = Some(peer.address().to_string().parse().unwrap());
        let domain_config = DomainConfig { mx_override: over, ..DomainConfig::default() };
        config.domains.insert(domain.parse().unwrap(), domain_config);
    }
    config
}

/// A message from Alice to Bob waits for a host that is down.
pub(crate) async fn deferred() -> (Peer, World, MessageId) {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    one.stop().await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    (one, world, id)
}

/// Looks once a virtual second; a month is long enough for everything.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..31 * 86_400 {
        if condition().await {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("it did not happen");
}

pub(crate) fn to(peer: &Peer) -> Vec<String> {
    peer.messages().into_iter().flat_map(|message| message.to).collect()
}
