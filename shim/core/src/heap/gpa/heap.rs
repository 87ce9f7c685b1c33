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
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::block::Block;
use super::classes::{CLASSES, DIRECT_MAX, SLOT_CLASSES, SLOT_MAX, class_of, slot_bytes};
use super::page::{FLAGS, Page, RECORDS, SINGLE};
use super::spaces::Spaces;
use crate::heap::accounts::Accounts;

mod cause;
mod heirs;
mod queues;
mod refill;
mod remote;
mod single;
mod upkeep;

pub use heirs::all_heaps;
#[cfg(fuzzing)]
pub(super) use heirs::forget_all_heaps;

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
        let live = plain && page.slot_at(block.address()).is_some() && !page.marks_free(block);
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
}

const _: () = assert!(CLASSES <= pageshim_wire::process::CLASSES_MAX);
