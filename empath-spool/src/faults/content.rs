//! The content of one file, in the page cache and on a disk that may lose power.

use std::io::IoSlice;

use fastrand::Rng;

use super::chance::Chance;

/// What a disk writes as a whole or not at all.
pub(super) const SECTOR: usize = 512;

type Octets = [u8; SECTOR];

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// What a reader finds.
    seen: Vec<u8>,
    /// What survives for certain.
    kept: Vec<u8>,
    /// For each sector of `seen` that is yet to be written to the disk, how many changes of the length came before the
    /// write.
    dirty: Vec<Option<usize>>,
    /// What else was in dirty sectors since they were clean. Each may have reached the disk.
    older: Vec<Version>,
    /// The lengths since the last sync.
    lengths: Vec<Length>,
}

#[derive(Debug, Clone, Copy)]
struct Length {
    octets: usize,
    /// Whether the file was longer before.
    cut: bool,
}

#[derive(Debug, Clone)]
struct Version {
    sector: usize,
    lengths: usize,
    octets: Octets,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Octets of disk space.
    pub(super) fn space(&self) -> usize {
        self.seen.len().next_multiple_of(SECTOR)
    }

    pub(super) fn read(&self, octets: &mut [u8], at: usize) -> usize {
        let rest = self.seen.get(at..).unwrap_or_default();
        let length = rest.len().min(octets.len());
        octets[..length].copy_from_slice(&rest[..length]);
        length
    }

    /// Writes the first `length` octets of the slices.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], mut length: usize, mut at: usize) {
        if length == 0 {
            return;
        }
        self.extend(at + length);
        self.soil(at, at + length);
        for slice in slices {
            let some = length.min(slice.len());
            self.seen[at..at + some].copy_from_slice(&slice[..some]);
            at += some;
            length -= some;
        }
    }

    pub(super) fn extend(&mut self, length: usize) {
        if length > self.seen.len() {
            self.lengths.push(Length { octets: length, cut: false });
            self.seen.resize(length, 0);
            self.dirty.resize(length.div_ceil(SECTOR), None);
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        if length >= self.seen.len() {
            return self.extend(length);
        }
        let sectors = length.div_ceil(SECTOR);
        for sector in sectors..self.dirty.len() {
            self.remember(sector);
        }
        self.lengths.push(Length { octets: length, cut: true });
        if length < sectors * SECTOR {
            // The kernel writes zeros behind the new end.
            self.soil(length, length + 1);
        }
        self.seen.truncate(length);
        self.dirty.truncate(sectors);
    }

    /// Marks sectors that are about to be written.
    fn soil(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            self.remember(sector);
            self.dirty[sector] = Some(self.lengths.len());
        }
    }

    /// Notes what a dirty sector holds before that goes.
    fn remember(&mut self, sector: usize) {
        if let Some(lengths) = self.dirty[sector] {
            self.older.push(Version { sector, lengths, octets: octets(&self.seen, sector) });
        }
    }

    pub(super) fn sync(&mut self) {
        if self.was_cut() {
            // What is behind the cut is new, dirty or not.
            self.kept.clone_from(&self.seen);
        } else {
            self.kept.resize(self.seen.len(), 0);
            for sector in (0..self.dirty.len()).filter(|sector| self.dirty[*sector].is_some()) {
                put(&mut self.kept, sector, &octets(&self.seen, sector));
            }
        }
        self.dirty.fill(None);
        self.older.clear();
        self.lengths.clear();
    }

    /// A sync that fails. Some sectors get to the disk. The others stay dirty, or count as clean so that the next sync
    /// has nothing to do (Linux tells of a lost page only once), and are still read or no longer.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        if self.was_cut() {
            return;
        }
        self.kept.resize(self.seen.len(), 0);
        self.lengths.clear();
        let (stay, drop) = (rng.u8(..3) == 0, rng.bool());
        let mut chance = Chance::new(rng, self.dirty_sectors().count());
        for sector in self.dirty_sectors().collect::<Vec<_>>() {
            if chance.strikes(rng) {
                put(&mut self.kept, sector, &octets(&self.seen, sector));
            } else if stay {
                self.dirty[sector] = Some(0);
                continue;
            } else if drop {
                put(&mut self.seen, sector, &octets(&self.kept, sector));
            }
            self.dirty[sector] = None;
            self.older.retain(|version| version.sector != sector);
        }
        self.older.iter_mut().for_each(|version| version.lengths = 0);
    }

    fn dirty_sectors(&self) -> impl Iterator<Item = usize> {
        self.dirty.iter().enumerate().filter_map(|(sector, dirty)| dirty.map(|_| sector))
    }

    /// Whether the file was cut off since the last sync.
    fn was_cut(&self) -> bool {
        self.lengths.iter().any(|length| length.cut)
    }

    /// What a power failure leaves: one of the lengths since the last sync, and of each dirty sector one of the
    /// contents that it had while the file had this length.
    pub(super) fn lose(&self, rng: &mut Rng) -> Self {
        if self.lengths.is_empty() && self.dirty_sectors().next().is_none() {
            let kept = self.kept.clone();
            return Self { dirty: vec![None; self.dirty.len()], seen: kept.clone(), kept, ..Self::default() };
        }
        let changes = self.lengths.len();
        let survived = [0, changes, rng.usize(..=changes)][rng.usize(..3)];
        let (before, after) = self.lengths.split_at(survived);
        let mut kept = self.kept.clone();
        for length in before {
            kept.resize(length.octets, 0);
        }
        let mut chance = Chance::new(rng, self.dirty_sectors().count() + self.older.len());
        for sector in 0..kept.len().div_ceil(SECTOR) {
            // A cut makes the sector another one: what it held before is in other blocks.
            let cut = |length: &Length| length.cut && length.octets < (sector + 1) * SECTOR;
            let since = before.iter().rposition(cut).map_or(0, |at| at + 1);
            let until = after.iter().position(cut).map_or(usize::MAX, |at| survived + at);
            let older = self.older.iter().filter(|version| version.sector == sector);
            let older = older.map(|version| (version.lengths, version.octets));
            let newest = self.dirty.get(sector).copied().flatten();
            let newest = newest.map(|lengths| (lengths, octets(&self.seen, sector)));
            for (lengths, octets) in older.chain(newest) {
                if (since..=until).contains(&lengths) && chance.strikes(rng) {
                    put(&mut kept, sector, &octets);
                }
            }
        }
        let dirty = vec![None; kept.len().div_ceil(SECTOR)];
        Self { seen: kept.clone(), kept, dirty, ..Self::default() }
    }
}

fn octets(content: &[u8], sector: usize) -> Octets {
    let mut octets = [0; SECTOR];
    let rest = content.get(sector * SECTOR..).unwrap_or_default();
    let length = rest.len().min(SECTOR);
    octets[..length].copy_from_slice(&rest[..length]);
    octets
}

fn put(content: &mut [u8], sector: usize, octets: &Octets) {
    let rest = content.get_mut(sector * SECTOR..).unwrap_or_default();
    let length = rest.len().min(SECTOR);
    rest[..length].copy_from_slice(&octets[..length]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn written(octets: &[u8]) -> Content {
        let mut content = Content::default();
        write(&mut content, octets, 0);
        content.sync();
        content
    }

    fn write(content: &mut Content, octets: &[u8], at: usize) {
        content.write(&[IoSlice::new(octets)], octets.len(), at);
    }

    /// What power failures leave, with each sector as its first octet.
    fn left(content: &Content) -> BTreeSet<String> {
        (0..2000)
            .map(|seed| {
                let lost = content.lose(&mut Rng::with_seed(seed));
                assert_eq!(lost.seen, lost.kept);
                lost.seen.chunks(SECTOR).map(|sector| char::from(sector[0].max(b'.'))).collect()
            })
            .collect()
    }

    fn set(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn what_is_synced_stays_and_each_sector_that_is_not_is_old_or_new() {
        let mut content = written(&[b'a'; 3 * SECTOR]);
        assert_eq!(left(&content), set(&["aaa"]));
        write(&mut content, &[b'b'; SECTOR + 1], 0);
        assert_eq!(left(&content), set(&["aaa", "baa", "aba", "bba"]));
        content.sync();
        assert_eq!(left(&content), set(&["bba"]));
    }

    #[test]
    fn a_sector_written_twice_is_any_of_three() {
        let mut content = written(b"a");
        write(&mut content, b"b", 0);
        write(&mut content, b"c", 0);
        assert_eq!(left(&content), set(&["a", "b", "c"]));
    }

    #[test]
    fn a_file_grows_with_or_without_what_was_written() {
        let mut content = written(&[b'a'; SECTOR]);
        write(&mut content, &[b'b'; SECTOR], SECTOR);
        assert_eq!(left(&content), set(&["a", "a.", "ab"]));
    }

    #[test]
    fn what_was_cut_off_comes_back_only_with_the_old_length() {
        let mut content = written(&[b'a'; 2 * SECTOR]);
        content.truncate(0);
        assert_eq!(left(&content), set(&["", "aa"]));
        write(&mut content, &[b'b'; 2 * SECTOR], 0);
        assert_eq!(left(&content), set(&["", "aa", "..", ".b", "b.", "bb"]));
        content.sync();
        assert_eq!(left(&content), set(&["bb"]));
    }

    #[test]
    fn what_was_written_before_a_cut_does_not_come_back_behind_it() {
        let mut content = written(&[b'a'; 2 * SECTOR]);
        write(&mut content, &[b'b'; SECTOR], SECTOR);
        content.truncate(10);
        content.extend(2 * SECTOR);
        assert_eq!(left(&content), set(&["a", "aa", "ab", "a."]));
        for seed in 0..1000 {
            let lost = content.lose(&mut Rng::with_seed(seed));
            assert!(lost.seen.get(SECTOR) != Some(&0) || lost.seen[10..].iter().all(|octet| *octet == 0));
        }
    }

    #[test]
    fn a_sync_after_a_failed_one_may_promise_what_is_lost() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let mut content = written(b"a");
            write(&mut content, b"b", 0);
            content.fail_sync(&mut Rng::with_seed(seed));
            content.sync();
            outcomes.insert((char::from(content.seen[0]), left(&content)));
        }
        // Lost and forgotten, lost but still read, and not lost after all.
        assert_eq!(outcomes, [('a', set(&["a"])), ('b', set(&["a"])), ('b', set(&["b"]))].into());
    }
}
