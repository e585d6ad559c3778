//! Next hops that an operator chooses at run time.

use empath_common::Domain;

use super::Processor;
use crate::{config::Override, route::TooManyOverrides};

impl Processor {
    /// Where mail goes by order of an operator, by domain.
    pub fn overrides(&self) -> Vec<(Domain, Override)> {
        let state = self.0.lock();
        state.queue.routes().overrides().iter().map(|(domain, to)| (domain.clone(), to.clone())).collect()
    }

    /// From now on mail for exactly this domain goes to this host, until the daemon ends. What waits for its next attempt
    /// goes there then, and what is ready at once.
    pub fn set_override(&self, domain: &Domain, to: Override) -> Result<(), TooManyOverrides> {
        let now = self.0.now();
        self.0.update(|queue| queue.reroute(domain, now, |routes| routes.set_override(domain.clone(), to)))
    }

    /// Takes an override back. Returns where mail went; `None` if there was none.
    pub fn remove_override(&self, domain: &Domain) -> Option<Override> {
        let now = self.0.now();
        self.0.update(|queue| queue.reroute(domain, now, |routes| routes.remove_override(domain)))
    }
}
