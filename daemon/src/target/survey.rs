//! Takes the bill of a running process: reads, splits, forgets.
//!
//! # Memory
//! A bit for each committed OS page, the records of one run at a time, a cost for
//! each site. The list of runs is never held.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pageshim_wire::heap::{SLICE_BYTES, SLICE_SHIFT};

use super::access::{Access, Records, Trouble, committed};
use super::directory::directory;
use super::memory::Peek;
use super::origins::Origins;
use super::pagemap::{Pagemap, Resident};
use super::smaps::{self, Around};
use super::snapshot::{self, Place, Run, Use};
use crate::bill::cost::{Alone, Cost, Parts};
use crate::bill::ledger::Ledger;

/// Longest time for one bill: a heap larger than that gets none.
const LIMIT: Duration = Duration::from_secs(30);
/// Much has moved when it is more than this part.
const MOVED: u64 = 50;
/// A survey that took no longer may be repeated.
const QUICK: Duration = Duration::from_millis(500);
/// smaps and page table agree when they differ by less than this part.
const AGREE: u64 = 200;
/// How often they are read at most until they agree.
const LOOKS: usize = 5;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Parts of the slices.
    pub parts: Parts,
    /// Bills by site.
    pub costs: HashMap<u32, Cost>,
    /// OS pages in RAM by who carved them first.
    pub opened: HashMap<u32, Alone>,
    /// What smaps says.
    pub around: Around,
    /// Runs that changed while they were read, and structs that made no sense.
    pub moved_runs: u64,
    /// Committed bytes in reserves that the header does not name.
    pub unseen: u64,
    /// How long it took.
    pub took: Duration,
}

/// Takes the bill of process `pid` whose books lie at `place`; a second time when
/// much moved during the first and that was quick.
pub fn take(pid: u32, place: &Place, page_bytes: u64) -> Result<Survey, Trouble> {
    let first = once(pid, place, page_bytes)?;
    let restless = first.parts.moved * MOVED > first.parts.sum();
    if !restless || first.took > QUICK {
        return Ok(first);
    }
    match once(pid, place, page_bytes) {
        Ok(second) if second.parts.moved < first.parts.moved => Ok(second),
        _ => Ok(first),
    }
}

fn once(pid: u32, place: &Place, page_bytes: u64) -> Result<Survey, Trouble> {
    let started = Instant::now();
    let access = Access::open(pid, place, page_bytes)?;
    let reserve = place.structs..place.base + place.reserved;
    let stacks = smaps::stack_pointers(pid);
    let look = || -> std::io::Result<(Around, Resident)> {
        let text = std::fs::read(directory(pid).join("smaps"))?;
        let mappings = smaps::parse(&String::from_utf8_lossy(&text));
        let around = smaps::sort(&mappings, &reserve, place.base, &stacks);
        let committed = place.committed.min(place.reserved);
        let resident = resident(&access.pages, place.base, committed, around.slices)?;
        Ok((around, resident))
    };
    let (around, resident) = nearest(look)?;
    let mut reader = Reader::new(
        &access.memory,
        place,
        Ledger::new(resident, around.huge > 0),
    );
    reader.read(started + LIMIT)?;
    let opened = reader.ledger.take_opened();
    let (parts, costs) = reader.ledger.finish();
    Ok(Survey {
        opened,
        parts,
        costs,
        around,
        moved_runs: reader.moved,
        unseen: (place.committed >> SLICE_SHIFT << SLICE_SHIFT).saturating_sub(reader.seen),
        took: started.elapsed(),
    })
}

/// The look at which both readings agree, else the one of a few where they are nearest: a heap may
/// grow between the two.
fn nearest<E>(look: impl Fn() -> Result<(Around, Resident), E>) -> Result<(Around, Resident), E> {
    let apart = |(around, resident): &(Around, Resident)| resident.sum().abs_diff(around.slices);
    let mut best = look()?;
    for _ in 1..LOOKS {
        if apart(&best) <= best.0.slices / AGREE {
            break;
        }
        let next = look()?;
        if apart(&next) < apart(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// The pages in RAM, `smaps` bytes of them as smaps says. Where the page table has
/// more, some are pages of zeros: these are left out when that comes nearer.
fn resident(pages: &Pagemap, base: u64, bytes: u64, smaps: u64) -> std::io::Result<Resident> {
    let present = pages.resident(base, bytes)?;
    if present.sum() <= smaps {
        return Ok(present);
    }
    let own = pages.own(base, bytes)?;
    let nearer = own.sum().abs_diff(smaps) < present.sum().abs_diff(smaps);
    Ok(if nearer { own } else { present })
}

/// Reads runs with their records into a ledger.
struct Reader<'a, M> {
    memory: &'a M,
    place: &'a Place,
    ledger: Ledger,
    records: Records,
    origins: Origins,
    moved: u64,
    /// Bytes of slices walked over.
    seen: u64,
}

impl<'a, M: Peek> Reader<'a, M> {
    fn new(memory: &'a M, place: &'a Place, ledger: Ledger) -> Self {
        Self {
            memory,
            place,
            ledger,
            records: Records::default(),
            origins: Origins::default(),
            moved: 0,
            seen: 0,
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let (memory, place) = (self.memory, self.place);
        self.ledger.add(&never_used(place.base, SLICE_BYTES), &[]);
        let mut late = false;
        let walked = snapshot::walk(memory, place, |run, sound| {
            late = Instant::now() > deadline;
            let bytes = if sound {
                self.run(run)
            } else {
                self.moved(&run)
            };
            (!late).then_some(bytes)
        });
        if late {
            return Err(Trouble::TooLong);
        }
        let end = place.base + committed(place);
        if walked < end {
            self.moved(&never_used(walked, end - walked));
        }
        self.seen = walked - place.base;
        Ok(())
    }

    /// A run that changed while it was read is read once more, as what it is then;
    /// after that its bytes are told apart. Answers the bytes dealt with.
    fn run(&mut self, run: Run) -> u64 {
        let mut wanted = run;
        for _ in 0..2 {
            let read = self.records.read(self.memory, self.place, &wanted);
            match snapshot::again(self.memory, self.place, &wanted) {
                Some(now) if read && now.is_like(&wanted) => {
                    self.ledger.add(&wanted, self.records.words());
                    // After the struct was read again: an origin is a hint, not a part of a sum.
                    self.origins.read(self.memory, self.place, &wanted);
                    self.ledger.opened(&wanted, &self.origins);
                    return wanted.bytes;
                }
                Some(now) => wanted = now,
                None => break,
            }
        }
        self.moved(&run)
    }

    fn moved(&mut self, run: &Run) -> u64 {
        self.moved += u64::from(self.ledger.moved(run) > 0);
        run.bytes
    }
}

fn never_used(start: u64, bytes: u64) -> Run {
    Run {
        start,
        bytes,
        class: 0,
        records: 0,
        used: Use::Untouched,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use pageshim_wire::heap::record::SITE_BITS;
    use pageshim_wire::heap::{Kind, page};

    use super::*;

    const PLACE: Place = Place {
        base: 0x10_0000,
        reserved: 1 << 30,
        committed: 4 * SLICE_BYTES,
        structs: 0x1000,
        records: 0x2000,
        single: 44,
    };

    /// Structs and records; the capacity of slice 1 changes under the first readers of records.
    struct Restless {
        bytes: RefCell<Vec<u8>>,
        changes: Cell<u32>,
    }

    impl Restless {
        fn new(changes: u32) -> Self {
            let this = Self {
                bytes: RefCell::new(vec![0; 0x3000]),
                changes: Cell::new(changes),
            };
            let start = PLACE.base + SLICE_BYTES;
            this.set(page::KIND, &[Kind::Head as u8]);
            this.set(page::SLICES, &1u32.to_le_bytes());
            this.set(page::START, &start.to_le_bytes());
            this.set(page::SLOT_BYTES, &4096u32.to_le_bytes());
            this.set(page::SLOTS, &16u32.to_le_bytes());
            this.set(page::CAPACITY, &2u32.to_le_bytes());
            this.set(page::RECORDS, &PLACE.records.to_le_bytes());
            let records = (PLACE.records - PLACE.structs) as usize;
            let record = 7u64 | 1 << SITE_BITS;
            this.bytes.borrow_mut()[records..records + 8].copy_from_slice(&record.to_le_bytes());
            this
        }

        fn set(&self, at: usize, value: &[u8]) {
            let at = page::BYTES + at;
            self.bytes.borrow_mut()[at..at + value.len()].copy_from_slice(value);
        }
    }

    impl Peek for Restless {
        fn peek(&self, address: u64, into: &mut [u8]) -> bool {
            if address == PLACE.records && self.changes.get() > 0 {
                self.changes.set(self.changes.get() - 1);
                let capacity = 3 + self.changes.get() % 2;
                self.set(page::CAPACITY, &capacity.to_le_bytes());
            }
            let from = (address - PLACE.structs) as usize;
            let bytes = self.bytes.borrow();
            let found = bytes.get(from..from + into.len());
            found.map(|found| into.copy_from_slice(found)).is_some()
        }
    }

    fn read(memory: &Restless) -> (Parts, HashMap<u32, Cost>, u64) {
        let resident = Resident::of(PLACE.base, 4096, &[true; 64]);
        let mut reader = Reader::new(memory, &PLACE, Ledger::new(resident, false));
        let soon = Instant::now() + LIMIT;
        reader.read(soon).expect("in time");
        let (parts, costs) = reader.ledger.finish();
        (parts, costs, reader.moved)
    }

    // Goal: a run that changed once is read again, one that goes on changing is told apart; the
    // sum stays whole. Method: a struct that changes under its readers, never, once, always.
    #[test]
    fn a_restless_run_is_read_again_once() {
        for (changes, moved) in [(0, 0), (1, 0), (100, 1)] {
            let (parts, costs, runs) = read(&Restless::new(changes));
            assert_eq!(
                (runs, parts.moved),
                (moved, moved * SLICE_BYTES),
                "{changes}"
            );
            assert_eq!(parts.sum(), 4 * SLICE_BYTES);
            assert_eq!(parts.requested, (1 - moved) * 4096);
            assert_eq!(costs.len() as u64, 1 - moved);
        }
    }

    // Goal: of a growing heap the look counts at which both readings are nearest. Method: readings that
    // come nearer, that agree at last, that never do.
    #[test]
    fn readings_are_repeated_until_they_agree() {
        let nearest_of = |distances: [u64; LOOKS]| {
            let turn = Cell::new(0);
            let look = || {
                let slices = 4096 * 1000 + 4096 * distances[turn.get()];
                turn.set(turn.get() + 1);
                let around = Around {
                    slices,
                    ..Around::default()
                };
                Ok::<_, Trouble>((around, Resident::of(0, 4096, &[true; 1000])))
            };
            let (around, resident) = nearest(look).expect("answers");
            ((around.slices - resident.sum()) / 4096, turn.get())
        };
        assert_eq!(nearest_of([3, 0, 0, 0, 0]), (3, 1));
        assert_eq!(nearest_of([9, 30, 2, 0, 0]), (2, 3));
        assert_eq!(nearest_of([50, 30, 20, 40, 60]), (20, LOOKS));
    }

    // Goal: hostile places are refused, not followed. Method: what a header may say.
    #[test]
    fn hostile_places_are_refused() {
        let own = std::process::id();
        let take = |place: Place| take(own, &place, 4096).expect_err("hostile");
        let none = Place {
            structs: 0,
            ..PLACE
        };
        assert_eq!(take(none), Trouble::NoBooks);
        let wraps = Place {
            reserved: u64::MAX,
            ..PLACE
        };
        assert_eq!(take(wraps), Trouble::Nonsense);
        let behind = Place {
            structs: PLACE.base,
            ..PLACE
        };
        assert_eq!(take(behind), Trouble::Nonsense);
        let vast = Place {
            committed: u64::MAX,
            ..PLACE
        };
        assert_eq!(take(vast), Trouble::Nonsense);
        let wild = Access::open(u32::MAX, &PLACE, 4096);
        assert_eq!(wild.err(), Some(Trouble::Gone));
    }
}
