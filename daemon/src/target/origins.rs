//! Who first carved the OS pages of a run.
//!
//! A run of slots has an origin for each (see [`pageshim_wire::heap::origins_at`]); a block with
//! a run of its own was touched by whom it was made for, or those it was handed to: its
//! site stands for them.

use pageshim_wire::heap::record::{SITE_BITS, TICK_BITS};
use pageshim_wire::heap::{ORIGIN_BYTES, ORIGIN_SHIFT, origins_at};

use super::memory::Peek;
use super::snapshot::{Place, Run, Use};

/// The origins of one run at a time.
#[derive(Debug, Default)]
pub struct Origins {
    bytes: Vec<u8>,
    sites: Vec<u32>,
}

impl Origins {
    /// Reads those of a run; none where they are not where they should be.
    pub fn read(&mut self, memory: &impl Peek, place: &Place, run: &Run) {
        self.sites.clear();
        let Use::Slots {
            bytes,
            room,
            carved,
            ..
        } = run.used
        else {
            return;
        };
        if run.records == 0 || carved == 0 {
            return;
        }
        let end = (u64::from(bytes) * u64::from(carved)).min(run.bytes);
        let count = end.div_ceil(1 << ORIGIN_SHIFT);
        let at = run.records.saturating_add(origins_at(u64::from(room)));
        let books = place.structs..place.base;
        self.bytes.resize((count * ORIGIN_BYTES) as usize, 0);
        if books.contains(&at) && memory.peek(at, &mut self.bytes) {
            let all = self.bytes.chunks_exact(ORIGIN_BYTES as usize);
            let site = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
            self.sites.extend(all.map(site));
        }
    }

    /// Calls `each` with address and site of each OS page of the run read last that has one.
    pub fn each(&self, run: &Run, mut each: impl FnMut(u64, u32)) {
        let page = |index: usize| run.start + ((index as u64) << ORIGIN_SHIFT);
        match run.used {
            Use::Slots { .. } => {
                let known = self.sites.iter().enumerate();
                let known = known.filter(|(_, site)| **site != 0);
                known.for_each(|(index, site)| each(page(index), *site));
            }
            Use::Single { usable, record } => {
                let born = record >> SITE_BITS & ((1 << TICK_BITS) - 1) != 0;
                let site = (record & ((1 << SITE_BITS) - 1)) as u32;
                if born && site != 0 {
                    let pages = usable.min(run.bytes).div_ceil(1 << ORIGIN_SHIFT) as usize;
                    (0..pages).for_each(|index| each(page(index), site));
                }
            }
            Use::Free | Use::Untouched => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Books(Vec<u8>);

    impl Peek for Books {
        fn peek(&self, address: u64, into: &mut [u8]) -> bool {
            let Some(from) = address.checked_sub(0x1000) else {
                return false;
            };
            let range = from as usize..from as usize + into.len();
            self.0
                .get(range)
                .map(|bytes| into.copy_from_slice(bytes))
                .is_some()
        }
    }

    // Goal: origins are found behind the records, and only where there are. Method: a run of two
    // pages carved by two sites, one whose records are elsewhere, a singleton.
    #[test]
    fn origins_are_read_behind_the_records() {
        let place = Place {
            structs: 0x1000,
            base: 0x10_0000,
            ..Place::default()
        };
        let mut books = Books(vec![0; 0x4000]);
        let at = origins_at(64) as usize;
        books.0[at..at + 4].copy_from_slice(&7u32.to_le_bytes());
        books.0[at + 4..at + 8].copy_from_slice(&9u32.to_le_bytes());
        let run = Run {
            start: 0x10_0000,
            bytes: 1 << 16,
            class: 0,
            records: 0x1000,
            used: Use::Slots {
                bytes: 1024,
                room: 64,
                carved: 5,
                used: 5,
            },
        };
        let list = |origins: &Origins, run: &Run| {
            let mut found = Vec::new();
            origins.each(run, |at, site| found.push((at, site)));
            found
        };
        let mut origins = Origins::default();
        origins.read(&books, &place, &run);
        assert_eq!(list(&origins, &run), [(0x10_0000, 7), (0x10_1000, 9)]);
        let elsewhere = Run {
            records: 0x900_0000,
            ..run
        };
        origins.read(&books, &place, &elsewhere);
        assert_eq!(list(&origins, &elsewhere), []);
        let record = 1 << SITE_BITS | 5;
        let single = Run {
            used: Use::Single {
                usable: 8192,
                record,
            },
            ..run
        };
        assert_eq!(list(&origins, &single), [(0x10_0000, 5), (0x10_1000, 5)]);
    }
}
