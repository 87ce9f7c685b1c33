//! Address ranges that do not overlap, each of a site: what the program has mapped.
//!
//! # Design
//! A sorted array in memory it is handed. A range that does not fit is not kept, which
//! the caller is told; the part behind a hole in the middle is dropped then.
//!
//! # Invariants
//! R1. Entries are in order of address, none is empty, no two overlap.

/// One range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    start: usize,
    end: usize,
    site: u32,
}

impl Entry {
    /// No range.
    pub const EMPTY: Self = Self {
        start: 0,
        end: 0,
        site: 0,
    };
}

/// What a change took from a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Whose.
    pub site: u32,
    /// Bytes.
    pub bytes: usize,
    /// Ranges; -1 when a hole made two of one.
    pub ranges: i64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Ranges<'a> {
    entries: &'a mut [Entry],
    count: usize,
}

impl<'a> Ranges<'a> {
    /// None, in this memory.
    pub const fn new(entries: &'a mut [Entry]) -> Self {
        Self { entries, count: 0 }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    fn first_past(&self, address: usize) -> usize {
        self.entries[..self.count].partition_point(|entry| entry.end <= address)
    }

    /// Takes `start..end` out, telling `gone` of each part.
    pub fn remove(&mut self, start: usize, end: usize, mut gone: impl FnMut(Gone)) {
        let mut index = self.first_past(start);
        while index < self.count && self.entries[index].start < end {
            let entry = self.entries[index];
            let (low, high) = (entry.start.max(start), entry.end.min(end));
            let (before, behind) = (low > entry.start, high < entry.end);
            let mut told = Gone {
                site: entry.site,
                bytes: high.saturating_sub(low),
                ranges: 0,
            };
            match (before, behind) {
                (false, false) => {
                    self.entries.copy_within(index + 1..self.count, index);
                    self.count -= 1;
                    told.ranges = 1;
                }
                (false, true) => self.entries[index].start = high,
                (true, _) => {
                    self.entries[index].end = low;
                    index += 1;
                    let rest = Entry {
                        start: high,
                        ..entry
                    };
                    if behind && self.put(index, rest) {
                        told.ranges = -1;
                    } else {
                        told.bytes = entry.end - low;
                    }
                }
            }
            gone(told);
        }
    }

    /// Adds a range, which overlaps none; false when there is no room.
    pub fn insert(&mut self, start: usize, end: usize, site: u32) -> bool {
        let index = self.first_past(start);
        start < end && self.put(index, Entry { start, end, site })
    }

    fn put(&mut self, index: usize, entry: Entry) -> bool {
        if self.count == self.entries.len() {
            return false;
        }
        self.entries.copy_within(index..self.count, index + 1);
        self.entries[index] = entry;
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    // Goal: sites hold what a plain array says, whatever is added and cut, and nothing is said
    // twice. Method: random ranges over 256 places, sums by site after each step.
    #[test]
    fn sums_are_those_of_a_plain_array() {
        let mut entries = vec![Entry::EMPTY; 300];
        let mut ranges = Ranges::new(&mut entries);
        let mut plain = [0u32; 256];
        let mut held = [(0usize, 0i64); 5];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = |shift: u32| usize::try_from(seed >> shift & 0xff).expect("a byte");
            let (start, length) = (at(0), 1 + at(8) / 8);
            let end = (start + length).min(256);
            let site = u32::try_from(at(16) % 5).expect("small");
            ranges.remove(start, end, |gone| {
                let held = &mut held[gone.site as usize];
                held.0 -= gone.bytes;
                held.1 -= gone.ranges;
            });
            plain[start..end].fill(0);
            if site > 0 {
                assert!(ranges.insert(start, end, site));
                plain[start..end].fill(site);
                held[site as usize].0 += end - start;
                held[site as usize].1 += 1;
            }
            for (site, held) in held.iter().enumerate().skip(1) {
                let bytes = plain.iter().filter(|at| **at as usize == site).count();
                assert_eq!(held.0, bytes, "site {site}");
            }
            let count = held.iter().map(|held| held.1).sum::<i64>();
            assert_eq!(count, i64::try_from(ranges.count).expect("few"), "ranges");
            let kept = &ranges.entries[..ranges.count];
            assert!(kept.iter().all(|entry| entry.start < entry.end), "R1");
            assert!(kept.windows(2).all(|two| two[0].end <= two[1].start), "R1");
        }
    }

    // Goal: without room nothing is kept, and a hole's far end is told as gone. Method: one place.
    #[test]
    fn what_does_not_fit_is_told() {
        let mut entries = [Entry::EMPTY; 1];
        let mut ranges = Ranges::new(&mut entries);
        assert!(ranges.insert(10, 20, 3) && !ranges.insert(30, 40, 4));
        let mut told = vec![];
        ranges.remove(12, 14, |gone| told.push(gone));
        let all_behind = Gone {
            site: 3,
            bytes: 8,
            ranges: 0,
        };
        assert_eq!(told, [all_behind]);
        ranges.remove(0, 50, |gone| told.push(gone));
        assert_eq!((told[1].bytes, told[1].ranges), (2, 1));
    }
}
