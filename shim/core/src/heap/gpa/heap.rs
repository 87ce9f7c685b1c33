//! A thread's set of pages.
//!
//! # Design
//! Each class has a queue of pages with (perhaps) free slots; the first is the
//! one allocations come from. A page that runs out leaves the queue and waits in
//! the class's full list until somebody frees into it. Requests up to 1 KiB find
//! their page through `direct`, larger ones through the class.
//!
//! A free makes its page the one that the next request of the slot's size comes from
//! (its `aim` in `direct`): the slot, its record and the page's struct are still in the
//! cache, while the first page's next slot seldom is. When that page has no more, the
//! slow path aims at the first one again.
//!
//! A heap outlives its thread: a new thread adopts it, or any thread that frees
//! into it, or looks for a page of a class it has, absorbs its pages.
//!
//! # Invariants
//! H1. Only the thread that holds a heap in state `Running` (or won it from
//!     `Idle`) touches its cells.
//! H2. A page is in exactly one of: a queue, a full list, a free run.
//! H3. Heaps are never unmapped, and aligned to more than the flag bits.
//! H4. An entry of `direct` names a page in the queue of its class, or the empty page;
//!     the last one, where large slots aim, is never read.
//!
//! # Concurrency
//! Remote free pushes a block on `page.remote` (Release) or, for a full page
//! that asked for it, on `heap.delayed` (Release); the owner swaps both lists
//! out (Acquire). `state` moves Idle -> Running by compare-and-swap (Acquire)
//! and back by a Release store. Who hands a block over and who moves its page or
//! ends are told apart by a pair of fences, see `hand_over`.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use pageshim_wire::process::{Misuse, class, word};

use super::classes::{
    CLASSES, DIRECT_MAX, SINGLETON, SLICE_BYTES, SLICE_SHIFT, SLOT_CLASSES, SLOT_MAX, class_of,
    magic, page_slices, page_slots, slot_bytes,
};
use super::page::{Block, FLAGS, FULL, NOTIFY, Page, RECORDS, SINGLE};
use super::space::{Run, Spaces, Taste};
use crate::heap::accounts::Accounts;
use crate::sys;

mod cause;
mod upkeep;

const SPARES: usize = 4;
/// The entry of `direct` that no request finds.
const UNREAD: usize = DIRECT_MAX / 16 + 1;
static EMPTY: Page = Page::empty();

/// Who holds a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HeapState {
    /// Never set up.
    Unused = 0,
    /// A thread's.
    Running = 1,
    /// Nobody's: free to adopt or absorb.
    Idle = 2,
    /// Of a thread that did not survive a fork: its lists may be torn, so its
    /// pages take frees and nothing else.
    Orphan = 3,
}

/// How a free went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// Into a page of this heap.
    Local,
    /// Into another heap's page.
    Remote,
}

#[derive(Debug)]
struct Bin {
    first: Cell<&'static Page>,
    last: Cell<*const Page>,
    full: Cell<*const Page>,
    spares: [Cell<*const Page>; SPARES],
    next_spare: Cell<u32>,
}

/// See the module's text.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Heap {
    direct: [Cell<&'static Page>; UNREAD + 1],
    bins: [Bin; SLOT_CLASSES],
    spaces: &'static Spaces,
    accounts: &'static Accounts,
    recording: Cell<bool>,
    next_maintenance_ms: Cell<u64>,
    bell: Cell<Option<&'static Cell<u8>>>,
    sweep_from: Cell<u32>,
    cause: Cell<u32>,
    touched: Cell<u32>,
    delayed: AtomicUsize,
    next_heap: AtomicUsize,
    state: AtomicU32,
}

/// Byte offset of the table of pages by size.
pub const DIRECT: usize = core::mem::offset_of!(Heap, direct);

// SAFETY: H1; what is shared is atomic.
unsafe impl Sync for Heap {}

const _: () = assert!(align_of::<Heap>() > FLAGS);

/// Where pages of a class aim: the entry for its slots' very size.
fn aim_of(class: usize) -> u32 {
    let entry = (slot_bytes(class) / 16).min(UNREAD);
    u32::try_from(entry).unwrap_or(0)
}

fn page_at(pointer: *const Page) -> Option<&'static Page> {
    // SAFETY: page pointers in lists come from Space::page, which lives for ever (P4).
    unsafe { pointer.as_ref() }
}

impl Heap {
    /// Sets up a heap in state `Running` in fresh memory.
    ///
    /// # Safety
    /// `at` is valid for a `Heap`, aligned, unused, and never unmapped (H3).
    pub unsafe fn place(
        at: *mut Self,
        spaces: &'static Spaces,
        accounts: &'static Accounts,
        recording: bool,
    ) -> &'static Self {
        // SAFETY: the caller's duty.
        let heap = unsafe { Self::place_unlisted(at, spaces, accounts, recording) };
        heap.register();
        heap
    }

    /// As [`Heap::place`], but not in the list of all heaps: nobody adopts it.
    ///
    /// # Safety
    /// As [`Heap::place`].
    pub unsafe fn place_unlisted(
        at: *mut Self,
        spaces: &'static Spaces,
        accounts: &'static Accounts,
        recording: bool,
    ) -> &'static Self {
        let bin = || Bin {
            first: Cell::new(&EMPTY),
            last: Cell::new(ptr::null()),
            full: Cell::new(ptr::null()),
            spares: [const { Cell::new(ptr::null()) }; SPARES],
            next_spare: Cell::new(0),
        };
        let heap = Self {
            direct: core::array::from_fn(|_| Cell::new(&EMPTY)),
            bins: core::array::from_fn(|_| bin()),
            spaces,
            accounts,
            recording: Cell::new(recording),
            next_maintenance_ms: Cell::new(0),
            bell: Cell::new(None),
            sweep_from: Cell::new(0),
            cause: Cell::new(0),
            touched: Cell::new(0),
            delayed: AtomicUsize::new(0),
            next_heap: AtomicUsize::new(0),
            state: AtomicU32::new(HeapState::Running as u32),
        };
        // SAFETY: the caller vouched for the place.
        unsafe {
            at.write(heap);
            &*at
        }
    }

    fn register(&'static self) {
        let mut old = HEAPS.load(Ordering::Relaxed);
        loop {
            self.next_heap.store(old, Ordering::Relaxed);
            let new = self.address();
            // Release pairs with the Acquire in all_heaps.
            match HEAPS.compare_exchange(old, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    #[inline]
    fn address(&self) -> usize {
        ptr::from_ref(self).expose_provenance()
    }

    /// The spaces this heap draws from.
    pub const fn spaces(&self) -> &'static Spaces {
        self.spaces
    }

    /// A class's first and last page in the queue, and the first full one.
    #[cfg(any(test, fuzzing))]
    pub(super) fn lists(&self, class: usize) -> (*const Page, *const Page, *const Page) {
        let bin = &self.bins[class];
        let first = page_at(bin.last.get()).map_or(ptr::null(), |_| bin.first.get());
        (first, bin.last.get(), bin.full.get())
    }

    /// The pages that requests find by table.
    #[cfg(any(test, fuzzing))]
    pub(super) fn aimed(&self) -> impl Iterator<Item = *const Page> {
        self.direct[..UNREAD]
            .iter()
            .map(|entry| ptr::from_ref(entry.get()))
    }

    /// Who holds it.
    pub fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    // ---- taking -----------------------------------------------------------

    /// A slot for `requested` bytes, at most [`SLOT_MAX`].
    #[inline]
    pub fn take(&self, requested: usize) -> Option<(Block, &'static Page)> {
        debug_assert!(requested <= SLOT_MAX);
        if requested <= DIRECT_MAX {
            let page = self.direct[requested.div_ceil(16)].get();
            if let Some(block) = page.pop() {
                return Some((block, page));
            }
        }
        self.take_class(class_of(requested))
    }

    /// [`Heap::take`] for at most [`DIRECT_MAX`] bytes when it needs no slow path.
    #[inline(always)]
    pub fn take_fast(&self, requested: usize) -> Option<Block> {
        self.direct[requested.div_ceil(16)].get().pop()
    }

    /// [`Heap::take`] for at most [`SLOT_MAX`] bytes when it needs no slow path.
    #[inline(always)]
    pub fn take_ready(&self, requested: usize) -> Option<(Block, &'static Page)> {
        let page = if requested <= DIRECT_MAX {
            self.direct[requested.div_ceil(16)].get()
        } else {
            self.bins[class_of(requested)].first.get()
        };
        Some((page.pop()?, page))
    }

    /// A slot of a class.
    #[inline]
    pub fn take_class(&self, class: usize) -> Option<(Block, &'static Page)> {
        let page = self.bins[class].first.get();
        if let Some(block) = page.pop() {
            self.aim_at(page);
            return Some((block, page));
        }
        let page = self.refill(class)?;
        self.aim_at(page);
        Some((page.pop()?, page))
    }

    /// A block with a run of its own; true when its memory is known to be zero.
    pub fn take_single(&self, bytes: usize, align: usize) -> Option<(Block, &'static Page, bool)> {
        self.maintain();
        let slices = u32::try_from(bytes.checked_add(SLICE_BYTES - 1)? >> SLICE_SHIFT).ok()?;
        let run = self.take_run(slices.max(1), align)?;
        let page = run.page;
        page.class.set(u8::try_from(SINGLETON).unwrap_or(u8::MAX));
        page.used.set(1);
        page.capacity.set(1);
        page.remote.store(0, Ordering::Relaxed);
        page.single_record.store(0, Ordering::Relaxed);
        let record = ptr::from_ref(&page.single_record).cast_mut();
        page.records.set(if self.recording.get() {
            record
        } else {
            ptr::null_mut()
        });
        self.set_single_bytes(page, bytes, 0, 0);
        let flags = if self.recording.get() {
            SINGLE | RECORDS
        } else {
            SINGLE
        };
        page.owner.store(flags, Ordering::Release);
        Some((Block::from_address(page.start.get())?, page, run.zeroed))
    }

    /// Books a singleton's usable bytes (whole OS pages) and its run.
    fn set_single_bytes(&self, page: &Page, bytes: usize, old_bytes: usize, old_slices: u32) {
        let usable = bytes.max(1).next_multiple_of(crate::OS_PAGE_BYTES);
        page.single_bytes.set(usable);
        let run = |slices: u32| i64::from(slices) << SLICE_SHIFT;
        let (before, after) = (run(old_slices), run(page.slices.get()));
        self.accounts
            .add_class(SINGLETON, class::PAGE_BYTES, after - before);
        let slots = i64::try_from(usable).unwrap_or(0) - i64::try_from(old_bytes).unwrap_or(0);
        self.accounts.add_class(SINGLETON, class::CAPACITY, slots);
        if old_slices == 0 {
            self.accounts.add_class(SINGLETON, class::PAGES, 1);
        }
    }

    /// Makes a singleton hold `bytes` without moving it.
    pub fn resize_single(&self, page: &'static Page, bytes: usize) -> bool {
        let Some(rounded) = bytes.checked_add(SLICE_BYTES - 1) else {
            return false;
        };
        let Ok(slices) = u32::try_from(rounded >> SLICE_SHIFT) else {
            return false;
        };
        let (old_bytes, old_slices) = (page.single_bytes.get(), page.slices.get());
        let space = self.spaces.space_of(page.start.get());
        if slices > old_slices {
            if !space.extend(page, slices) {
                return false;
            }
        } else if slices < old_slices {
            space.shrink(page, slices.max(1), sys::coarse_ms());
        }
        self.set_single_bytes(page, bytes, old_bytes, old_slices);
        true
    }

    /// Finds or makes a page of `class` with a free slot and puts it first.
    #[cold]
    #[inline(never)]
    fn refill(&self, class: usize) -> Option<&'static Page> {
        self.maintain();
        self.drain_delayed();
        loop {
            let bin = &self.bins[class];
            let Some(page) = page_at(bin.last.get()).map(|_| bin.first.get()) else {
                break;
            };
            page.collect_remote();
            if page.is_torn() {
                self.mend(page);
            }
            if !page.free.get().is_null() {
                return Some(page);
            }
            if page.capacity.get() < page.slots.get() {
                self.carve(page);
                return Some(page);
            }
            self.retire_full(page);
        }
        if IDLE_HEAPS.load(Ordering::Relaxed) > 0 && self.absorb_class(class) {
            return self.refill(class);
        }
        self.fresh_page(class)
    }

    /// Counts a double free that showed late, and survives it.
    #[cold]
    fn mend(&self, page: &Page) {
        page.mend();
        let word = word::MISUSE + Misuse::DoubleFree as usize;
        self.accounts.add(word, 1);
    }

    fn fresh_page(&self, class: usize) -> Option<&'static Page> {
        let slices = u32::try_from(page_slices(class)).ok()?;
        let bin = &self.bins[class];
        // Few blocks may follow a class's first; memory that is resident and free is
        // for those that use it up.
        let first = bin.last.get().is_null() && bin.full.get().is_null();
        let run = if first {
            self.spaces.take(slices, 1, Taste::Clean)
        } else {
            self.take_run(slices, 1)
        };
        let run = run?;
        let page = run.page;
        page.dirty.set(!run.zeroed);
        let records = if self.recording.get() {
            self.spaces.space_of(page.start.get()).take_records(class)
        } else {
            None
        };
        page.records.set(records.unwrap_or(ptr::null_mut()));
        page.class.set(u8::try_from(class).ok()?);
        page.slot_bytes.set(u32::try_from(slot_bytes(class)).ok()?);
        page.magic.set(magic(slot_bytes(class)));
        page.aim.set(aim_of(class));
        page.slots.set(u32::try_from(page_slots(class)).ok()?);
        page.capacity.set(0);
        page.used.set(0);
        page.free.set(ptr::null_mut());
        page.remote.store(0, Ordering::Relaxed);
        let flags = if records.is_some() { RECORDS } else { 0 };
        page.owner.store(self.address() | flags, Ordering::Release);
        self.accounts
            .add_page(class, i64::from(slices) << SLICE_SHIFT);
        self.carve(page);
        self.enqueue_first(page);
        Some(page)
    }

    /// A run that will be used at once: resident memory that waits, or pages that are
    /// kept empty, before memory the kernel has yet to give.
    fn take_run(&self, slices: u32, align: usize) -> Option<Run> {
        let warm = |taste| self.spaces.take(slices, align, taste);
        if let Some(run) = warm(Taste::OnlyWarm) {
            return Some(run);
        }
        if self.release_idle_page(slices)
            && let Some(run) = warm(Taste::OnlyWarm)
        {
            return Some(run);
        }
        warm(Taste::Warm)
    }

    /// Gives back one page that is kept empty, of at least `slices`.
    fn release_idle_page(&self, slices: u32) -> bool {
        for bin in &self.bins {
            if bin.last.get().is_null() {
                continue;
            }
            let spares = bin.spares.iter().filter_map(|spare| page_at(spare.get()));
            for page in spares.chain([bin.first.get()]) {
                let ours = page.owner_heap() == self.address() && page.flags() & FULL == 0;
                if ours && page.used.get() == 0 && page.slices.get() >= slices {
                    self.release_page(page);
                    return true;
                }
            }
        }
        false
    }

    // ---- giving back ------------------------------------------------------

    /// [`Heap::give`] when the page is ours and nothing is special about it.
    #[inline(always)]
    pub fn give_fast(&self, page: &'static Page, block: Block) -> bool {
        let plain = page.owner.load(Ordering::Relaxed) == self.address();
        if !plain || !page.begins_at(block) {
            return false;
        }
        self.give_own(page, block);
        true
    }

    /// Bytes usable in a live block when its page is ours and nothing is special about it.
    #[inline(always)]
    pub fn usable_fast(&self, page: &Page, block: Block) -> Option<usize> {
        let plain = page.owner.load(Ordering::Relaxed) == self.address();
        let live = plain && page.slot_at(block.address()).is_some() && !block.is_marked_free(page);
        live.then(|| page.slot_bytes.get() as usize)
    }

    /// True for a page of slots with records that is ours and not full.
    #[inline(always)]
    pub fn owns_recorded(&self, page: &Page) -> bool {
        page.owner.load(Ordering::Relaxed) == self.address() | RECORDS
    }

    /// Frees a block of a page that is ours and not full.
    #[inline(always)]
    pub fn give_own(&self, page: &'static Page, block: Block) {
        page.push(block);
        self.aim_at(page);
        // A class's only page stays: a loop of pairs must not leave the fast path.
        if page.used.get() == 0 && !page.is_alone() {
            self.retire_empty(page);
        }
    }

    /// As [`Heap::give_own`], but leaves an empty page to the caller: true when
    /// [`Heap::settle_empty`] should follow.
    #[inline(always)]
    pub fn give_back(&self, page: &'static Page, block: Block) -> bool {
        page.push(block);
        self.aim_at(page);
        page.used.get() == 0 && !page.is_alone()
    }

    /// Lets go of a page of ours that may be empty.
    pub fn settle_empty(&self, page: &'static Page) {
        if page.used.get() == 0 && !page.is_alone() {
            self.retire_empty(page);
        }
    }

    /// Frees a block of `page`, whoever owns it.
    #[inline]
    pub fn give(&self, page: &'static Page, block: Block) -> Freed {
        let word = page.owner.load(Ordering::Relaxed);
        if word & !RECORDS == self.address() {
            self.give_own(page, block);
            return Freed::Local;
        }
        self.give_slow(page, block)
    }

    #[inline(never)]
    fn give_slow(&self, page: &'static Page, block: Block) -> Freed {
        if page.flags() & SINGLE != 0 {
            self.give_single(page);
            return Freed::Local;
        }
        if page.owner_heap() == self.address() {
            page.push(block);
            self.unfull(page);
            return Freed::Local;
        }
        if let Some(owner) = self.other_heap(page)
            && self.absorb(owner)
        {
            return self.give(page, block);
        }
        self.give_remote(page, block);
        Freed::Remote
    }

    fn give_single(&self, page: &'static Page) {
        let bytes = i64::try_from(page.single_bytes.get()).unwrap_or(0);
        let run = i64::from(page.slices.get()) << SLICE_SHIFT;
        self.accounts.add_class(SINGLETON, class::PAGE_BYTES, -run);
        self.accounts.add_class(SINGLETON, class::CAPACITY, -bytes);
        self.accounts.add_class(SINGLETON, class::PAGES, -1);
        let space = self.spaces.space_of(page.start.get());
        let emptied = space.is_record(page.single_bytes.get()) && space.empty(page);
        let waiting = space.give(page, !emptied, sys::coarse_ms());
        self.ring(waiting);
        self.maintain();
    }

    fn other_heap(&self, page: &Page) -> Option<&'static Self> {
        let address = page.owner_heap();
        // SAFETY: H3: owner words hold addresses of heaps that live for ever, or 0.
        unsafe { ptr::with_exposed_provenance::<Self>(address).as_ref() }
    }

    fn give_remote(&self, page: &'static Page, block: Block) {
        block.mark_free(page);
        let mut old = page.remote.load(Ordering::Relaxed);
        loop {
            let new = if old & NOTIFY != 0 {
                0
            } else {
                block.set_next(ptr::with_exposed_provenance_mut(old));
                block.address()
            };
            // Release pairs with the Acquire in Page::collect_remote.
            match page
                .remote
                .compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if old & NOTIFY != 0 => break,
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
        self.hand_over(page, block);
    }

    /// The page is full and its owner wants to hear of it: the block itself goes
    /// to the owner, still counted as used, so that the page cannot vanish.
    ///
    /// The owner may lose the page, or end, while the block is on its way. Each
    /// side first writes, then looks, with a fence between: the owner's heir stores
    /// its name in the page and then takes the list (in absorb), a thread that ends
    /// stores Idle and then looks at the list (in park), and here the block is
    /// listed before the page and the state are read. So one of the two sees it.
    fn hand_over(&self, page: &'static Page, block: Block) {
        let Some(owner) = self.other_heap(page) else {
            return;
        };
        owner.list_delayed(block);
        fence(Ordering::SeqCst);
        let moved = page.owner_heap() != owner.address();
        if moved {
            self.drain_delayed_of(owner);
        } else if owner.state() == HeapState::Idle as u32 {
            self.absorb(owner);
        }
    }

    fn list_delayed(&self, block: Block) {
        let mut old = self.delayed.load(Ordering::Relaxed);
        loop {
            block.set_next(ptr::with_exposed_provenance_mut(old));
            // Release pairs with the Acquire in drain_delayed_of.
            match self.delayed.compare_exchange_weak(
                old,
                block.address(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// Takes what other threads freed into full pages of `heap`: ours, or one whose
    /// pages we have just absorbed.
    fn drain_delayed_of(&self, heap: &Self) {
        if heap.delayed.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut next = Block::from_address(heap.delayed.swap(0, Ordering::Acquire));
        while let Some(block) = next {
            next = NonNull::new(block.next()).map(Block::at);
            let Some(page) = self.spaces.page_of(block.address()) else {
                continue;
            };
            let page = self.spaces.head_of(page, block.address());
            if page.owner_heap() == self.address() {
                self.give(page, block);
            } else {
                // The page moved on. Its new owner must hear of it all the same:
                // a plain remote free would wait for a look nobody takes.
                self.hand_over(page, block);
            }
        }
    }

    fn drain_delayed(&self) {
        self.drain_delayed_of(self);
    }

    // ---- queues -----------------------------------------------------------

    fn enqueue_first(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        page.prev.set(ptr::null());
        match page_at(bin.last.get()) {
            Some(_) => {
                let old = bin.first.get();
                old.prev.set(page);
                page.next.set(old);
            }
            None => {
                page.next.set(ptr::null());
                bin.last.set(page);
            }
        }
        self.set_first(page.class(), page);
    }

    fn enqueue_last(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        let Some(last) = page_at(bin.last.get()) else {
            self.enqueue_first(page);
            return;
        };
        last.next.set(page);
        page.prev.set(last);
        page.next.set(ptr::null());
        bin.last.set(page);
    }

    /// Takes a page off its queue.
    fn dequeue(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        let (prev, next) = (page_at(page.prev.get()), page_at(page.next.get()));
        match next {
            Some(next) => next.prev.set(page.prev.get()),
            None => bin.last.set(page.prev.get()),
        }
        match prev {
            Some(prev) => prev.next.set(page.next.get()),
            None => self.set_first(page.class(), next.unwrap_or(&EMPTY)),
        }
        let aimed = &self.direct[page.aim.get() as usize];
        if ptr::eq(aimed.get(), page) {
            aimed.set(self.bins[page.class()].first.get());
        }
    }

    /// The next request of the slot's very size comes from `page`, which is queued (H4).
    #[inline(always)]
    fn aim_at(&self, page: &'static Page) {
        // SAFETY: aim_of() stays within the table.
        let entry = unsafe { self.direct.get_unchecked(page.aim.get() as usize) };
        entry.set(page);
    }

    fn set_first(&self, class: usize, page: &'static Page) {
        self.bins[class].first.set(page);
        let high = aim_of(class) as usize;
        if high == UNREAD {
            return;
        }
        let low = if class == 0 {
            0
        } else {
            slot_bytes(class - 1) / 16 + 1
        };
        for entry in &self.direct[low..=high] {
            entry.set(page);
        }
    }

    /// A page ran out: it leaves the queue and asks to be told of a remote free.
    fn retire_full(&self, page: &'static Page) {
        let asked = page
            .remote
            .compare_exchange(0, NOTIFY, Ordering::AcqRel, Ordering::Relaxed);
        if asked.is_err() {
            page.collect_remote();
            return;
        }
        self.dequeue(page);
        page.set_flag(FULL, true);
        let bin = &self.bins[page.class()];
        page.prev.set(ptr::null());
        page.next.set(bin.full.get());
        if let Some(old) = page_at(bin.full.get()) {
            old.prev.set(page);
        }
        bin.full.set(page);
    }

    /// A full page got a slot back.
    fn unfull(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        let (prev, next) = (page_at(page.prev.get()), page_at(page.next.get()));
        match prev {
            Some(prev) => prev.next.set(page.next.get()),
            None => bin.full.set(page.next.get()),
        }
        if let Some(next) = next {
            next.prev.set(page.prev.get());
        }
        page.set_flag(FULL, false);
        page.remote.fetch_and(!NOTIFY, Ordering::AcqRel);
        page.collect_remote();
        self.enqueue_last(page);
        self.aim_at(page);
        if page.used.get() == 0 {
            self.retire_empty(page);
        }
    }

    /// A page of ours, not its class's only one, has no block left: a few stay for
    /// reuse, the others go back.
    pub fn retire_empty(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        if ptr::eq(bin.last.get(), page) && ptr::eq(bin.first.get(), page) {
            return;
        }
        if bin.spares.iter().any(|spare| ptr::eq(spare.get(), page)) {
            return;
        }
        let turn = bin.next_spare.get();
        bin.next_spare.set(turn.wrapping_add(1));
        let kept = bin.spares[turn as usize % SPARES].replace(page);
        if let Some(old) = page_at(kept)
            && old.used.get() == 0
            && old.owner_heap() == self.address()
            && old.class() == page.class()
        {
            self.release_page(old);
        }
    }

    /// Gives an empty page's slices back to the space.
    fn release_page(&self, page: &'static Page) {
        if !page.is_surely_empty() {
            self.mend(page);
            return;
        }
        let bin = &self.bins[page.class()];
        for spare in &bin.spares {
            if ptr::eq(spare.get(), page) {
                spare.set(ptr::null());
            }
        }
        self.dequeue(page);
        let class = page.class();
        let run = i64::from(page.slices.get()) << SLICE_SHIFT;
        self.accounts.add_page(class, -run);
        let capacity = i64::from(page.capacity.get());
        self.accounts.add_class(class, class::CAPACITY, -capacity);
        let space = self.spaces.space_of(page.start.get());
        if page.has_records() {
            page.forget_records();
            space.give_records(class, page.records.get());
        }
        let waiting = space.give(page, true, sys::coarse_ms());
        self.ring(waiting);
    }

    // ---- between threads --------------------------------------------------

    /// The thread ends: empty pages go back, the rest waits for an heir.
    pub fn park(&self) {
        loop {
            self.drain_delayed();
            self.for_each_page(|page| {
                if page.flags() & FULL == 0 {
                    page.collect_remote();
                }
            });
            self.release_empty();
            self.bell.set(None);
            self.leave();
            // Pairs with the fence in hand_over.
            fence(Ordering::SeqCst);
            if self.delayed.load(Ordering::Relaxed) == 0 || !self.adopt() {
                return;
            }
        }
    }

    fn leave(&self) {
        IDLE_HEAPS.fetch_add(1, Ordering::Relaxed);
        self.state.store(HeapState::Idle as u32, Ordering::Release);
    }

    /// A new thread takes over an idle heap; false when someone was faster.
    pub fn adopt(&self) -> bool {
        let (idle, running) = (HeapState::Idle as u32, HeapState::Running as u32);
        let won = self
            .state
            .compare_exchange(idle, running, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if won {
            IDLE_HEAPS.fetch_sub(1, Ordering::Relaxed);
        }
        won
    }

    /// In a forked child: a heap whose thread did not come along.
    pub fn orphan(&self) {
        if self.state() == HeapState::Running as u32 {
            self.state
                .store(HeapState::Orphan as u32, Ordering::Release);
        }
    }

    /// Moves all pages of an idle heap into this one; false when it is not idle.
    fn absorb(&self, other: &'static Self) -> bool {
        // Pages without records would make blocks that look freed twice, or the reverse.
        if other.recording.get() != self.recording.get() {
            return false;
        }
        if other.state() != HeapState::Idle as u32 || !other.adopt() {
            return false;
        }
        let heir = self.address();
        for (class, bin) in other.bins.iter().enumerate() {
            let mut next = page_at(bin.last.get()).map(|_| bin.first.get());
            other.set_first(class, &EMPTY);
            bin.last.set(ptr::null());
            while let Some(page) = next {
                next = page_at(page.next.get());
                page.owner.store(heir | page.flags(), Ordering::Relaxed);
                self.enqueue_last(page);
            }
            let mut next = page_at(bin.full.replace(ptr::null()));
            while let Some(page) = next {
                next = page_at(page.next.get());
                page.owner.store(heir | page.flags(), Ordering::Relaxed);
                let mine = &self.bins[class];
                page.prev.set(ptr::null());
                page.next.set(mine.full.get());
                if let Some(old) = page_at(mine.full.get()) {
                    old.prev.set(page);
                }
                mine.full.set(page);
            }
            bin.spares.iter().for_each(|spare| spare.set(ptr::null()));
        }
        // Pairs with the fence in hand_over.
        fence(Ordering::SeqCst);
        self.drain_delayed_of(other);
        other.leave();
        true
    }

    /// Absorbs an idle heap that has pages of `class`.
    fn absorb_class(&self, class: usize) -> bool {
        all_heaps().any(|heap| {
            let idle = !ptr::eq(heap, self) && heap.state() == HeapState::Idle as u32;
            let kin = ptr::eq(heap.spaces, self.spaces);
            idle && kin && !heap.bins[class].last.get().is_null() && self.absorb(heap)
        })
    }
}

static IDLE_HEAPS: AtomicUsize = AtomicUsize::new(0);
static HEAPS: AtomicUsize = AtomicUsize::new(0);

/// Every heap ever set up in this process, newest first.
pub fn all_heaps() -> impl Iterator<Item = &'static Heap> {
    let heap = |address: usize| {
        // SAFETY: the list links heaps that live for ever (H3).
        unsafe { ptr::with_exposed_provenance::<Heap>(address).as_ref() }
    };
    // Acquire pairs with the Release in Heap::register.
    let first = heap(HEAPS.load(Ordering::Acquire));
    core::iter::successors(first, move |last| {
        heap(last.next_heap.load(Ordering::Relaxed))
    })
}

/// Empties the list of all heaps, whose memory may then go.
///
/// # Safety
/// No heap of this process is used any more.
#[cfg(fuzzing)]
pub(super) unsafe fn forget_all_heaps() {
    HEAPS.store(0, Ordering::Relaxed);
}

const _: () = assert!(CLASSES <= pageshim_wire::process::CLASSES_MAX);
