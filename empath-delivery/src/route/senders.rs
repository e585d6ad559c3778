//! Whose mail goes its own way.

use std::{collections::HashMap, sync::Arc};

use empath_common::{Domain, Mailbox, ReversePath};

use super::{Limit, NextHop, Route, Terms};
use crate::{
    config::{Config, SenderPattern, TlsPolicy},
    source::Pool,
};

/// Which of the `sender_routes` a reverse-path has: all that routing needs to know about it, in four octets. None is the
/// default.
///
/// A number means the same pattern as long as the process runs, whatever the configuration, so that one from before a
/// change is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SenderClass(u32);

/// The `sender_routes`, made ready for look-up.
#[derive(Debug, Default)]
pub(super) struct Senders {
    null: Option<SenderClass>,
    mailboxes: HashMap<Mailbox, SenderClass>,
    exact: HashMap<Domain, SenderClass>,
    /// By the name below which it applies.
    below: HashMap<Box<str>, SenderClass>,
    ways: HashMap<SenderClass, Way>,
    patterns: HashMap<SenderPattern, SenderClass>,
    /// The last number that was given away.
    last: SenderClass,
}

/// What the route of a sender says: a way of its own, a source of its own, or both.
#[derive(Debug)]
pub(super) struct Way {
    /// `None`: as other mail.
    next_hop: Option<NextHop>,
    max_connections: usize,
    /// What connections come from, if it is something else.
    pub(super) pool: Option<Pool>,
}

impl Senders {
    pub(super) fn new(config: &Config) -> Self {
        let mut senders = Self::default();
        for (pattern, route) in &config.sender_routes {
            let route = route.as_domain();
            let terms = Arc::new(Terms::of(config, Some(&route)));
            let next_hop = NextHop::of(&route, config.mx_port, &terms);
            let max_connections = route.max_connections.unwrap_or(config.connection_pool.max_per_server);
            let class = senders.next();
            let pool = route.source.as_ref().and_then(|name| config.pool(Some(name))).map(Pool::new);
            senders.ways.insert(class, Way { next_hop, max_connections, pool });
            senders.patterns.insert(pattern.clone(), class);
        }
        senders.index();
        senders
    }

    /// Numbers the patterns as they were numbered before, and those that are new anew.
    pub(super) fn keep_classes_of(&mut self, before: &Self) {
        self.last = before.last;
        let mut ways = std::mem::take(&mut self.ways);
        let mut patterns: Vec<_> = std::mem::take(&mut self.patterns).into_iter().collect();
        patterns.sort_unstable();
        for (pattern, number) in patterns {
            let Some(way) = ways.remove(&number) else { continue };
            let class = before.patterns.get(&pattern).copied().unwrap_or_else(|| self.next());
            self.ways.insert(class, way);
            self.patterns.insert(pattern, class);
        }
        self.index();
    }

    /// Whether a reverse-path has the same class by these and by those `before`, of which they keep the numbers.
    pub(super) fn has_patterns_of(&self, before: &Self) -> bool {
        self.patterns == before.patterns
    }

    /// A number that was never given away: four thousand million patterns would not fit into memory.
    fn next(&mut self) -> SenderClass {
        self.last = SenderClass(self.last.0.saturating_add(1));
        self.last
    }

    fn index(&mut self) {
        self.null = None;
        self.mailboxes.clear();
        self.exact.clear();
        self.below.clear();
        for (pattern, class) in &self.patterns {
            match pattern {
                SenderPattern::Null => self.null = Some(*class),
                SenderPattern::Mailbox(mailbox) => drop(self.mailboxes.insert(mailbox.clone(), *class)),
                SenderPattern::Exact(domain) => drop(self.exact.insert(domain.clone(), *class)),
                SenderPattern::Below(domain) => drop(self.below.insert(domain.as_str().into(), *class)),
            }
        }
    }

    /// The most exact match.
    pub(super) fn class(&self, path: &ReversePath) -> SenderClass {
        let ReversePath::Mailbox(mailbox) = path else {
            return self.null.unwrap_or_default();
        };
        let domain = || {
            let domain = mailbox.domain()?;
            self.exact.get(domain).or_else(|| super::longest(&self.below, domain))
        };
        self.mailboxes.get(&*mailbox.canonical()).or_else(domain).copied().unwrap_or_default()
    }

    pub(super) fn way(&self, class: SenderClass) -> Option<&Way> {
        self.ways.get(&class)
    }

    /// Every class that has a route, and that of those who have none.
    pub(super) fn classes(&self) -> impl Iterator<Item = SenderClass> {
        std::iter::once(SenderClass::default()).chain(self.ways.keys().copied())
    }
}

impl Way {
    /// The route of mail that has this limit, if it has one of its own. `required` are the terms of the recipient's domain if
    /// it requires TLS: then that is required here too.
    pub(super) fn route(&self, required: Option<&Terms>, limit: Option<Limit>) -> Option<Route> {
        let mut next_hop = self.next_hop.clone()?;
        if let (Some(required), Some(terms)) = (required, next_hop.network_terms()) {
            terms.tls = TlsPolicy::Required;
            terms.verified |= required.verified;
        }
        Some(Route { next_hop, max_connections: self.max_connections, limit })
    }
}
