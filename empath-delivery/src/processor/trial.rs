//! A processor for unit tests: with sockets, the clock of this machine and no name servers.

use std::sync::Arc;

use empath_common::SystemClock;
use empath_metrics::Registry;
use empath_smtp::client::Sockets;
use empath_spool::Spool;

use super::{Parts, Processor, Settings};
use crate::{Config, DsnConfig, Metrics, Resolver};

/// That of the host `home.test`.
pub(super) fn processor(spool: Arc<dyn Spool>, mut delivery: Config) -> Processor {
    delivery.dns.servers = vec!["127.0.0.1:1".parse().unwrap()];
    let parts = Parts {
        spool,
        resolver: Arc::new(Resolver::new(&delivery.dns).unwrap()),
        dial: Arc::new(Sockets),
        tls: delivery.tls().unwrap(),
        clock: Arc::new(SystemClock),
        metrics: Metrics::new(&Registry::default()),
        rng: fastrand::Rng::with_seed(1),
    };
    let settings = Settings {
        delivery,
        dsn: DsnConfig::default(),
        hostname: "home.test".parse().unwrap(),
        own_names: Vec::new(),
        own_addresses: Vec::new(),
        content_memory: 0,
    };
    Processor::start(settings, parts)
}
