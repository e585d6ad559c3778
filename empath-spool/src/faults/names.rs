//! The names of files and directories, and which of them a power failure leaves.

use std::{collections::BTreeMap, mem};

use fastrand::Rng;

use super::chance::Chance;

/// The number of a file or directory.
pub(super) type Inode = usize;

/// A name in a directory.
pub(super) type Name = (Inode, String);

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// What a reader finds.
    seen: BTreeMap<Name, Inode>,
    /// What survives for certain.
    kept: BTreeMap<Name, Inode>,
    /// What else may survive, oldest first.
    changes: Vec<Change>,
}

/// Names that change together: both of a rename.
type Change = Vec<(Name, Option<Inode>)>;

impl Names {
    pub(super) fn find(&self, name: &Name) -> Option<Inode> {
        self.seen.get(name).copied()
    }

    /// The names in a directory, sorted.
    pub(super) fn list(&self, directory: Inode) -> impl Iterator<Item = (&str, Inode)> {
        let entries = self.seen.range((directory, String::new())..(directory + 1, String::new()));
        entries.map(|((_, name), inode)| (name.as_str(), *inode))
    }

    /// Changes what names stand for; all of them or none survive.
    pub(super) fn change(&mut self, change: Change) {
        apply(&mut self.seen, change.clone());
        self.changes.push(change);
    }

    /// Makes durable what changed in a directory, and what it rests on.
    pub(super) fn sync(&mut self, directory: Inode) {
        let mut synced: Vec<Change> = Vec::new();
        for change in mem::take(&mut self.changes).into_iter().rev() {
            let inside = change.iter().any(|((parent, _), _)| *parent == directory);
            if inside || synced.iter().any(|synced| rests_on(synced, &change)) {
                synced.push(change);
            } else {
                self.changes.push(change);
            }
        }
        self.changes.reverse();
        synced.into_iter().rev().for_each(|change| apply(&mut self.kept, change));
    }

    /// What a power failure leaves: of the changes since the last sync any that do not rest on a lost one.
    pub(super) fn lose(&self, rng: &mut Rng) -> Self {
        let mut kept = self.kept.clone();
        let mut lost: Vec<&Change> = Vec::new();
        let mut chance = Chance::new(rng, self.changes.len());
        for change in &self.changes {
            if lost.iter().any(|lost| rests_on(change, lost)) || !chance.strikes(rng) {
                lost.push(change);
            } else {
                apply(&mut kept, change.clone());
            }
        }
        Self { seen: kept.clone(), kept, changes: Vec::new() }
    }
}

/// Whether a change is about a name that an earlier one was about.
fn rests_on(later: &Change, earlier: &Change) -> bool {
    later.iter().any(|(name, _)| earlier.iter().any(|(other, _)| name == other))
}

fn apply(names: &mut BTreeMap<Name, Inode>, change: Change) {
    for (name, inode) in change {
        match inode {
            Some(inode) => names.insert(name, inode),
            None => names.remove(&name),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name(directory: Inode, name: &str) -> Name {
        (directory, name.to_owned())
    }

    fn rename(from: Name, to: Name, inode: Inode) -> Change {
        vec![(to, Some(inode)), (from, None)]
    }

    /// What power failures leave.
    fn left(names: &Names) -> BTreeSet<String> {
        let one = |seed| {
            let lost = names.lose(&mut Rng::with_seed(seed));
            let show = |((directory, name), inode): (&Name, &Inode)| format!("{directory}/{name}={inode} ");
            lost.seen.iter().map(show).collect::<String>().trim_end().to_owned()
        };
        (0..500).map(one).collect()
    }

    fn set(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn names_of_an_unsynced_directory_survive_or_not() {
        let mut names = Names::default();
        names.change(vec![(name(1, "a"), Some(7))]);
        names.change(vec![(name(1, "b"), Some(8))]);
        names.change(vec![(name(2, "c"), Some(9))]);
        assert_eq!(left(&names).len(), 8, "any subset");
        names.sync(1);
        assert_eq!(left(&names), set(&["1/a=7 1/b=8", "1/a=7 1/b=8 2/c=9"]));
        names.change(vec![(name(1, "a"), None)]);
        names.sync(2);
        assert_eq!(left(&names), set(&["1/a=7 1/b=8 2/c=9", "1/b=8 2/c=9"]));
    }

    #[test]
    fn a_renamed_file_has_one_name_and_replaces_another_at_once() {
        let mut names = Names::default();
        names.change(vec![(name(1, "a"), Some(7))]);
        names.change(vec![(name(1, "b"), Some(8))]);
        names.sync(1);
        names.change(rename(name(1, "a"), name(1, "b"), 7));
        assert_eq!(left(&names), set(&["1/a=7 1/b=8", "1/b=7"]));
        names.change(rename(name(1, "b"), name(2, "c"), 7));
        assert_eq!(left(&names), set(&["1/a=7 1/b=8", "1/b=7", "2/c=7"]));
    }

    #[test]
    fn a_sync_takes_along_what_it_rests_on() {
        let mut names = Names::default();
        names.change(vec![(name(1, "a"), Some(7))]);
        names.change(rename(name(1, "a"), name(2, "b"), 7));
        names.change(vec![(name(2, "b"), None)]);
        names.sync(2);
        assert_eq!(left(&names), set(&[""]));
    }
}
