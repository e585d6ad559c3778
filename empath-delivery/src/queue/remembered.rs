use std::{collections::HashMap, sync::Arc};

use empath_common::Domain;

use crate::site::Site;

/// Most domains of each generation.
const MOST: usize = 10_000;

/// Which hosts domains were found to have for which there is no mail at present, so that their next message need not find
/// its lane anew. Bounded: when the young generation is full, the old one goes.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    young: HashMap<Domain, Arc<Site>>,
    old: HashMap<Domain, Arc<Site>>,
}

impl Remembered {
    pub(super) fn put(&mut self, domain: Domain, site: Arc<Site>) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(domain, site);
    }

    pub(super) fn take(&mut self, domain: &Domain) -> Option<Arc<Site>> {
        self.young.remove(domain).or_else(|| self.old.remove(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_so_many_domains_the_oldest_are_forgotten() {
        let mut remembered = Remembered::default();
        let domain = |number: usize| -> Domain { format!("d{number}.test").parse().unwrap() };
        let site = Arc::new(Site::of(Vec::new()));
        for number in 0..=2 * MOST {
            remembered.put(domain(number), Arc::clone(&site));
        }
        assert!(remembered.young.len() + remembered.old.len() <= 2 * MOST);
        assert!(remembered.take(&domain(0)).is_none());
        assert!(remembered.take(&domain(2 * MOST)).is_some());
        assert!(remembered.take(&domain(2 * MOST)).is_none(), "it was taken");
    }
}
