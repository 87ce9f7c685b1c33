//! The split, against a reckoning byte by byte, and by hand.

use std::collections::HashMap;

use pageshim_wire::heap::SLICE_BYTES;
use pageshim_wire::heap::record::{SITE_BITS, TICK_BITS};

use super::cost::{Cost, Parts};
use super::ledger::Ledger;
use super::pinners::{largest, pinners};
use crate::target::pagemap::Resident;
use crate::target::snapshot::{Run, Use};

const PAGE: u64 = 4096;
const BASE: u64 = 0x7000_0000_0000;

fn record(site: u32, birth: u64, slack: u64) -> u64 {
    u64::from(site) | birth << SITE_BITS | slack << (SITE_BITS + TICK_BITS)
}

fn run(slice: u64, slices: u64, used: Use) -> Run {
    Run {
        start: BASE + slice * SLICE_BYTES,
        bytes: slices * SLICE_BYTES,
        class: 0,
        records: 1,
        used,
    }
}

fn slots(bytes: u32, carved: u32, used: u32) -> Use {
    Use::Slots {
        bytes,
        room: 65536 / bytes,
        carved,
        used,
    }
}

/// Everything resident.
fn whole(slices: u64) -> Resident {
    Resident::of(BASE, PAGE, &vec![true; (slices * 16) as usize])
}

fn split(resident: Resident, runs: &[(Run, Vec<u64>)]) -> (Parts, HashMap<u32, Cost>) {
    let mut ledger = Ledger::new(resident, false);
    for (run, records) in runs {
        ledger.add(run, records);
    }
    ledger.finish()
}

// Goal: each part is what the design says. Method: one run by hand: 1,024-byte slots, three
// live blocks of two sites, forty carved.
#[test]
fn a_run_is_split() {
    let mut records = vec![0; 40];
    records[0] = record(5, 10, 24);
    // The site of a block that was freed stays in its record.
    records[1] = record(9, 0, 0);
    records[4] = record(5, 7, 24);
    records[5] = record(6, 20, 1000);
    let runs = [(run(0, 1, slots(1024, 40, 3)), records)];
    let (parts, costs) = split(whole(1), &runs);
    assert_eq!((parts.requested, parts.rounding), (2024, 1048));
    assert_eq!((parts.tails, parts.retained), (24 * 1024, 0));
    assert_eq!(parts.free_slots, 37 * 1024);
    assert_eq!(parts.sum(), SLICE_BYTES);
    let five = costs[&5];
    assert_eq!((five.blocks, five.live, five.oldest), (2, 2000, 7));
    assert_eq!((five.pages.count, five.idle), (1, 3 * 1024));
    assert_eq!(five.pinning, (1, 10), "the other block shares its page");
    assert_eq!(five.slices.count, 0);
    // Page 0 is its own, half of page 1, two thirds of the 32 slots in pages without a block.
    let loose = 32 * 1024;
    assert_eq!(five.free_slots, 3072 + 1024 + loose * 2 / 3);
    let six = costs[&6].free_slots;
    assert_eq!(five.free_slots + six, parts.free_slots);
    assert!(!costs.contains_key(&9));
}

// Goal: runs without live blocks are retained, singles are billed to the end of what is asked,
// blocks without a record to nobody. Method: one of each.
#[test]
fn other_runs_are_split() {
    let single = Use::Single {
        usable: 81_920,
        record: record(3, 1, 1000),
    };
    let runs = [
        (run(0, 1, slots(4096, 8, 0)), vec![record(4, 0, 0); 8]),
        (run(1, 2, single), vec![]),
        (run(3, 1, Use::Free), vec![]),
        (run(4, 1, Use::Untouched), vec![]),
        (run(5, 1, slots(64, 1024, 512)), vec![]),
    ];
    let (parts, costs) = split(whole(6), &runs);
    assert_eq!(parts.retained, 8 * 4096 + SLICE_BYTES);
    assert_eq!(parts.requested, 80_920 + SLICE_BYTES / 2);
    assert_eq!((parts.rounding, parts.unrecorded), (1000, SLICE_BYTES));
    assert_eq!(parts.tails, 8 * 4096 + (131_072 - 81_920) + SLICE_BYTES);
    assert_eq!(parts.sum(), 6 * SLICE_BYTES);
    assert_eq!(costs[&3].slices.bytes, 2 * SLICE_BYTES);
    assert_eq!((costs[&0].blocks, costs.len()), (512, 2));
}

// Goal: pages not in RAM cost nothing, their blocks still count. Method: one page of sixteen.
#[test]
fn absent_pages_cost_nothing() {
    let mut flags = [false; 16];
    flags[1] = true;
    let resident = Resident::of(BASE, PAGE, &flags);
    // A block over pages 0 to 3, a small part of it in RAM.
    let records = vec![record(2, 1, 0), 0, 0, 0];
    let (parts, costs) = split(resident, &[(run(0, 1, slots(16384, 4, 1)), records)]);
    assert_eq!((parts.sum(), parts.requested), (4096, 4096));
    let cost = costs[&2];
    assert_eq!((cost.blocks, cost.live, cost.requested), (1, 16384, 4096));
    assert_eq!((cost.pages.count, cost.idle, cost.pinning), (1, 0, (1, 1)));
    assert_eq!((cost.slices.count, cost.slices.bytes), (1, 4096));
    assert_eq!((cost.ranges.count, cost.ranges.bytes), (1, 4096));
}

// Goal: what only a huge page made resident is told apart. Method: a whole range, and one with a hole.
#[test]
fn huge_pages_have_their_own_part() {
    let runs = |ledger: &mut Ledger| {
        ledger.add(&run(0, 1, slots(4096, 1, 1)), &[record(2, 1, 0)]);
        ledger.add(&run(1, 31, Use::Untouched), &[]);
    };
    let mut flags = vec![true; 512];
    let mut ledger = Ledger::new(Resident::of(BASE, PAGE, &flags), true);
    runs(&mut ledger);
    let (parts, costs) = ledger.finish();
    assert_eq!((parts.huge, parts.tails), ((2 << 20) - 4096, 0));
    assert_eq!(costs[&2].ranges.bytes, 2 << 20);
    flags[300] = false;
    let mut ledger = Ledger::new(Resident::of(BASE, PAGE, &flags), true);
    runs(&mut ledger);
    let parts = ledger.finish().0;
    assert_eq!((parts.huge, parts.tails), (0, 510 * 4096));
}

// Goal: the ranking of pinners is by what they keep, not by what they use. Method: a large site, a
// small one that keeps pages.
#[test]
fn pinners_keep_much_with_little() {
    let mut sparse = vec![0; 1024];
    sparse
        .iter_mut()
        .step_by(64)
        .for_each(|slot| *slot = record(7, 5, 0));
    let dense = vec![record(8, 5, 0); 1024];
    let runs = [
        (run(0, 1, slots(64, 1024, 16)), sparse),
        (run(1, 1, slots(64, 1024, 1024)), dense),
    ];
    let (_, costs) = split(whole(2), &runs);
    let found = pinners(&costs, 10);
    assert_eq!(found.len(), 1);
    let (site, cost) = found[0];
    assert_eq!((site, cost.pinning.0, cost.pages.count), (7, 16, 16));
    assert_eq!((cost.pages.bytes, cost.idle), (65536, 65536 - 16 * 64));
    assert_eq!(cost.slices.bytes, 65536);
    let first: Vec<u32> = largest(&costs, 1).iter().map(|billed| billed.0).collect();
    assert_eq!(first, [7], "ties go to the lower id");
}

/// Numbers that differ from round to round.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn run(&mut self, slice: u64) -> (Run, Vec<u64>) {
        let record = |random: &mut Self, slot: u64| {
            let birth = if random.below(3) == 0 {
                random.below(90)
            } else {
                0
            };
            record(
                random.below(4) as u32,
                birth,
                random.below(slot.min(60_000)),
            )
        };
        match self.below(6) {
            0 => (run(slice, 1 + self.below(3), Use::Free), vec![]),
            1 => (run(slice, 1 + self.below(3), Use::Untouched), vec![]),
            2 => {
                let slices = 1 + self.below(5);
                let usable = (slices << 16) - 4096 * self.below(16);
                let record = record(self, usable);
                (run(slice, slices, Use::Single { usable, record }), vec![])
            }
            _ => {
                let sizes = [16, 48, 112, 640, 1280, 5120, 20_480, 65_536];
                let bytes = sizes[self.below(8) as usize];
                let slices = if bytes > 8192 { 8 } else { 1 };
                let room = (slices << 16) / bytes;
                let carved = self.below(room + 1) as u32;
                let records = (0..carved).map(|_| record(self, bytes)).collect();
                let bytes = bytes as u32;
                let used = Use::Slots {
                    bytes,
                    room: room as u32,
                    carved,
                    used: 0,
                };
                (run(slice, slices, used), records)
            }
        }
    }
}

// Goal: B1 and B2 hold for any heap. Method: random runs, records and residency; live bytes are
// reckoned again byte by byte.
#[test]
fn parts_sum_to_the_byte() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        let (mut runs, mut slice) = (Vec::new(), 0);
        while slice < 60 {
            let next = random.run(slice);
            slice += next.0.bytes / SLICE_BYTES;
            runs.push(next);
        }
        let density = 1 + random.below(3);
        let flags: Vec<bool> = (0..slice * 16).map(|_| random.below(3) < density).collect();
        let resident = Resident::of(BASE, PAGE, &flags);
        let all = resident.bytes(BASE, BASE + slice * SLICE_BYTES);
        let expected = requested(&resident, &runs);
        let (parts, costs) = split(resident, &runs);
        assert_eq!(parts.sum(), all, "round {round}");
        let sum = |of: fn(&Cost) -> u64| costs.values().map(of).sum::<u64>();
        assert_eq!(sum(|cost| cost.requested), parts.requested);
        assert_eq!(sum(|cost| cost.rounding), parts.rounding);
        assert_eq!(sum(|cost| cost.free_slots), parts.free_slots);
        assert_eq!(parts.requested, expected, "round {round}");
        assert!(sum(|cost| cost.pages.bytes) <= all && sum(|cost| cost.ranges.bytes) <= all);
        assert!(costs.values().all(|cost| cost.slices.bytes <= all));
    }
}

/// Resident requested bytes, one byte after the other.
fn requested(resident: &Resident, runs: &[(Run, Vec<u64>)]) -> u64 {
    let mut sum = 0;
    for (run, records) in runs {
        let (slot, records) = match run.used {
            Use::Slots { bytes, .. } => (u64::from(bytes), records.clone()),
            Use::Single { usable, record } => {
                let birth = record >> SITE_BITS & ((1 << TICK_BITS) - 1);
                let unknown = 1 << SITE_BITS;
                (usable, vec![if birth == 0 { unknown } else { record }])
            }
            Use::Free | Use::Untouched => continue,
        };
        for (index, record) in records.iter().enumerate() {
            let birth = record >> SITE_BITS & ((1 << TICK_BITS) - 1);
            let start = run.start + index as u64 * slot;
            let asked = slot - (record >> (SITE_BITS + TICK_BITS)).min(slot);
            if birth != 0 {
                sum += (start..start + asked)
                    .filter(|at| resident.holds(*at))
                    .count() as u64;
            }
        }
    }
    sum
}
