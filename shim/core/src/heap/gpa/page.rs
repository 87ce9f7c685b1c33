//! The out-of-line struct of a page run: two cache lines, the first of them hot.
//!
//! # Design
//! `owner` is the address of the heap that owns the page, plus flags in its low
//! bits: one compare with the running thread's heap finds the plain case
//! (owned here, nothing special) and sends everything else to the slow path.
//! `remote` is a stack of blocks freed by other threads, and the [`NOTIFY`] bit,
//! set while the owner holds the page as full and wants to hear of a free.
//!
//! # Invariants
//! P1. Fields in `Cell`s belong to the owner of the page, or to the holder of
//!     the space's lock while the run is free.
//! P2. `used` counts slots that are neither in `free` nor beyond `capacity`;
//!     slots in `remote` or a heap's `delayed` list count as used. A page whose
//!     list a double free tore counts 2^31 more.
//! P5. Each slot in a free list, carved or pushed, bears the free mark.
//! P3. A record has a birth exactly when its slot holds a live block; it is zero in a
//!     slot that no block of this run has held.
//! P4. Page structs are never unmapped.
//! P7. Behind the records of a page of slots lies an origin for each of its OS pages: the
//!     site that carved it first, 0 where nobody did.
//! P6. A page whose owner word has [`RECORDS`] has a record for each slot that fits its run.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::hint::assert_unchecked;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pageshim_wire::heap::{ORIGIN_SHIFT, origins_at, page as outside};

use super::block::Block;
use super::classes::{SINGLETON, divide, divide_exact, divides};

pub use pageshim_wire::heap::Kind;

/// Bytes one origin stands for.
const ORIGIN_STEP: usize = 1 << ORIGIN_SHIFT;

/// The page is off its heap's queue because no slot is free.
pub const FULL: usize = 1;
/// Blocks of the page have records.
pub const RECORDS: usize = 2;
/// Not a page: a later slice of a run, `head` names the first.
pub const INTERIOR: usize = 4;
/// The page is one block.
pub const SINGLE: usize = 8;
/// All flag bits; heaps are aligned to more than this.
pub const FLAGS: usize = 15;
/// Bit in `remote`: whoever frees next tells the owner.
pub(super) const NOTIFY: usize = 1;

/// See the module's text.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Page {
    pub(super) free: Cell<*mut u8>,
    pub(super) owner: AtomicUsize,
    pub(super) used: Cell<u32>,
    pub(super) slot_bytes: Cell<u32>,
    pub(super) start: Cell<usize>,
    pub(super) magic: Cell<u64>,
    pub(super) records: Cell<*mut AtomicU64>,
    pub(super) next: Cell<*const Page>,
    pub(super) aim: Cell<u32>,
    pub(super) class: Cell<u8>,
    pub(super) kind: Cell<Kind>,
    pub(super) dirty: Cell<bool>,
    // Second line.
    pub(super) prev: Cell<*const Page>,
    pub(super) remote: AtomicUsize,
    pub(super) capacity: Cell<u32>,
    pub(super) slots: Cell<u32>,
    pub(super) single_bytes: Cell<usize>,
    pub(super) single_record: AtomicU64,
    pub(super) head: Cell<u32>,
    pub(super) slices: Cell<u32>,
    pub(super) next_run: Cell<u32>,
    pub(super) prev_run: Cell<u32>,
    pub(super) freed_at_ms: Cell<u64>,
}

// SAFETY: P1 says who may touch the cells; everything shared is atomic.
unsafe impl Sync for Page {}
// SAFETY: as above.
unsafe impl Send for Page {}

const _: () = assert!(size_of::<Page>() == 128 && size_of::<usize>() == 8);
/// The daemon reads these fields from outside.
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Page>() == outside::BYTES);
    assert!(offset_of!(Page, used) == outside::USED);
    assert!(offset_of!(Page, slot_bytes) == outside::SLOT_BYTES);
    assert!(offset_of!(Page, start) == outside::START);
    assert!(offset_of!(Page, records) == outside::RECORDS);
    assert!(offset_of!(Page, capacity) == outside::CAPACITY);
    assert!(offset_of!(Page, slots) == outside::SLOTS);
    assert!(offset_of!(Page, single_bytes) == outside::SINGLE_BYTES);
    assert!(offset_of!(Page, single_record) == outside::SINGLE_RECORD);
    assert!(offset_of!(Page, slices) == outside::SLICES);
    assert!(offset_of!(Page, class) == outside::CLASS);
    assert!(offset_of!(Page, kind) == outside::KIND);
};
/// log2 of a page struct's size.
pub(super) const PAGE_STRUCT_SHIFT: u32 = 7;

/// Byte offsets of what the plain paths use.
pub(super) mod layout {
    use core::mem::offset_of;

    use super::Page;

    /// First free slot.
    pub const FREE: usize = offset_of!(Page, free);
    /// Owner and flags.
    pub const OWNER: usize = offset_of!(Page, owner);
    /// Slots in use.
    pub const USED: usize = offset_of!(Page, used);
    /// Multiplier that divides by the slot's bytes.
    pub const MAGIC: usize = offset_of!(Page, magic);
    /// Index in the heap's table of the entry a free aims at the page.
    pub const AIM: usize = offset_of!(Page, aim);
    /// Next page of the queue.
    pub const NEXT: usize = offset_of!(Page, next);
    /// The page before it.
    pub const PREV: usize = offset_of!(Page, prev);
    /// Bytes of the struct.
    pub const PAGE_BYTES: usize = size_of::<Page>();
}

impl Page {
    /// A page without slots: what an empty class points to, so that the fast
    /// path needs no test of its own.
    pub const fn empty() -> Self {
        Self {
            free: Cell::new(ptr::null_mut()),
            owner: AtomicUsize::new(0),
            used: Cell::new(0),
            slot_bytes: Cell::new(0),
            start: Cell::new(0),
            magic: Cell::new(0),
            records: Cell::new(ptr::null_mut()),
            next: Cell::new(ptr::null()),
            aim: Cell::new(0),
            class: Cell::new(0),
            kind: Cell::new(Kind::Untouched),
            dirty: Cell::new(false),
            prev: Cell::new(ptr::null()),
            remote: AtomicUsize::new(0),
            capacity: Cell::new(0),
            slots: Cell::new(0),
            single_bytes: Cell::new(0),
            single_record: AtomicU64::new(0),
            head: Cell::new(0),
            slices: Cell::new(0),
            next_run: Cell::new(0),
            prev_run: Cell::new(0),
            freed_at_ms: Cell::new(0),
        }
    }

    /// What a free block of this page bears in its second word.
    #[inline]
    fn mark(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// True when the block bears this page's mark, as a free one does. A live block could
    /// only by copying it out of a freed one.
    #[inline]
    pub fn marks_free(&self, block: Block) -> bool {
        block.mark() == self.mark()
    }

    /// Marks a block free. The mark shows a double free without records. It is
    /// looked at when the block is next taken, not when it is freed: its line is
    /// needed then anyway, while a free that only writes does not wait for memory.
    #[inline]
    pub(super) fn mark_free(&self, block: Block) {
        block.set_mark(self.mark());
    }

    /// Takes a free slot. `None` when there is none, and when the list is not
    /// sound, see [`Page::is_torn`].
    #[inline]
    pub(super) fn pop(&self) -> Option<Block> {
        let block = Block::at(NonNull::new(self.free.get())?);
        if !self.marks_free(block) {
            return None;
        }
        self.free.set(block.next());
        block.set_mark(0);
        self.used.set(self.used.get() + 1);
        Some(block)
    }

    /// Puts a slot back; the caller looks at `used` and the flags.
    #[inline]
    pub(super) fn push(&self, block: Block) {
        block.set_next(self.free.get());
        self.mark_free(block);
        self.free.set(block.pointer());
        self.used.set(self.used.get() - 1);
    }

    /// True when the first of the free list is no free block: it was freed twice,
    /// and taken since. What was behind it is unknown.
    pub(super) fn is_torn(&self) -> bool {
        NonNull::new(self.free.get()).is_some_and(|first| !self.marks_free(Block::at(first)))
    }

    /// True when each slot is free, as `used == 0` says. A block freed twice
    /// makes it say so while another still lives; records would have shown it.
    pub(super) fn is_surely_empty(&self) -> bool {
        if self.has_records() {
            return true;
        }
        let mut slots = (0..self.carved()).map(|index| self.slot_address(index));
        slots.all(|slot| Block::from_address(slot).is_some_and(|block| self.marks_free(block)))
    }

    /// After a double free: forgets the free list and never looks empty again (P2).
    pub(super) fn mend(&self) {
        self.free.set(ptr::null_mut());
        self.used.set(self.used.get().wrapping_add(1 << 31));
    }

    /// The size class.
    pub fn class(&self) -> usize {
        usize::from(self.class.get())
    }

    /// What the struct describes now.
    pub fn kind(&self) -> Kind {
        self.kind.get()
    }

    /// True for a page that is one block.
    pub fn is_single(&self) -> bool {
        self.class() == SINGLETON
    }

    /// Bytes a block of this page may use.
    pub fn usable(&self) -> usize {
        if self.is_single() {
            self.single_bytes.get()
        } else {
            self.slot_bytes.get() as usize
        }
    }

    /// Zeroes the records of the slots carved so far.
    pub(super) fn forget_records(&self) {
        for index in 0..self.capacity.get() as usize {
            // SAFETY: the records of a page reach as far as its slots.
            unsafe { (*self.records.get().add(index)).store(0, Ordering::Relaxed) };
        }
        let end = self.capacity.get() as usize * self.slot_bytes.get() as usize;
        for index in 0..end.div_ceil(ORIGIN_STEP) {
            self.set_origin(index, 0);
        }
    }

    /// Notes who carved first what lies between `used` bytes and the carved end: `site`.
    /// Answers how many clean OS pages that are.
    pub(super) fn note_origin(&self, used: usize, site: u32) -> u32 {
        let end = self.capacity.get() as usize * self.slot_bytes.get() as usize;
        let (first, end) = (used.div_ceil(ORIGIN_STEP), end.div_ceil(ORIGIN_STEP));
        if self.has_records() && site != 0 {
            (first..end).for_each(|index| self.set_origin(index, site));
        }
        if self.dirty.get() {
            return 0;
        }
        u32::try_from(end.saturating_sub(first)).unwrap_or(0)
    }

    /// Sets the origin of an OS page of a run of slots with records (P7).
    fn set_origin(&self, index: usize, site: u32) {
        let at = origins_at(u64::from(self.slots.get()));
        // SAFETY: P7: the origins of a page reach as far as its slots; a reader outside may
        // see an old one.
        unsafe {
            let first = self.records.get().byte_add(at as usize).cast::<AtomicU32>();
            (*first.add(index)).store(site, Ordering::Relaxed);
        }
    }

    /// True when blocks here have records.
    pub fn has_records(&self) -> bool {
        !self.records.get().is_null()
    }

    /// The slot that begins at `address`, or `None` for an address inside a
    /// slot, past the slots, or never handed out.
    #[inline]
    pub fn slot_at(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.start.get());
        if self.is_single() {
            return (offset == 0).then_some(0);
        }
        let index = divide(offset, self.magic.get());
        let begins = index * self.slot_bytes.get() as usize == offset;
        (begins && index < self.capacity.get() as usize).then_some(index)
    }

    /// Bytes usable in a block of a page of slots, for addresses of its first slice; `None`
    /// for all others, and where no slot begins.
    #[inline(always)]
    pub fn usable_at(&self, block: Block) -> Option<usize> {
        let usual = self.kind.get() == Kind::Head && !self.is_single() && self.begins_at(block);
        usual.then(|| self.slot_bytes.get() as usize)
    }

    /// True when a slot begins at the block's address. For pages of slots only.
    #[inline(always)]
    pub(super) fn begins_at(&self, block: Block) -> bool {
        let offset = block.address().wrapping_sub(self.start.get());
        divides(offset, self.magic.get())
    }

    /// True when the page is the only one in its queue.
    #[inline(always)]
    pub(super) fn is_alone(&self) -> bool {
        self.next.get().is_null() && self.prev.get().is_null()
    }

    /// Slot bytes and record of a block of a page of slots that its owner word says
    /// has records; `None` when no slot begins there. The usual case's
    /// [`Page::slot_at`] and [`Page::record`] in one.
    #[inline(always)]
    pub fn recorded_slot(&self, block: Block) -> Option<(usize, &AtomicU64)> {
        let offset = block.address().wrapping_sub(self.start.get());
        let index = divide_exact(offset, self.magic.get())?;
        let records = self.records.get();
        // SAFETY: P6, and the address lies within the page's run.
        let word = unsafe {
            assert_unchecked(!records.is_null());
            &*records.add(index)
        };
        Some((self.slot_bytes.get() as usize, word))
    }

    /// [`Page::recorded_slot`] of a block that came from this page.
    #[inline(always)]
    pub fn record_of(&self, block: Block) -> Option<(usize, &AtomicU64)> {
        let offset = block.address().wrapping_sub(self.start.get());
        let records = NonNull::new(self.records.get())?;
        let index = divide(offset, self.magic.get());
        // SAFETY: the page has a record for each slot, and the block is one of them.
        let word = unsafe { records.add(index).as_ref() };
        Some((self.slot_bytes.get() as usize, word))
    }

    /// The slot that holds `address` at any of its bytes.
    pub fn slot_around(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start.get())?;
        if self.is_single() {
            return (offset < self.single_bytes.get()).then_some(0);
        }
        let index = divide(offset, self.magic.get());
        (index < self.capacity.get() as usize).then_some(index)
    }

    /// Address of slot `index`.
    pub fn slot_address(&self, index: usize) -> usize {
        self.start.get() + index * self.slot_bytes.get() as usize
    }

    /// Slots carved so far.
    pub fn carved(&self) -> usize {
        self.capacity.get() as usize
    }

    /// Gives a singleton an empty record, or takes its record away. For whoever
    /// holds its block.
    pub fn keep_single_record(&self, keep: bool) {
        debug_assert!(self.is_single());
        self.single_record.store(0, Ordering::Relaxed);
        let record = ptr::from_ref(&self.single_record).cast_mut();
        self.records
            .set(if keep { record } else { ptr::null_mut() });
        self.set_flag(RECORDS, keep);
    }

    /// The record of slot `index`, when the page has records.
    #[inline]
    pub fn record(&self, index: usize) -> Option<&AtomicU64> {
        let records = NonNull::new(self.records.get())?;
        // SAFETY: a page with records has one for each slot, and slot_at() bounds the index.
        Some(unsafe { records.add(index).as_ref() })
    }

    /// The heap that owns the page, without flags; 0 for none.
    #[inline]
    pub fn owner_heap(&self) -> usize {
        self.owner.load(Ordering::Relaxed) & !FLAGS
    }

    #[inline]
    pub(super) fn flags(&self) -> usize {
        self.owner.load(Ordering::Relaxed) & FLAGS
    }

    pub(super) fn set_flag(&self, flag: usize, on: bool) {
        let word = self.owner.load(Ordering::Relaxed);
        let word = if on { word | flag } else { word & !flag };
        self.owner.store(word, Ordering::Relaxed);
    }

    /// Moves everything other threads have freed into the free list.
    /// Answers how many slots came back.
    pub(super) fn collect_remote(&self) -> u32 {
        if self.remote.load(Ordering::Relaxed) & !NOTIFY == 0 {
            return 0;
        }
        // Acquire pairs with the Release of the push in Heap::free_remote.
        let list = self.remote.swap(0, Ordering::Acquire) & !NOTIFY;
        let mut count = 0;
        let mut next = Block::from_address(list);
        while let Some(block) = next {
            next = NonNull::new(block.next()).map(Block::at);
            self.push(block);
            count += 1;
        }
        count
    }

    /// Carves up to `target` more bytes of slots; answers how many slots.
    pub(super) fn carve(&self, target: usize) -> u32 {
        let slot = self.slot_bytes.get() as usize;
        let first = self.capacity.get() as usize;
        let room = self.slots.get() as usize - first;
        let count = (target / slot).clamp(1, room.max(1)).min(room);
        let mut next = self.free.get();
        for index in (first..first + count).rev() {
            if let Some(block) = Block::from_address(self.slot_address(index)) {
                block.set_next(next);
                self.mark_free(block);
                next = block.pointer();
            }
        }
        self.free.set(next);
        let carved = u32::try_from(count).unwrap_or(0);
        self.capacity.set(self.capacity.get() + carved);
        carved
    }
}
