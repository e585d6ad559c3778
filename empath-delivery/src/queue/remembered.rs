use std::{collections::HashMap, hash::Hash};

/// Most of each generation.
const MOST: usize = 10_000;

/// What is remembered of those for which there is no mail at present, so that their next message need not find it out anew.
/// Bounded: when the young generation is full, the old one goes.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn take(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use empath_common::Domain;

    use super::*;
    use crate::site::Site;

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
