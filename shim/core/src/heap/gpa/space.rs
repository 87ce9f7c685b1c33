//! One reserve of address space: page structs, records and slices; runs of
//! slices are handed out and taken back here.
//!
//! # Design
//! ```text
//! | page structs: span / 512 | records: span / 2 and a little | slices: span |
//!                                                ^ base, aligned to ALIGN_MAX
//! ```
//! Everything is reserved without memory and committed in steps as it is used
//! (so that RLIMIT_DATA, strict overcommit and mlockall see only what is used).
//! Slice 0 is never handed out: number 0 means "none" in the lists.
//!
//! # Invariants
//! S1. Slices below `next` have page structs that are committed.
//! S2. A run in use has kind Head on its first slice, Interior on all others.
//! S3. A free run is clean (zero, or never touched) unless its head says dirty.
//! S4. A free run waits to be purged exactly when its head's `freed_at_ms` is not
//!     `SETTLED`.
//!
//! # Concurrency
//! One lock, held for list work only; purging drops it around the system call.
//! `base`, `structs` and `records` are written once; `limit` grows with `next`.
//! Whoever holds a block got it after the store of a limit that covers it.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::areas::Areas;
use super::classes::SLICE_SHIFT;
use super::page::{Kind, PAGE_STRUCT_SHIFT, Page};
use super::runs::{Runs, Structs};
use crate::heap::page::Pages;
use crate::sync::Lock;

mod purge;
mod records;
mod slices;

pub(super) use purge::PURGE_AFTER_MS;
use records::records_room;
use slices::STRUCT_STEP;
pub(super) use slices::{Run, Taste};

/// Largest alignment a block can ask for and still come from a run of slices.
pub(super) const ALIGN_MAX: usize = 1 << 30;
/// Blocks up to this size wait to go back like all others.
const LARGE_BYTES: usize = 128 << 10;
/// `freed_at_ms` of a free run that does not wait to go back.
const SETTLED: u64 = u64::MAX;
#[derive(Debug)]
struct Inner {
    next: u32,
    committed: usize,
    structs: usize,
    areas: Areas,
    /// Free runs that wait to go back to the kernel.
    waiting: Runs,
    /// All other free runs: clean, or refused by the kernel.
    settled: Runs,
    waiting_slices: usize,
}

/// See the module's text.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Space {
    base: AtomicUsize,
    limit: AtomicUsize,
    span: AtomicUsize,
    structs: AtomicUsize,
    records: AtomicUsize,
    /// What an address' slice number, times a struct's bytes, lacks to its struct.
    bias: AtomicUsize,
    /// Bytes of the largest block freed so far.
    largest: AtomicUsize,
    pages: Pages,
    inner: Lock<Inner>,
    #[cfg(fuzzing)]
    mapping: (AtomicUsize, AtomicUsize),
}

impl Inner {
    #[inline(always)]
    fn insert(&mut self, space: &Space, slice: u32, slices: u32) {
        if space.page(slice).freed_at_ms.get() == SETTLED {
            self.settled.insert(space, slice, slices);
        } else {
            self.waiting.insert(space, slice, slices);
            self.waiting_slices += slices as usize;
        }
    }

    #[inline(always)]
    fn remove(&mut self, space: &Space, slice: u32) -> u32 {
        if space.page(slice).freed_at_ms.get() == SETTLED {
            return self.settled.remove(space, slice);
        }
        let slices = self.waiting.remove(space, slice);
        self.waiting_slices -= slices as usize;
        slices
    }

    /// A free run of at least `slices` for a taste.
    fn find(&self, space: &Space, slices: u32, taste: Taste) -> Option<u32> {
        let settled = || self.settled.find(space, slices);
        match taste {
            Taste::Warm => self.waiting.find(space, slices).or_else(settled),
            Taste::OnlyWarm => self.waiting.find(space, slices),
            Taste::Clean => settled(),
        }
    }
}

impl Structs for Space {
    fn page(&self, slice: u32) -> &'static Page {
        let at = self.structs.load(Ordering::Relaxed) + ((slice as usize) << PAGE_STRUCT_SHIFT);
        // SAFETY: S1 and P4: slices that are asked for have committed, never unmapped structs.
        unsafe { &*ptr::with_exposed_provenance(at) }
    }
}

impl Space {
    /// A space that has not reserved anything yet.
    pub const fn new(pages: Pages) -> Self {
        Self {
            base: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            span: AtomicUsize::new(0),
            structs: AtomicUsize::new(0),
            records: AtomicUsize::new(0),
            bias: AtomicUsize::new(0),
            largest: AtomicUsize::new(LARGE_BYTES),
            pages,
            inner: Lock::new(Inner {
                next: 1,
                committed: 0,
                structs: 0,
                areas: Areas::new(),
                waiting: Runs::new(),
                settled: Runs::new(),
                waiting_slices: 0,
            }),
            #[cfg(fuzzing)]
            mapping: (AtomicUsize::new(0), AtomicUsize::new(0)),
        }
    }

    /// Reserves `span` bytes of slices (a power of two, at least 1 MiB) and what
    /// belongs to them. False when the kernel refuses or it was done before.
    pub fn reserve(&self, span: usize) -> bool {
        let _inner = self.inner.lock();
        if self.span.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let align = span.min(ALIGN_MAX);
        let structs = (span >> (SLICE_SHIFT - PAGE_STRUCT_SHIFT)).max(STRUCT_STEP);
        let records = records_room(span);
        let Some(reserved) = self.pages.reserve(align + structs + records + span) else {
            return false;
        };
        #[cfg(fuzzing)]
        {
            self.mapping.0.store(reserved, Ordering::Relaxed);
            let bytes = align + structs + records + span;
            self.mapping.1.store(bytes, Ordering::Relaxed);
        }
        let base = (reserved + structs + records).next_multiple_of(align);
        let at = base - records - structs;
        let bias = at.wrapping_sub(base >> SLICE_SHIFT << PAGE_STRUCT_SHIFT);
        self.structs.store(at, Ordering::Relaxed);
        self.bias.store(bias, Ordering::Relaxed);
        self.records.store(base - records, Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        self.span.store(span, Ordering::Release);
        true
    }

    /// Commits the first step before it is needed: it splits mappings, which a
    /// process with as many as the kernel allows could not do later; further steps
    /// only move the border.
    pub fn commit_ahead(&self) {
        let _ = self.grow(&mut self.inner.lock(), 1);
    }

    /// True once [`Space::reserve`] has succeeded.
    pub fn is_reserved(&self) -> bool {
        self.span.load(Ordering::Acquire) != 0
    }

    /// Address and bytes of the slices.
    pub fn range(&self) -> (usize, usize) {
        let span = self.span.load(Ordering::Acquire);
        (self.base.load(Ordering::Relaxed), span)
    }

    /// Bytes of slices handed out so far, without the lock.
    pub(super) fn limit_now(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Addresses of the page structs and of the records.
    pub fn books(&self) -> (usize, usize) {
        let of = |word: &AtomicUsize| word.load(Ordering::Relaxed);
        (of(&self.structs), of(&self.records))
    }

    /// The page struct for an address, of whatever kind it is now; `None` for
    /// addresses that are not in this space.
    #[inline]
    pub fn page_of(&self, address: usize) -> Option<&'static Page> {
        let offset = address.wrapping_sub(self.base.load(Ordering::Relaxed));
        if offset >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        let at =
            self.structs.load(Ordering::Relaxed) + ((offset >> SLICE_SHIFT) << PAGE_STRUCT_SHIFT);
        // SAFETY: the structs are at no address near zero; the optimiser does not know.
        unsafe { core::hint::assert_unchecked(at != 0) };
        // SAFETY: S1: below the limit all structs are committed.
        Some(unsafe { &*ptr::with_exposed_provenance(at) })
    }

    /// Like [`Space::page_of`], for addresses that may be wild: only runs in
    /// use answer, by their first slice's struct.
    pub fn page_checked(&self, address: usize) -> Option<&'static Page> {
        let (base, span) = self.range();
        let offset = address.wrapping_sub(base);
        if offset >= span {
            return None;
        }
        let slice = u32::try_from(offset >> SLICE_SHIFT).ok()?;
        if slice == 0 || slice >= self.inner.lock().next {
            return None;
        }
        let page = self.page(slice);
        match page.kind.get() {
            Kind::Head => Some(page),
            Kind::Interior => {
                let head = self.page(page.head.get());
                let covers = slice - page.head.get() < head.slices.get();
                (head.kind.get() == Kind::Head && covers).then_some(head)
            }
            Kind::Untouched | Kind::Free => None,
        }
    }

    fn slice_of(&self, page: &Page) -> u32 {
        let offset = ptr::from_ref(page).addr() - self.structs.load(Ordering::Relaxed);
        u32::try_from(offset >> PAGE_STRUCT_SHIFT).unwrap_or(0)
    }

    /// Bytes of free slices that wait to go back to the kernel.
    pub fn dirty_bytes(&self) -> usize {
        self.inner.lock().waiting_slices << SLICE_SHIFT
    }

    /// Slices below this number have been handed out at some time.
    pub fn slices(&self) -> u32 {
        self.inner.lock().next
    }

    /// The run in use that begins at `slice`, for walks over the whole heap.
    pub fn head_at(&self, slice: u32) -> Option<&'static Page> {
        if slice == 0 || slice >= self.slices() {
            return None;
        }
        let page = self.page(slice);
        (page.kind.get() == Kind::Head).then_some(page)
    }

    /// Gives the addresses back.
    ///
    /// # Safety
    /// No block or page is used any more, nor is the space.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(&self) {
        let (at, bytes) = (&self.mapping.0, &self.mapping.1);
        let bytes = bytes.load(Ordering::Relaxed);
        // SAFETY: the caller's duty.
        unsafe { self.pages.release(at.load(Ordering::Relaxed), bytes) };
    }

    /// Takes the lock for the time of a fork.
    pub fn hold(&self) {
        self.inner.hold();
    }

    /// Opens the lock again, in parent and child.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty.
        unsafe { self.inner.release() };
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Byte offsets of what the plain paths use.
pub(super) mod layout {
    use core::mem::offset_of;

    use super::Space;

    /// Address of the slices.
    pub(in crate::heap::gpa) const BASE: usize = offset_of!(Space, base);
    /// Bytes of slices handed out.
    pub(in crate::heap::gpa) const LIMIT: usize = offset_of!(Space, limit);
    /// See the field.
    pub(in crate::heap::gpa) const BIAS: usize = offset_of!(Space, bias);
}
