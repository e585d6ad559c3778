//! Reading a file from start to end with little of it in memory.

use std::ops::Range;

use crate::files::File;

/// Octets that are read at a time.
const STRETCH: usize = 256 << 10;
/// Where reading fails, it is tried again in parts of this size.
const BLOCK: usize = 4096;

/// A stretch of a file that moves along.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    /// Where the file ends, as far as it matters.
    end: u64,
    start: u64,
    octets: Vec<u8>,
    /// What the disk refused to read. It reads as zeros.
    unreadable: Vec<Range<u64>>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn File, end: u64) -> Self {
        Self { file, end, start: 0, octets: Vec::new(), unreadable: Vec::new() }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// `length` octets from `at` on; fewer at the end.
    pub(crate) fn get(&mut self, at: u64, length: usize) -> &[u8] {
        let length = length.min(usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX));
        if at < self.start || at + length as u64 > self.start + self.octets.len() as u64 {
            self.fill(at, length.max(STRETCH));
        }
        let from = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.octets.get(from..).and_then(|octets| octets.get(..length)).unwrap_or_default()
    }

    fn fill(&mut self, at: u64, length: usize) {
        let length = length.min(usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX));
        self.start = at;
        self.octets.clear();
        self.octets.resize(length, 0);
        if self.file.read_all_at(&mut self.octets, at).is_ok() {
            return;
        }
        let mut offset = at;
        for block in self.octets.chunks_mut(BLOCK) {
            if self.file.read_all_at(block, offset).is_err() {
                block.fill(0);
                let range = offset..offset + block.len() as u64;
                // What is read twice is noted once.
                let from = self.unreadable.partition_point(|known| known.end < range.start);
                let to = self.unreadable.partition_point(|known| known.start <= range.end);
                let joined = self.unreadable.drain(from..to);
                let joined = joined.fold(range, |a, b| a.start.min(b.start)..a.end.max(b.end));
                self.unreadable.insert(from, joined);
            }
            offset += block.len() as u64;
        }
    }

    /// The CRC-32C of a range.
    pub(crate) fn checksum(&mut self, range: Range<u64>) -> u32 {
        let (mut at, mut crc) = (range.start, 0);
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(STRETCH).min(STRETCH);
            let octets = self.get(at, length);
            if octets.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, octets);
            at += octets.len() as u64;
        }
        crc
    }

    /// Whether there is something that could not be read so far.
    pub(crate) fn is_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// What could not be read, in the order of the file.
    pub(crate) fn unreadable(self) -> Vec<Range<u64>> {
        self.unreadable
    }
}
