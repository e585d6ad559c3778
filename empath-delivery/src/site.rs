//! What the MX records of a domain come to: domains with the same one are one destination.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use empath_common::Domain;

use crate::resolve::MxHost;

/// The MX hosts of a domain in their order. Preferences are compared and mean nothing by themselves (RFC 5321 §5.1): two
/// domains have the same site if their mail goes to the same hosts in the same order, whatever the numbers and however the
/// records were shuffled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// Of the hosts, which may be many and are compared for every message.
    fingerprint: u64,
    /// Best first; `preference` is how many better ones there are to choose from.
    hosts: Box<[(u16, Domain)]>,
}

impl Site {
    /// The site of a domain with these hosts, in any order.
    pub fn of(mut hosts: Vec<MxHost>) -> Self {
        hosts.sort_unstable_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
        hosts.dedup();
        let equals = hosts.chunk_by(|a, b| a.preference == b.preference);
        let ranked = (0..).zip(equals).flat_map(|(rank, equals)| equals.iter().map(move |mx| (rank, mx)));
        let hosts: Box<[(u16, Domain)]> = ranked.map(|(rank, mx)| (rank, mx.name.clone())).collect();
        // Maps hash it again with keys of their own, so that nobody can choose where it falls.
        let mut hasher = DefaultHasher::new();
        hosts.hash(&mut hasher);
        Self { fingerprint: hasher.finish(), hosts }
    }

    /// Its hosts, best first; the preferences are ranks.
    pub fn hosts(&self) -> Vec<MxHost> {
        let host = |(rank, name): &(u16, Domain)| MxHost { preference: *rank, name: name.clone() };
        self.hosts.iter().map(host).collect()
    }
}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}

/// As it is shown: the first of its best hosts, and how many others there are: `mx1.example.test+2`.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(((_, first), others)) = self.hosts.split_first() else { return Ok(()) };
        first.fmt(f)?;
        if others.is_empty() { Ok(()) } else { write!(f, "+{}", others.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `10 a 20 b`.
    fn site(text: &str) -> Site {
        let words: Vec<_> = text.split_whitespace().collect();
        let host = |pair: &[&str]| MxHost {
            preference: pair[0].parse().unwrap(),
            name: format!("{}.test", pair[1]).parse().unwrap(),
        };
        Site::of(words.chunks(2).map(host).collect())
    }

    #[test]
    fn the_same_hosts_in_the_same_order_are_one_site_whatever_the_numbers() {
        let one = site("10 a 20 b 20 c");
        for same in ["20 c 10 a 20 b", "0 a 7 c 7 b", "10 a 10 a 20 c 20 b"] {
            assert_eq!(site(same), one, "{same}");
            assert_eq!(site(same).fingerprint, one.fingerprint);
        }
        for other in ["10 a 20 b", "10 a 20 b 30 c", "10 b 20 a 20 c", "10 a 20 b 20 d", "10 a 10 b 10 c"] {
            assert_ne!(site(other), one, "{other}");
        }
    }

    #[test]
    fn it_goes_by_its_first_host() {
        assert_eq!(site("10 a").to_string(), "a.test");
        assert_eq!(site("20 a 10 c 10 b").to_string(), "b.test+2");
        let hosts: Vec<_> = site("20 a 10 c 10 b").hosts().iter().map(|mx| mx.preference).collect();
        assert_eq!(hosts, [0, 0, 1]);
    }
}
