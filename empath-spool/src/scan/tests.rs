use std::io::{self, IoSlice};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{fields, files::File, record::Record};

/// A file that can be read.
struct Octets(Vec<u8>);

impl File for Octets {
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let some = rest.len().min(octets.len());
        octets[..some].copy_from_slice(&rest[..some]);
        Ok(some)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

const EPOCH: u64 = 0x0102_0304_0506_0708;

/// A batch of so many records, as on disk, behind all other writes.
fn batch(records: u32) -> Vec<u8> {
    batch_of(u32::MAX, records)
}

/// A batch of the write that began at `start`.
fn batch_of(start: u32, records: u32) -> Vec<u8> {
    let record = |place| {
        let mut record = Record::new(Kind::Removed, place, Bytes::from_static(b"body"), |out| {
            fields::put(out, encoding::ID, &[7; 16]);
        })
        .last(place + 1 == records);
        record.seal(EPOCH, start, None);
        [&record.head[..], &record.body[..]].concat()
    };
    (0..records).flat_map(record).collect()
}

/// What was found, in short: records of a batch, or the range of what is none.
fn scan(octets: &[u8], complete: bool) -> Vec<String> {
    let file = Octets(octets.to_vec());
    let mut window = Window::new(&file, octets.len() as u64);
    let mut found = Vec::new();
    for stretch in super::scan(&mut window, EPOCH, complete) {
        match stretch {
            Found::Record(record) if record.header.last => {
                found.push((record.header.place + 1).to_string());
            }
            Found::Record(_) => {}
            Found::Senseless { damaged, .. } => found.push(format!("senseless {:?}", damaged.range)),
            Found::Damage(damaged) => found.push(format!("damage {:?}", damaged.range)),
            Found::Unfinished(tail) => found.push(format!("unfinished {:?}", tail.range)),
        }
    }
    found
}

#[test]
fn a_batch_with_one_bad_record_is_damage_as_a_whole() {
    let length = batch(1).len();
    for bad in 0..3 {
        let mut octets = [batch(1), batch(3), batch(2)].concat();
        octets[length * (bad + 1) + 20] ^= 1;
        let expected = ["1".to_owned(), format!("damage {length}..{}", length * 4), "2".to_owned()];
        assert_eq!(scan(&octets, false), expected, "bad record {bad}");
    }
}

#[test]
fn empty_space_is_nothing_unless_the_segment_was_full_to_there() {
    let octets = [batch(1), vec![0; 10_000]].concat();
    let length = batch(1).len();
    assert_eq!(scan(&octets, false), ["1"]);
    assert_eq!(scan(&octets, true), ["1".to_owned(), format!("damage {length}..{}", octets.len())]);
}

#[test]
fn zeros_between_batches_are_damage() {
    let octets = [batch(1), vec![0; 10_000], batch(1)].concat();
    let length = batch(1).len();
    assert_eq!(
        scan(&octets, false),
        ["1".to_owned(), format!("damage {length}..{}", length + 10_000), "1".to_owned()]
    );
}

#[test]
fn batches_behind_a_gap_in_the_last_write_are_not_taken() {
    let length = batch(1).len();
    let second = u32::try_from(2 * length).unwrap();
    // Two writes of two and three batches.
    let whole =
        [batch_of(0, 1), batch_of(0, 1), batch_of(second, 1), batch_of(second, 1), batch_of(second, 1)];
    let broken = |at: usize| {
        let mut octets = whole.concat();
        octets[at * length..][..length].fill(0);
        octets
    };
    let (range, all) = (|what, from, to| format!("{what} {}..{}", from * length, to * length), 5);
    // The first write was synced before the second began: its gap is damage.
    assert_eq!(scan(&broken(0), false)[1..], ["1"; 4]);
    assert_eq!(scan(&broken(1), false)[1..], [range("damage", 1, 2), "1".into(), "1".into(), "1".into()]);
    assert_eq!(scan(&broken(2), false)[2..], [range("unfinished", 2, all)]);
    assert_eq!(scan(&broken(3), false)[3..], [range("unfinished", 3, all)]);
    // A later segment says that all of them were finished.
    assert_eq!(scan(&broken(3), true)[3..], [range("damage", 3, 4), "1".into()]);
}

#[test]
fn a_batch_of_more_records_than_are_held_in_memory_is_found_whole() {
    let count = u32::try_from(MAX_RECORDS).unwrap() + 10;
    let octets = [batch(count), batch(1)].concat();
    assert_eq!(scan(&octets, true), [count.to_string(), "1".to_owned()]);
    assert_eq!(scan(&octets, false), [count.to_string(), "1".to_owned()]);
}

#[test]
fn a_damaged_batch_names_some_of_its_messages_and_counts_the_others() {
    let mut octets = batch(3000);
    let end = octets.len();
    octets[end - 1] ^= 1;
    octets.extend(batch(1));
    let file = Octets(octets);
    let mut window = Window::new(&file, file.0.len() as u64);
    let found: Vec<_> = super::scan(&mut window, EPOCH, true).collect();
    let [Found::Damage(damaged), Found::Record(_)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((damaged.range.end, damaged.ids.len(), damaged.more_ids), (end as u64, MAX_IDS, 2000));
}

#[test]
fn a_batch_that_makes_no_sense_is_one_stretch_and_no_gap_in_the_last_write() {
    let mut senseless = Record::new(Kind::Removed, 0, Bytes::new(), |_| {}).last(true);
    senseless.seal(EPOCH, 0, None);
    let (first, length) = (batch_of(0, 1), senseless.head.len());
    let octets = [first.clone(), senseless.head.clone(), first.clone()].concat();
    let expected =
        ["1".to_owned(), format!("senseless {}..{}", first.len(), first.len() + length), "1".to_owned()];
    assert_eq!(scan(&octets, false), expected);
}

#[test]
fn records_of_another_epoch_are_leftovers() {
    let mut old = batch(1);
    old[8] ^= 1;
    assert_eq!(scan(&[batch(2), old].concat(), false), ["2"]);
}

proptest! {
    #[test]
    fn no_octets_make_the_scan_panic_or_spin(octets: Vec<u8>, cut in 0_usize..500, complete: bool) {
        let records = batch(4);
        let octets = [records.clone(), octets, records[cut.min(records.len())..].to_vec()].concat();
        let found = scan(&octets, complete);
        prop_assert_eq!(&found[0], "4");
        prop_assert!(found.len() <= 4);
    }
}
