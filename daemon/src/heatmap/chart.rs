//! A heap as cells of equal size: what lies where, and who holds it. Pure.
//!
//! # Memory
//! Runs come in order of address, so the sites of one cell at a time are held in
//! full; of a finished cell the first few are kept.

use std::collections::HashMap;

use pageshim_wire::heap::SLICE_BYTES;
use pageshim_wire::heap::record::{SITE_BITS, TICK_BITS};

use crate::target::origins::Origins;
use crate::target::pagemap::Resident;
use crate::target::snapshot::{Run, Use};

/// Most cells of a chart.
pub const CELLS: u64 = 4000;
/// Sites kept of a cell.
const SITES: usize = 3;

/// Blocks and slot bytes of a site, where it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Site.
    pub site: u32,
    /// Live blocks with a byte there.
    pub blocks: u64,
    /// Bytes of their slots there.
    pub bytes: u64,
}

/// Neighbouring slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Address.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of runs with a live block.
    pub in_use: u64,
    /// Bytes of runs without one that are kept: they serve a class, or are free and in RAM.
    pub retained: u64,
    /// Bytes of free runs that are not in RAM.
    pub free: u64,
    /// Bytes never used.
    pub untouched: u64,
    /// Bytes in RAM.
    pub resident: u64,
    /// Bytes of slots with a live block.
    pub live: u64,
    /// Runs with a byte here.
    pub runs: u64,
    /// Slots that begin here: room for them, carved, with a live block.
    pub slots: [u64; 3],
    /// Classes by slot bytes (0 for singletons) with their bytes, most first.
    pub classes: Vec<(u32, u64)>,
    /// The sites with most bytes, most first.
    pub sites: Vec<Held>,
    /// How many sites there are.
    pub sites_total: u64,
    /// Who first carved most of its OS pages in RAM, and how many.
    pub opened: Option<(u32, u64)>,
    /// Whether the site asked for has a block here.
    pub wanted: bool,
}

/// Draws one heap.
#[derive(Debug)]
pub struct Chart {
    resident: Resident,
    wanted: Option<u32>,
    /// Bytes of a cell.
    size: u64,
    first: u64,
    cells: Vec<Cell>,
    /// The cell whose sites are being added, and they.
    open: (usize, HashMap<u32, Held>),
    /// The cell whose pages' origins are being added, and they.
    opening: (usize, HashMap<u32, u64>),
    all: HashMap<u32, Held>,
}

/// Bytes of a cell of a heap: slices, doubled until they are few enough.
pub fn cell_bytes(heap: u64) -> u64 {
    let mut size = SLICE_BYTES;
    while heap.div_ceil(size) > CELLS {
        size *= 2;
    }
    size
}

impl Chart {
    /// An empty chart of `first..end`.
    pub fn new(first: u64, end: u64, resident: Resident, wanted: Option<u32>) -> Self {
        let size = cell_bytes(end.saturating_sub(first));
        let mut cells = Vec::new();
        let mut start = first;
        while start < end {
            let bytes = size.min(end - start);
            let resident = resident.bytes(start, start + bytes);
            cells.push(Cell {
                start,
                bytes,
                resident,
                ..Cell::default()
            });
            start += bytes;
        }
        Self {
            resident,
            wanted,
            size,
            first,
            cells,
            open: (0, HashMap::new()),
            opening: (0, HashMap::new()),
            all: HashMap::new(),
        }
    }

    /// The next run, with a record for each carved slot where it has records.
    pub fn add(&mut self, run: &Run, records: &[u64]) {
        let class = match run.used {
            Use::Slots { bytes, .. } => Some(bytes),
            Use::Single { .. } => Some(0),
            Use::Free | Use::Untouched => None,
        };
        let live = match run.used {
            Use::Single { .. } => true,
            Use::Slots { used, .. } if records.is_empty() => used > 0,
            Use::Slots { .. } => records.iter().any(|record| site(*record).is_some()),
            Use::Free | Use::Untouched => false,
        };
        for (index, from, to) in self.pieces(run.start, run.start + run.bytes) {
            let idle = class.is_none() && self.resident.bytes(from, to) == 0;
            let cell = &mut self.cells[index];
            cell.runs += 1;
            let drawer = match (class, run.used) {
                (Some(_), _) if live => &mut cell.in_use,
                (None, Use::Untouched) => &mut cell.untouched,
                (None, _) if idle => &mut cell.free,
                _ => &mut cell.retained,
            };
            *drawer += to - from;
            if let Some(class) = class {
                match cell.classes.iter_mut().find(|known| known.0 == class) {
                    Some(known) => known.1 += to - from,
                    None => cell.classes.push((class, to - from)),
                }
            }
        }
        match run.used {
            Use::Slots { bytes, room, .. } => self.slots(run, u64::from(bytes), room, records),
            Use::Single { usable, record } => {
                self.count(run.start, [1, 1, 1]);
                self.block(run.start, run.start + usable, site(record));
            }
            Use::Free | Use::Untouched => {}
        }
    }

    fn slots(&mut self, run: &Run, slot: u64, room: u32, records: &[u64]) {
        let Use::Slots { carved, used, .. } = run.used else {
            return;
        };
        let counted = records.is_empty();
        for index in 0..u64::from(room) {
            let start = run.start + index * slot;
            let is_carved = index < u64::from(carved);
            let record = usize::try_from(index).ok().and_then(|at| records.get(at));
            let site = record.filter(|_| is_carved).and_then(|word| site(*word));
            // Without records nobody knows which: the first ones stand for all.
            let live = site.is_some() || (counted && index < u64::from(used));
            self.count(start, [1, u64::from(is_carved), u64::from(live)]);
            if live {
                self.block(start, start + slot, site);
            }
        }
    }

    fn count(&mut self, start: u64, more: [u64; 3]) {
        if let Some(index) = self.index(start) {
            let slots = &mut self.cells[index].slots;
            slots.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        }
    }

    /// A live block of a site, when that is known.
    fn block(&mut self, start: u64, end: u64, site: Option<u32>) {
        match self.index(start) {
            // Nearly all blocks, without a list.
            Some(index) if end <= self.end(index) => self.hold(index, end - start, site),
            _ => {
                for (index, from, to) in self.pieces(start, end) {
                    self.hold(index, to - from, site);
                }
            }
        }
    }

    fn hold(&mut self, index: usize, bytes: u64, site: Option<u32>) {
        self.cells[index].live += bytes;
        let Some(site) = site else { return };
        if self.open.0 != index {
            self.close();
            self.open.0 = index;
        }
        for held in [self.open.1.entry(site), self.all.entry(site)] {
            let held = held.or_insert(Held {
                site,
                ..Held::default()
            });
            held.blocks += 1;
            held.bytes += bytes;
        }
    }

    /// Who first carved the pages of the run added last.
    pub fn opened(&mut self, run: &Run, origins: &Origins) {
        origins.each(run, |at, site| {
            let Some(index) = self.index(at).filter(|_| self.resident.holds(at)) else {
                return;
            };
            if self.opening.0 != index {
                self.close_opening();
                self.opening.0 = index;
            }
            *self.opening.1.entry(site).or_default() += 1;
        });
    }

    fn close_opening(&mut self) {
        let pages = std::mem::take(&mut self.opening.1).into_iter();
        let most = pages.max_by_key(|(site, pages)| (*pages, std::cmp::Reverse(*site)));
        if let Some(cell) = self
            .cells
            .get_mut(self.opening.0)
            .filter(|_| most.is_some())
        {
            cell.opened = most;
        }
    }

    fn end(&self, index: usize) -> u64 {
        self.cells[index].start + self.cells[index].bytes
    }

    fn close(&mut self) {
        let sites = std::mem::take(&mut self.open.1);
        let Some(cell) = self.cells.get_mut(self.open.0) else {
            return;
        };
        cell.sites_total = sites.len() as u64;
        cell.wanted = self.wanted.is_some_and(|site| sites.contains_key(&site));
        cell.sites = ranked(sites);
        cell.sites.truncate(SITES);
    }

    fn index(&self, address: u64) -> Option<usize> {
        let index = usize::try_from(address.checked_sub(self.first)? / self.size).ok()?;
        (index < self.cells.len()).then_some(index)
    }

    /// The cells of a range, with the part of each.
    fn pieces(&self, start: u64, end: u64) -> Vec<(usize, u64, u64)> {
        let mut found = Vec::new();
        let mut from = start;
        while let Some(index) = self.index(from).filter(|_| from < end) {
            let to = end.min(self.end(index));
            found.push((index, from, to));
            from = to;
        }
        found
    }

    /// The cells, and all sites, most bytes first.
    pub fn finish(mut self) -> (Vec<Cell>, Vec<Held>) {
        self.close();
        self.close_opening();
        for cell in &mut self.cells {
            cell.classes.sort_by_key(|class| std::cmp::Reverse(class.1));
        }
        (self.cells, ranked(self.all))
    }
}

fn ranked(sites: HashMap<u32, Held>) -> Vec<Held> {
    let mut sites: Vec<Held> = sites.into_values().collect();
    sites.sort_by_key(|held| (std::cmp::Reverse(held.bytes), held.site));
    sites
}

/// The site of a live block's record; a freed one keeps its site without a birth.
fn site(record: u64) -> Option<u32> {
    let birth = record >> SITE_BITS & ((1 << TICK_BITS) - 1);
    (birth != 0).then_some((record & ((1 << SITE_BITS) - 1)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pageshim_wire::heap::SLICE_SHIFT;

    const BASE: u64 = 0x7000_0000_0000;

    fn record(site: u64) -> u64 {
        site | 9 << SITE_BITS
    }

    fn run(slice: u64, slices: u64, used: Use) -> Run {
        Run {
            start: BASE + (slice << SLICE_SHIFT),
            bytes: slices << SLICE_SHIFT,
            class: 0,
            records: 1,
            used,
        }
    }

    fn chart(slices: u64, resident: &[bool]) -> Chart {
        let resident = Resident::of(BASE, 4096, resident);
        Chart::new(BASE, BASE + slices * SLICE_BYTES, resident, Some(7))
    }

    // Goal: each state, slot and site lands in its cell; parts of a cell sum to it. Method: a run
    // of each kind by hand, one slot over a border.
    #[test]
    fn cells_say_what_lies_where() {
        let mut flags = vec![true; 16 * 4];
        flags.extend([false; 16 * 3]);
        let mut chart = chart(7, &flags);
        let slots = |bytes, room, carved, used| Use::Slots {
            bytes,
            room,
            carved,
            used,
        };
        let mut records = vec![0; 20];
        (records[0], records[1], records[19]) = (record(5), record(5), record(7));
        chart.add(&run(0, 1, slots(1024, 64, 20, 3)), &records);
        // Three slots of 40 KiB in two slices: the second lies over the border.
        let large = slots(40_960, 3, 2, 2);
        chart.add(&run(1, 2, large), &[record(8), record(7)]);
        chart.add(&run(3, 1, Use::Free), &[]);
        chart.add(&run(4, 1, Use::Free), &[]);
        chart.add(&run(5, 1, Use::Untouched), &[]);
        chart.add(&run(6, 1, slots(64, 1024, 64, 0)), &[0; 64]);
        let (cells, sites) = chart.finish();
        let first = &cells[0];
        assert_eq!(
            (first.in_use, first.resident, first.live),
            (65536, 65536, 3072)
        );
        assert_eq!((first.slots, first.sites_total), ([64, 20, 3], 2));
        assert_eq!(
            first.sites[0],
            Held {
                site: 5,
                blocks: 2,
                bytes: 2048
            }
        );
        assert_eq!((cells[1].live, cells[2].live), (65536, 16384));
        assert_eq!((cells[1].slots, cells[2].slots), ([2, 2, 2], [1, 0, 0]));
        assert_eq!(cells[2].sites[0].site, 7, "the end of the block counts");
        assert_eq!((cells[3].retained, cells[4].free), (65536, 65536));
        assert_eq!((cells[5].untouched, cells[6].retained), (65536, 65536));
        let wanted: Vec<bool> = cells.iter().map(|cell| cell.wanted).collect();
        assert_eq!(wanted, [true, true, true, false, false, false, false]);
        assert_eq!(sites[0].site, 7);
        for cell in &cells {
            let parts = cell.in_use + cell.retained + cell.free + cell.untouched;
            assert_eq!(parts, cell.bytes, "{cell:?}");
        }
    }

    // Goal: large heaps have few cells that lose nothing. Method: 10,000 slices, singles over many.
    #[test]
    fn large_heaps_have_few_cells() {
        for heap in [0, 1, SLICE_BYTES * CELLS, SLICE_BYTES * CELLS + 1, 1 << 40] {
            assert!(heap.div_ceil(cell_bytes(heap)) <= CELLS);
        }
        let mut chart = chart(10_000, &[]);
        for slice in (0..10_000).step_by(10) {
            let usable = 10 * SLICE_BYTES - 4096;
            let single = Use::Single {
                usable,
                record: record(slice),
            };
            chart.add(&run(slice, 10, single), &[]);
        }
        let (cells, _) = chart.finish();
        assert_eq!(cells.len(), 2500);
        let sum = |of: fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>();
        assert_eq!(sum(|cell| cell.in_use), 10_000 * SLICE_BYTES);
        assert_eq!(sum(|cell| cell.live), 10_000 * SLICE_BYTES - 1000 * 4096);
        assert_eq!(sum(|cell| cell.slots[2]), 1000);
    }

    // Goal: without records the counts are drawn. Method: a run with counts only.
    #[test]
    fn counts_are_drawn_where_there_are_no_records() {
        let mut chart = chart(1, &[true; 16]);
        let used = Use::Slots {
            bytes: 64,
            room: 1024,
            carved: 512,
            used: 100,
        };
        chart.add(&run(0, 1, used), &[]);
        let (cells, sites) = chart.finish();
        assert_eq!((cells[0].slots, cells[0].live), ([1024, 512, 100], 6400));
        assert!(sites.is_empty() && cells[0].in_use == SLICE_BYTES);
    }
}
