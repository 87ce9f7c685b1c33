//! The debug heap: never reuses an address, and checks what a program does with blocks.
//!
//! # Design
//! ```text
//! reserve  | guard 16 | block | guard 8..23 | guard 16 | block | ... next ... committed
//! table    one entry a block, for ever, in order of address: found by bisection
//! regions  one counter for each 16 KiB: blocks there that are not freed
//! ```
//! A fresh block holds 0xaa, a freed one 0xdd. A region whose blocks are all
//! freed waits in a quarantine of 16 MiB; when it leaves, its bytes are checked
//! once more and its memory goes back to the kernel. Its addresses and entries
//! stay, so that a late second free is still told from a wild one.
//!
//! # Failure
//! `take` answers `None` without memory, addresses or entries.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pageshim_wire::process::{class, word};

use super::{Block, Found, signed};
use crate::OS_PAGE_BYTES;
use crate::heap::gpa::classes::{ALIGN, SINGLETON};
use crate::heap::page::Pages;
use crate::records::Record;
use crate::sync::Lock;

mod quarantine;

pub use quarantine::Stale;

const GUARD: u8 = 0xc9;
const FRESH: u8 = 0xaa;
const STALE: u8 = 0xdd;
const BEFORE: usize = 16;
const BEHIND: usize = 8;
const CHUNK: usize = 1 << 20;
const REGION: usize = 16 << 10;
const QUARANTINE: usize = 1024;
const ENTRIES_MAX: usize = 1 << 30;
const TABLE_STEP: usize = 256 << 10;
/// Counter of a region whose memory was given back.
const RETIRED: u32 = u32::MAX;

/// Which functions a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// `malloc` and its like, and `free`.
    Malloc = 0,
    /// `new` and `delete`.
    New = 1,
    /// `new[]` and `delete[]`.
    NewArray = 2,
}

/// What is remembered of a block, live or freed.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// Where it begins.
    pub address: usize,
    /// Site of its allocation.
    pub born: u32,
    /// Site of its free; 0 while it lives.
    pub freed: u32,
    /// Bytes asked for.
    pub requested: usize,
    /// Alignment asked for, at least 16.
    pub align: usize,
    /// Number of its [`Family`].
    pub family: u8,
}

// Flags beside a family's number.
const REPORTED: u32 = 0x10;
const FREED: u32 = 0x20;

#[repr(C)]
#[derive(Debug)]
struct Entry {
    address: AtomicUsize,
    requested: AtomicUsize,
    record: AtomicU64,
    born: AtomicU32,
    freed: AtomicU32,
    family: AtomicU32,
    align: AtomicU32,
}

#[derive(Debug)]
struct Inner {
    next: usize,
    committed: usize,
    table_bytes: usize,
    counter_bytes: usize,
    ring: [u32; QUARANTINE],
    ring_first: usize,
    ring_used: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct Debug {
    pages: Pages,
    base: AtomicUsize,
    span: AtomicUsize,
    table: AtomicUsize,
    counters: AtomicUsize,
    count: AtomicUsize,
    inner: Lock<Inner>,
}

impl Debug {
    /// A heap without a reserve.
    pub const fn new(pages: Pages) -> Self {
        Self {
            pages,
            base: AtomicUsize::new(0),
            span: AtomicUsize::new(0),
            table: AtomicUsize::new(0),
            counters: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            inner: Lock::new(Inner {
                next: 0,
                committed: 0,
                table_bytes: 0,
                counter_bytes: 0,
                ring: [0; QUARANTINE],
                ring_first: 0,
                ring_used: 0,
            }),
        }
    }

    fn entries_max(span: usize) -> usize {
        (span / 64).min(ENTRIES_MAX)
    }

    /// Reserves `span` bytes (whole chunks) of addresses for blocks. Once.
    pub fn reserve(&self, span: usize) -> bool {
        let table = (Self::entries_max(span) * size_of::<Entry>()).next_multiple_of(TABLE_STEP);
        let counters = (span / REGION * 4).next_multiple_of(TABLE_STEP);
        let Some(base) = self.pages.reserve(span + table + counters) else {
            return false;
        };
        self.base.store(base, Ordering::Relaxed);
        self.table.store(base + span, Ordering::Relaxed);
        self.counters.store(base + span + table, Ordering::Relaxed);
        self.span.store(span, Ordering::Release);
        true
    }

    /// First address and bytes of the reserve.
    pub fn range(&self) -> (usize, usize) {
        let span = self.span.load(Ordering::Acquire);
        (self.base.load(Ordering::Relaxed), span)
    }

    fn entry(&self, index: usize) -> &'static Entry {
        let table = self.table.load(Ordering::Relaxed);
        // SAFETY: callers pass numbers below the committed part of the table.
        unsafe { &*ptr::with_exposed_provenance::<Entry>(table).add(index) }
    }

    fn counter(&self, region: usize) -> &'static AtomicU32 {
        let counters = self.counters.load(Ordering::Relaxed);
        // SAFETY: callers pass regions below `committed`, whose counters are committed.
        unsafe { &*ptr::with_exposed_provenance::<AtomicU32>(counters).add(region) }
    }

    /// The regions that the offsets `from..to` touch.
    fn regions(from: usize, to: usize) -> core::ops::Range<usize> {
        from / REGION..to.div_ceil(REGION)
    }

    fn commit(&self, inner: &mut Inner, end: usize, entries: usize) -> Option<()> {
        let accounts = self.pages.accounts();
        let table = self.table.load(Ordering::Relaxed);
        let counters = self.counters.load(Ordering::Relaxed);
        let more = |at: usize, have: &mut usize, need: usize, step: usize| {
            let target = need.next_multiple_of(step);
            if target > *have {
                // SAFETY: within our reserve, as the callers check.
                unsafe { self.pages.commit(at + *have, target - *have) }.then_some(())?;
            }
            Some(target.saturating_sub(core::mem::replace(have, target.max(*have))))
        };
        let (base, span) = self.range();
        if end > span || entries > Self::entries_max(span) {
            return None;
        }
        let entry_bytes = entries * size_of::<Entry>();
        let counter_bytes = end.div_ceil(REGION) * 4;
        let books = more(table, &mut inner.table_bytes, entry_bytes, TABLE_STEP)?
            + more(
                counters,
                &mut inner.counter_bytes,
                counter_bytes,
                TABLE_STEP,
            )?;
        accounts.add(word::METADATA, signed(books));
        let fresh = more(base, &mut inner.committed, end, CHUNK)?;
        if fresh > 0 {
            accounts.add_committed(signed(fresh));
            accounts.add_page(SINGLETON, signed(fresh));
        }
        Some(())
    }

    /// Start and end of the place, guards included, of a block.
    fn place(address: usize, requested: usize) -> (usize, usize) {
        let end = (address + requested + BEHIND).next_multiple_of(ALIGN);
        (address - BEFORE, end)
    }

    fn fill(from: usize, to: usize, byte: u8) {
        let at = ptr::with_exposed_provenance_mut::<u8>(from);
        // SAFETY: callers pass committed parts of the reserve that hold no live bytes.
        unsafe { at.write_bytes(byte, to - from) };
    }

    fn holds_only(from: usize, to: usize, byte: u8) -> bool {
        let at = ptr::with_exposed_provenance::<u8>(from);
        // SAFETY: committed bytes; a program that writes there meanwhile does so wrongly.
        let bytes = unsafe { core::slice::from_raw_parts(at, to.saturating_sub(from)) };
        bytes.iter().all(|each| *each == byte)
    }

    /// A block of `requested` bytes at a multiple of `align`, for `family`.
    pub fn take(
        &self,
        requested: usize,
        align: usize,
        family: Family,
        stale: &mut Stale,
    ) -> Option<Block> {
        let align = align.max(ALIGN);
        let mut inner = self.inner.lock();
        let index = self.count.load(Ordering::Relaxed);
        let base = self.base.load(Ordering::Relaxed);
        let from = base + inner.next;
        let address = from.checked_add(BEFORE)?.checked_next_multiple_of(align)?;
        let end = address
            .checked_add(requested)?
            .checked_add(BEHIND + ALIGN)?
            - base;
        self.commit(&mut inner, end, index + 1)?;
        let (start, end) = Self::place(address, requested);
        let entry = self.entry(index);
        entry.address.store(address, Ordering::Relaxed);
        entry.requested.store(requested, Ordering::Relaxed);
        entry.family.store(family as u32, Ordering::Relaxed);
        entry.align.store(align.trailing_zeros(), Ordering::Relaxed);
        for region in Self::regions(start - base, end - base) {
            self.counter(region).fetch_add(1, Ordering::Relaxed);
        }
        let passed = inner.next / REGION..(end - base) / REGION;
        inner.next = end - base;
        for region in passed {
            if self.counter(region).load(Ordering::Relaxed) == 0 {
                self.quarantine(&mut inner, region, stale);
            }
        }
        // Release pairs with the Acquire in find(): whoever sees the entry sees it whole.
        self.count.store(index + 1, Ordering::Release);
        drop(inner);
        Self::fill(start, address, GUARD);
        Self::fill(address, address + requested, FRESH);
        Self::fill(address + requested, end, GUARD);
        let accounts = self.pages.accounts();
        accounts.add_class(SINGLETON, class::CAPACITY, signed(end - start));
        Some(Self::block(entry))
    }

    fn block(entry: &'static Entry) -> Block {
        let requested = entry.requested.load(Ordering::Relaxed);
        Block {
            address: entry.address.load(Ordering::Relaxed),
            usable: requested,
            requested,
            record: &entry.record,
            zeroed: false,
        }
    }

    /// How many entries begin at or below `address`.
    fn rank(&self, address: usize) -> usize {
        let (mut low, mut high) = (0, self.count.load(Ordering::Acquire));
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(middle).address.load(Ordering::Relaxed) <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn lookup(&self, address: usize) -> Option<&'static Entry> {
        let entry = self.entry(self.rank(address).checked_sub(1)?);
        (entry.address.load(Ordering::Relaxed) == address).then_some(entry)
    }

    /// What is at an address of the reserve.
    pub fn find(&self, address: usize) -> Found {
        match self.lookup(address) {
            Some(entry) => Found::of(Self::block(entry)),
            None => Found::Nothing,
        }
    }

    /// What is remembered of the block at `address`.
    pub fn past(&self, address: usize) -> Option<Past> {
        self.lookup(address).map(Self::past_of)
    }

    fn past_of(entry: &Entry) -> Past {
        let record = Record::unpack(entry.record.load(Ordering::Relaxed));
        let kept = entry.born.load(Ordering::Relaxed);
        Past {
            address: entry.address.load(Ordering::Relaxed),
            born: record.map_or(kept, |record| record.site),
            freed: entry.freed.load(Ordering::Relaxed),
            requested: entry.requested.load(Ordering::Relaxed),
            align: 1 << entry.align.load(Ordering::Relaxed),
            family: u8::try_from(entry.family.load(Ordering::Relaxed) & 0xf).unwrap_or(0),
        }
    }

    /// Says that a block belongs to another family than it was taken for.
    pub fn set_family(&self, address: usize, family: Family) {
        if let Some(entry) = self.lookup(address) {
            entry.family.store(family as u32, Ordering::Relaxed);
        }
    }

    /// False when bytes around the block were written.
    pub fn is_intact(&self, address: usize) -> bool {
        let Some(entry) = self.lookup(address) else {
            return true;
        };
        let behind = address + entry.requested.load(Ordering::Relaxed);
        let (start, end) = Self::place(address, behind - address);
        Self::holds_only(start, address, GUARD) && Self::holds_only(behind, end, GUARD)
    }

    /// Takes a block back whose record was cleared; `born` and `freed` are its
    /// sites. Blocks found written after their free go to `stale`.
    pub fn give(&self, address: usize, born: u32, freed: u32, stale: &mut Stale) {
        let Some(entry) = self.lookup(address) else {
            return;
        };
        entry.born.store(born, Ordering::Relaxed);
        entry.freed.store(freed, Ordering::Relaxed);
        let requested = entry.requested.load(Ordering::Relaxed);
        Self::fill(address, address + requested, STALE);
        entry.family.fetch_or(FREED, Ordering::Relaxed);
        let base = self.base.load(Ordering::Relaxed);
        let (start, end) = Self::place(address, requested);
        let accounts = self.pages.accounts();
        accounts.add_class(SINGLETON, class::CAPACITY, -signed(end - start));
        let mut inner = self.inner.lock();
        for region in Self::regions(start - base, end - base) {
            let left = self.counter(region).fetch_sub(1, Ordering::Relaxed) - 1;
            if left == 0 && (region + 1) * REGION <= inner.next {
                self.quarantine(&mut inner, region, stale);
            }
        }
    }

    /// Visits all live blocks.
    pub fn each_live(&self, mut visit: impl FnMut(&Block)) {
        for index in 0..self.count.load(Ordering::Acquire) {
            let block = Self::block(self.entry(index));
            if block.record.load(Ordering::Relaxed) != 0 {
                visit(&block);
            }
        }
    }

    /// Gives all addresses back.
    ///
    /// # Safety
    /// Neither a block nor the heap is used any more.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(&self) {
        let (base, span) = self.range();
        let counters = (span / REGION * 4).next_multiple_of(TABLE_STEP);
        let end = self.counters.load(Ordering::Relaxed) + counters;
        // SAFETY: the caller's duty.
        unsafe { self.pages.release(base, end - base) };
    }

    /// Takes the lock for the time of a fork.
    pub fn hold(&self) {
        self.inner.hold();
    }

    /// Opens it again.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty.
        unsafe { self.inner.release() };
    }
}

const _: () = assert!(REGION.is_multiple_of(OS_PAGE_BYTES));
