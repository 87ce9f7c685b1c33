//! Memory for calls that come while the thread is inside us already.
//!
//! A signal handler may call malloc while its thread holds our locks or has half
//! changed a list; set-up itself may be interrupted. Such calls get blocks from
//! one of a few small heaps that nothing else uses, each entered by one caller at
//! a time and never waited for. Their frees, and frees of ordinary blocks from
//! such places, are put on a list and done later.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pageshim_core::heap::gpa::classes::{SLOT_MAX, aligned_class};
use pageshim_core::heap::gpa::{Block, Heap, Page, Spaces};
use pageshim_wire::process::Drop as Dropped;

use crate::world::{ACCOUNTS, OWN, STATE};

const HEAPS: usize = 4;
const SPAN: usize = 64 << 20;

/// One small heap. All zero until it is opened, so that the four take no page of
/// the library's data in a process that never needs one.
struct Spare {
    taken: AtomicBool,
    opened: AtomicBool,
    spaces: UnsafeCell<MaybeUninit<Spaces>>,
    heap: UnsafeCell<MaybeUninit<Heap>>,
}

// SAFETY: the heap is used only by whoever holds `taken`, the spaces after `opened`.
unsafe impl Sync for Spare {}

static SPARES: [Spare; HEAPS] = [const {
    Spare {
        taken: AtomicBool::new(false),
        opened: AtomicBool::new(false),
        spaces: UnsafeCell::new(MaybeUninit::zeroed()),
        heap: UnsafeCell::new(MaybeUninit::zeroed()),
    }
}; HEAPS];

static LATER: AtomicUsize = AtomicUsize::new(0);

impl Spare {
    fn with<T>(&'static self, work: impl FnOnce(&'static Heap) -> T) -> Option<T> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        let answer = self.open().map(work);
        self.taken.store(false, Ordering::Release);
        answer
    }

    fn open(&'static self) -> Option<&'static Heap> {
        let place = self.heap.get().cast::<Heap>();
        if self.spaces().is_none() {
            let at = self.spaces.get().cast::<Spaces>();
            // SAFETY: `taken` is ours, and nobody looks before `opened`.
            let spaces = unsafe {
                at.write(Spaces::new(OWN));
                &*at
            };
            if !spaces.reserve(SPAN) {
                return None;
            }
            // SAFETY: a static of the right type, used under `taken`.
            unsafe { Heap::place_unlisted(place, spaces, &ACCOUNTS, false) };
            // Pairs with the Acquire in spaces().
            self.opened.store(true, Ordering::Release);
        }
        // SAFETY: placed by the first caller, under `taken`.
        Some(unsafe { &*place })
    }

    /// Its spaces, once it was opened.
    fn spaces(&'static self) -> Option<&'static Spaces> {
        if !self.opened.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: written before `opened` was set, and never moved.
        Some(unsafe { (*self.spaces.get()).assume_init_ref() })
    }

    fn page_of(&'static self, address: usize) -> Option<&'static Page> {
        self.spaces()?.page_checked(address)
    }
}

/// A block, or null when all the small heaps are in use or empty.
#[cold]
pub(crate) fn allocate(requested: usize, align: usize) -> *mut u8 {
    STATE.count_drop(Dropped::Nested);
    let take = |heap: &'static Heap| {
        let block = match aligned_class(requested, align) {
            Some(class) if requested <= SLOT_MAX => heap.take_class(class)?.0,
            _ => heap.take_single(requested, align)?.0,
        };
        Some(block.pointer())
    };
    SPARES
        .iter()
        .find_map(|spare| spare.with(take).flatten())
        .unwrap_or(ptr::null_mut())
}

/// The page of a block handed out here.
pub(crate) fn page_of(address: usize) -> Option<&'static Page> {
    SPARES.iter().find_map(|spare| spare.page_of(address))
}

/// Frees a block handed out here.
pub(crate) fn free(address: usize, page: &'static Page) {
    let Some(block) = Block::from_address(address) else {
        return;
    };
    let own = |spare: &&'static Spare| {
        let heap = spare.heap.get().addr();
        page.is_single() && spare.page_of(address).is_some() || page.owner_heap() == heap
    };
    if let Some(spare) = SPARES.iter().find(own)
        && spare.with(|heap| heap.give(page, block)).is_none()
    {
        put_off(address);
    }
}

/// Remembers a free that cannot be done now.
pub(crate) fn put_off(address: usize) {
    let mut old = LATER.load(Ordering::Relaxed);
    loop {
        let link = ptr::with_exposed_provenance_mut::<usize>(address);
        // SAFETY: the host has given the block up, and it has at least 16 bytes.
        unsafe { link.write(old) };
        match LATER.compare_exchange_weak(old, address, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

/// Hands each remembered free to `free`.
#[inline]
pub(crate) fn catch_up(free: impl Fn(usize)) {
    if LATER.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut next = LATER.swap(0, Ordering::Acquire);
    while next != 0 {
        let address = next;
        // SAFETY: put_off() wrote the link.
        next = unsafe { ptr::with_exposed_provenance::<usize>(address).read() };
        free(address);
    }
}
