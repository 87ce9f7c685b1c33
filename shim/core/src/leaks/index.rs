//! From a word to the block it points into, and two bits of state for each block.
//!
//! # Design
//! ```text
//! word -> space (range test) -> slice -> Digest, 32 bytes -> slot by one multiplication -> state
//! ```
//! A digest a slice keeps what is needed of a run in half a line, so that the digests of a
//! 1 GiB heap fit a level-2 cache, and later slices of a run need no step of their own.
//! States lie densely, by slots handed out: 4 MiB for 16.7 million blocks.
//!
//! # Invariants
//! X1. A slot whose state is not [`NONE`] held a live block with a record when the
//!     index was made.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use super::table::{Plain, Table};
use crate::heap::gpa::classes::{SLICE_SHIFT, divide};
use crate::heap::gpa::{Space, Spaces, Survey};
use crate::records::Record;

/// No block, or one that is accounted for.
pub(super) const NONE: u8 = 0;
/// A live block nobody has been seen to point to.
pub(super) const LIVE: u8 = 1;
/// While tracing: only a pointer into it was seen. Among the lost: one of them points to it.
pub(super) const POSSIBLE: u8 = 2;
/// A start pointer was seen. Among the lost: accounted for.
pub(super) const REACHED: u8 = 3;

/// Blocks of the run differ in how many words they have.
const MIXED: u16 = u16::MAX;
/// Slot bytes are kept in this unit.
const UNIT: usize = 16;
const SPACES_MAX: usize = 16;

/// See the module's text. All zeros: no run here.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Digest {
    magic: u64,
    records: usize,
    head: u32,
    /// First byte of its states.
    mark: u32,
    slots: u16,
    units: u16,
    words: u16,
}
// SAFETY: plain numbers.
unsafe impl Plain for Digest {}
const _: () = assert!(size_of::<Digest>() == 32);

#[derive(Clone, Copy, Debug)]
struct Region<'a> {
    base: usize,
    limit: usize,
    first: usize,
    space: &'a Space,
}

/// A place in a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'a> {
    pub(super) digest: &'a Digest,
    region: &'a Region<'a>,
    pub(super) slot: usize,
    /// Bytes from the block's start.
    pub(super) offset: usize,
}

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Where it begins.
    pub address: usize,
    /// Bytes asked for.
    pub requested: usize,
    /// Site of the allocation.
    pub site: u32,
    /// Tick of the allocation.
    pub birth: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Index<'a> {
    regions: [Option<Region<'a>>; SPACES_MAX],
    digests: Table<Digest>,
    marks: Table<u8>,
    /// Bytes of the slices with runs.
    pub(super) heap_bytes: usize,
}

impl<'a> Index<'a> {
    /// An index of all runs, with no block in it yet. `None` without memory for it.
    pub(super) fn new(spaces: &'a Spaces) -> Option<Self> {
        let mut regions = [None; SPACES_MAX];
        let mut slices = 0;
        for (place, space) in regions.iter_mut().zip(spaces.iter()) {
            let count = space.slices_now() as usize;
            *place = Some(Region {
                base: space.range().0,
                limit: count << SLICE_SHIFT,
                first: slices,
                space,
            });
            slices += count;
        }
        let mut index = Self {
            regions,
            digests: Table::huge(slices)?,
            marks: Table::new(0)?,
            heap_bytes: slices << SLICE_SHIFT,
        };
        let mut bytes = 0;
        index.each_run(|_, run| bytes += run.slots.div_ceil(4));
        u32::try_from(bytes).ok()?;
        index.marks = Table::huge(bytes)?;
        Some(index)
    }

    /// Slots there are states for.
    pub(super) const fn slots(&self) -> usize {
        self.marks.room() * 4
    }

    /// Mappings of ours, for the roots to leave out.
    pub(super) const fn ranges(&self) -> [(usize, usize); 2] {
        [self.digests.range(), self.marks.range()]
    }

    fn regions(&self) -> impl Iterator<Item = &Region<'a>> {
        self.regions.iter().flatten()
    }

    /// Calls `each` with the number of its first digest and every run with a sound struct.
    fn each_run(&self, mut each: impl FnMut(usize, &Survey)) {
        for region in self.regions() {
            let mut slice = 1;
            while (slice as usize) << SLICE_SHIFT < region.limit {
                match region.space.survey(slice) {
                    Some(run) => {
                        each(region.first + slice as usize, &run);
                        slice += run.slices;
                    }
                    None => slice += 1,
                }
            }
        }
    }

    /// Calls `each` with the extent of every run without records.
    pub(super) fn each_bare(&self, mut each: impl FnMut(usize, usize)) {
        self.each_run(|_, run| {
            if run.records().is_none() {
                each(run.start, run.start + run.slots * run.usable);
            }
        });
    }

    /// Fills the index: `block` is asked about each live block's record and address, and
    /// what it answers is the block's state; `bare` gets the blocks in use in each run
    /// without records.
    pub(super) fn fill(
        &mut self,
        mut block: impl FnMut(&Record, usize) -> u8,
        mut bare: impl FnMut(usize),
    ) {
        let (digests, marks) = (self.digests.first(), self.marks.first());
        let (digest_count, room) = (self.digests.room(), self.marks.room());
        let mut mark = 0;
        self.each_run(|first, run| {
            let states = run.slots.div_ceil(4);
            // A heap that moves while it is read may have grown since it was measured.
            if mark + states > room || first + run.slices as usize > digest_count {
                return;
            }
            let Some(records) = run.records() else {
                bare(run.used);
                return;
            };
            let words = fill_run(run, marks.wrapping_add(mark), &mut block);
            let digest = Digest {
                magic: run.magic,
                records: records.addr(),
                head: run.slice,
                mark: u32::try_from(mark).unwrap_or(0),
                slots: u16::try_from(run.slots).unwrap_or(0),
                units: u16::try_from(run.slot_bytes / UNIT).unwrap_or(0),
                words,
            };
            for slice in 0..run.slices as usize {
                // SAFETY: below the table's length, see above.
                unsafe { digests.add(first + slice).write(digest) };
            }
            mark += states;
        });
    }

    /// The slot a word points into; `None` for all other words.
    #[inline(always)]
    pub(super) fn find(&self, word: usize) -> Option<Hit<'_>> {
        let mut region = self.regions[0].as_ref()?;
        let mut offset = word.wrapping_sub(region.base);
        if offset >= region.limit {
            self.regions[1]?;
            region = self.elsewhere(word)?;
            offset = word - region.base;
        }
        // SAFETY: there is a digest for each slice below the limit.
        let digest = unsafe {
            &*self
                .digests
                .first()
                .add(region.first + (offset >> SLICE_SHIFT))
        };
        let within = offset.wrapping_sub((digest.head as usize) << SLICE_SHIFT);
        let slot = divide(within, digest.magic);
        (slot < usize::from(digest.slots)).then(|| Hit {
            digest,
            region,
            slot,
            offset: within - slot * (usize::from(digest.units) * UNIT),
        })
    }

    #[cold]
    fn elsewhere(&self, word: usize) -> Option<&Region<'a>> {
        let within = |region: &&Region<'a>| word.wrapping_sub(region.base) < region.limit;
        self.regions().find(within)
    }

    /// The state of a slot.
    #[inline(always)]
    pub(super) fn state(&self, hit: &Hit<'_>) -> u8 {
        let at = hit.digest.mark as usize + hit.slot / 4;
        // SAFETY: fill() gave each run with slots so many bytes of states.
        let byte = unsafe { *self.marks.first().add(at) };
        byte >> (hit.slot % 4 * 2) & 3
    }

    /// Sets it.
    #[inline(always)]
    pub(super) fn set_state(&self, hit: &Hit<'_>, state: u8) {
        let at = hit.digest.mark as usize + hit.slot / 4;
        // SAFETY: as above; nobody else writes here.
        unsafe { put(self.marks.first().add(at), hit.slot, state) };
    }

    /// Words of a block, and where its record lies when that has to be read for it.
    #[inline(always)]
    pub(super) fn words(&self, hit: &Hit<'_>) -> usize {
        if hit.digest.words == MIXED {
            return self.live(hit).requested / size_of::<usize>();
        }
        usize::from(hit.digest.words)
    }

    /// What to fetch ahead before [`Index::words`].
    #[inline(always)]
    pub(super) fn record_place(&self, hit: &Hit<'_>) -> Option<usize> {
        (hit.digest.words == MIXED).then(|| hit.digest.records + hit.slot * 8)
    }

    /// What the record says of a block.
    pub(super) fn live(&self, hit: &Hit<'_>) -> Live {
        let at = hit.digest.records + hit.slot * size_of::<u64>();
        // SAFETY: survey() found the records, one for each slot.
        let word = unsafe { &*core::ptr::with_exposed_provenance::<AtomicU64>(at) };
        let record = Record::unpack(word.load(Ordering::Relaxed)).unwrap_or(Record {
            site: 0,
            birth: 1,
            slack: 0,
        });
        let usable = match usize::from(hit.digest.units) * UNIT {
            0 => hit
                .region
                .space
                .survey(hit.digest.head)
                .map_or(0, |run| run.usable),
            bytes => bytes,
        };
        Live {
            address: self.address(hit),
            requested: usable.saturating_sub(record.slack),
            site: record.site,
            birth: record.birth,
        }
    }

    /// Where the block of a place begins.
    #[inline(always)]
    pub(super) fn address(&self, hit: &Hit<'_>) -> usize {
        let run = hit.region.base + ((hit.digest.head as usize) << SLICE_SHIFT);
        run + hit.slot * (usize::from(hit.digest.units) * UNIT)
    }

    /// Calls `each` for the slots of one of the `wanted` states (a bit for each) from address
    /// `from` on, in order; what it answers is the next state. Ends early when `each` says so.
    pub(super) fn sweep(
        &self,
        wanted: u8,
        (from, to): (usize, usize),
        back: bool,
        mut each: impl FnMut(&Hit<'_>, u8) -> Option<u8>,
    ) -> Option<()> {
        let count = self.regions().count();
        for number in 0..count {
            let number = if back { count - 1 - number } else { number };
            let region = self.regions[number].as_ref()?;
            let slices = region.limit >> SLICE_SHIFT;
            for step in 1..slices {
                let slice = if back { slices - step } else { step };
                let start = region.base + (slice << SLICE_SHIFT);
                // SAFETY: there is a digest for each slice below the limit.
                let digest = unsafe { &*self.digests.first().add(region.first + slice) };
                if digest.slots == 0 || digest.head as usize != slice {
                    continue;
                }
                let units = usize::from(digest.units) * UNIT;
                let end = start + usize::from(digest.slots) * units.max(1);
                if end <= from || start > to {
                    continue;
                }
                self.sweep_run(region, digest, wanted, back, &mut each)?;
            }
        }
        Some(())
    }

    fn sweep_run(
        &self,
        region: &Region<'_>,
        digest: &Digest,
        wanted: u8,
        back: bool,
        each: &mut impl FnMut(&Hit<'_>, u8) -> Option<u8>,
    ) -> Option<()> {
        let slots = usize::from(digest.slots);
        for step in 0..slots {
            let hit = Hit {
                digest,
                region,
                slot: if back { slots - 1 - step } else { step },
                offset: 0,
            };
            let state = self.state(&hit);
            if wanted >> state & 1 != 0 {
                let next = each(&hit, state)?;
                if next != state {
                    self.set_state(&hit, next);
                }
            }
        }
        Some(())
    }
}

/// # Safety
/// `at` is a byte of states that nobody else writes.
#[inline(always)]
unsafe fn put(at: *mut u8, slot: usize, state: u8) {
    let shift = slot % 4 * 2;
    // SAFETY: the caller's duty.
    unsafe { at.write(at.read() & !(3 << shift) | state << shift) };
}

/// Writes the states of a run; answers how many words each block has, or [`MIXED`].
fn fill_run(run: &Survey, marks: *mut u8, block: &mut impl FnMut(&Record, usize) -> u8) -> u16 {
    let mut words = None;
    for slot in 0..run.slots {
        let Some(record) = Record::unpack(run.record(slot)) else {
            continue;
        };
        let requested = run.usable.saturating_sub(record.slack);
        let its = u16::try_from(requested / size_of::<usize>()).unwrap_or(MIXED);
        words = match words {
            None => Some(its),
            Some(same) if same == its => words,
            Some(_) => Some(MIXED),
        };
        let state = block(&record, run.start + slot * run.slot_bytes);
        // SAFETY: the caller has so many bytes for the run.
        unsafe { put(marks.add(slot / 4), slot, state) };
    }
    if run.slot_bytes == 0 {
        return MIXED;
    }
    words.unwrap_or(0)
}
