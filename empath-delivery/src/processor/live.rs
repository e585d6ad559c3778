//! What a reload of the configuration changes.

use std::{net::SocketAddr, sync::Arc};

use empath_common::Domain;
use empath_smtp::client::{Timeouts, Tls};

use super::{Processor, Settings, Shared};
use crate::{
    Config, DsnConfig, Resolver, hosts::Own, open::Network, order::HASTE, queue::Limits, route::Routes,
};

/// What can change while mail is delivered, as one value: an attempt keeps the one that it began with to its end, and so
/// never sees half of two configurations. What it means for its recipients is decided by the present one.
pub(crate) struct Live {
    pub(crate) delivery: Config,
    pub(crate) dsn: DsnConfig,
    pub(crate) timeouts: Arc<Timeouts>,
    /// For hosts while there are others.
    pub(crate) hasty: Arc<Timeouts>,
    pub(crate) own: Own,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) network: Network,
    /// The domain of the bare `<Postmaster>` in Maildirs.
    pub(crate) postmaster_domain: Domain,
    /// Another one: connections of before are not used again.
    pub(crate) epoch: u64,
}

/// A configuration that takes the place of another while mail is delivered.
pub struct Reload {
    /// [`Settings::delivery`].
    pub delivery: Config,
    /// [`Settings::dsn`].
    pub dsn: DsnConfig,
    /// [`Settings::own_names`].
    pub own_names: Vec<Domain>,
    /// [`Parts::resolver`](super::Parts::resolver): the present one keeps what it remembers.
    pub resolver: Arc<Resolver>,
    /// [`Parts::tls`](super::Parts::tls).
    pub tls: Tls,
}

/// What stays as it was at the start.
pub(super) struct Fixed {
    pub(super) own_addresses: Vec<SocketAddr>,
    pub(super) content_memory: usize,
}

impl Live {
    /// The first one.
    pub(super) fn new(
        settings: &Settings,
        routes: &Routes,
        resolver: Arc<Resolver>,
        network: Network,
    ) -> Self {
        let Settings { delivery, dsn, hostname, own_names, own_addresses, .. } = settings.clone();
        let mut hasty = delivery.smtp_timeouts.clone();
        hasty.connect = hasty.connect.min(HASTE);
        let mut own = Own { names: own_names, addresses: own_addresses };
        own.names.push(hostname);
        Self {
            timeouts: Arc::new(delivery.smtp_timeouts.clone()),
            hasty: Arc::new(hasty),
            own,
            resolver,
            network,
            postmaster_domain: routes.postmaster_domain().clone(),
            delivery,
            dsn,
            epoch: 0,
        }
    }
}

/// Next hops as configured, and the bounds of the queue.
pub(super) fn routes_and_limits(settings: &Settings) -> (Routes, Limits) {
    let Settings { delivery, dsn, hostname, own_names, content_memory, .. } = settings;
    let limits = Limits {
        max_concurrent: delivery.max_concurrent,
        content_memory: *content_memory,
        expire_after: delivery.retry.expire_after,
        delay_after: dsn.delay_after.filter(|_| dsn.enabled),
        rate: delivery.rate_limits.global(),
        breaker: delivery.circuit_breaker,
    };
    (Routes::new(delivery, hostname.clone()).with_local(own_names), limits)
}

impl Processor {
    /// From now on this configuration applies, to mail that is queued already as well: what is ready is routed again, what
    /// waits keeps its due time. Attempts that are being made go on as they began; their connections are not used again if
    /// anything about delivery has changed. Overrides, freezes and holds stay.
    pub fn reload(&self, reload: Reload) {
        let shared = &self.0;
        let Reload { delivery, dsn, own_names, resolver, tls } = reload;
        let settings = Settings {
            delivery,
            dsn,
            hostname: shared.hostname.clone(),
            own_names,
            own_addresses: shared.fixed.own_addresses.clone(),
            content_memory: shared.fixed.content_memory,
        };
        let now = shared.now();
        let (routes, limits) = routes_and_limits(&settings);
        shared.deduplicate(&settings.delivery.deduplication);
        // Whoever is given a job is given the configuration that it was routed by: both are under the lock of the queue.
        shared.update(|queue| {
            let before = shared.live();
            let network = before.network.with(tls);
            let mut live = Live::new(&settings, &routes, resolver, network);
            let is_same = before.delivery == live.delivery
                && before.own.names == live.own.names
                && Arc::ptr_eq(&before.resolver, &live.resolver);
            live.epoch = before.epoch + u64::from(!is_same);
            let changed = !is_same || before.dsn != live.dsn;
            shared.live.send_replace(Arc::new(live));
            if changed && queue.replace(routes, limits, now) {
                shared.senders.notify_one();
            }
        });
    }

    /// What looks next hops up at present.
    pub fn resolver(&self) -> Arc<Resolver> {
        Arc::clone(&self.0.live.borrow().resolver)
    }
}

impl Shared {
    /// The configuration at this moment.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }
}
