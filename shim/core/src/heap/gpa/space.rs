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
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pageshim_wire::heap::ORIGINS_BYTES;
use pageshim_wire::process::word;

use super::areas::{self, Areas};
use super::classes::{SLICE_BYTES, SLICE_SHIFT};
use super::page::{INTERIOR, Kind, PAGE_STRUCT_SHIFT, Page, SINGLE};
use super::runs::{Runs, Structs};
use crate::heap::page::Pages;
use crate::sync::Lock;
use crate::sys;

/// Largest alignment a block can ask for and still come from a run of slices.
pub(super) const ALIGN_MAX: usize = 1 << 30;
const COMMIT_STEP: usize = 4 << 20;
const STRUCT_STEP: usize = 64 << 10;
const RECORD_STEP: usize = 256 << 10;
/// Records start asking for huge pages once they are this large.
const RECORD_HUGE_FROM: usize = 4 << 20;
const RECORD_HUGE_STEP: usize = 2 << 20;
/// Free slices go back to the kernel this long after they were freed.
pub(super) const PURGE_AFTER_MS: u64 = 1000;

/// Blocks up to this size wait to go back like all others.
const LARGE_BYTES: usize = 128 << 10;
/// `freed_at_ms` of a free run that does not wait to go back.
const SETTLED: u64 = u64::MAX;
/// Runs given back to the kernel between two holds of the lock.
const BATCH: usize = 32;

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

/// Which free memory suits a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taste {
    /// What is still resident first: the run will be used at once.
    Warm,
    /// Resident memory or none.
    OnlyWarm,
    /// What is not resident first: little of the run may ever be touched.
    Clean,
}

/// A run of slices just taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) page: &'static Page,
    pub(super) zeroed: bool,
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

    /// Takes a run of `slices` whose first byte is aligned to `align`.
    pub(super) fn take(&self, slices: u32, align: usize, taste: Taste) -> Option<Run> {
        let mut inner = self.inner.lock();
        let step = u32::try_from((align >> SLICE_SHIFT).max(1)).ok()?;
        let wanted = slices.checked_add(step - 1)?;
        if let Some(slice) = inner.find(self, wanted, taste) {
            return Some(self.cut(&mut inner, slice, slices, step));
        }
        if taste == Taste::OnlyWarm {
            return None;
        }
        let first = inner.next.next_multiple_of(step);
        let end = first.checked_add(slices)?;
        if self.grow(&mut inner, end).is_none() {
            // What is left is warm, or nothing.
            let slice = inner.find(self, wanted, Taste::Warm)?;
            return Some(self.cut(&mut inner, slice, slices, step));
        }
        let skipped = first - inner.next;
        if skipped > 0 {
            let from = inner.next;
            self.list(&mut inner, from, skipped, false, SETTLED);
        }
        self.advance(&mut inner, end);
        Some(self.begin(first, slices, true))
    }

    /// Cuts an aligned run out of a listed free run, listing what is left over.
    fn cut(&self, inner: &mut Inner, slice: u32, slices: u32, step: u32) -> Run {
        let found = inner.remove(self, slice);
        let dirty = self.page(slice).dirty.get();
        let freed_at = self.page(slice).freed_at_ms.get();
        let first = slice.next_multiple_of(step);
        let mut list = |from: u32, count: u32| {
            if count > 0 {
                self.page(from).dirty.set(dirty);
                self.page(from).freed_at_ms.set(freed_at);
                inner.insert(self, from, count);
            }
        };
        list(slice, first - slice);
        list(first + slices, slice + found - first - slices);
        self.begin(first, slices, !dirty)
    }

    fn advance(&self, inner: &mut Inner, end: u32) {
        inner.next = end;
        let limit = (end as usize) << SLICE_SHIFT;
        self.limit.store(limit, Ordering::Release);
    }

    /// Commits slices and their structs up to slice number `end`.
    fn grow(&self, inner: &mut Inner, end: u32) -> Option<()> {
        let (base, span) = self.range();
        let end = end as usize;
        if end << SLICE_SHIFT > span {
            return None;
        }
        let accounts = self.pages.accounts();
        let at = self.structs.load(Ordering::Relaxed);
        let structs = (end << PAGE_STRUCT_SHIFT).next_multiple_of(STRUCT_STEP);
        if structs > inner.structs {
            // SAFETY: within our reserve.
            let done = unsafe {
                self.pages
                    .commit(at + inner.structs, structs - inner.structs)
            };
            done.then_some(())?;
            accounts.add(word::METADATA, signed(structs - inner.structs));
            inner.structs = structs;
        }
        let need = end << SLICE_SHIFT;
        for step in [COMMIT_STEP, SLICE_BYTES] {
            let target = need.next_multiple_of(step).min(span);
            if target <= inner.committed {
                return Some(());
            }
            let more = target - inner.committed;
            // SAFETY: within our reserve.
            if unsafe { self.pages.commit(base + inner.committed, more) } {
                accounts.add_committed(signed(more));
                inner.committed = target;
                return Some(());
            }
        }
        None
    }

    /// Writes the structs of a run in use (S2).
    fn begin(&self, first: u32, slices: u32, zeroed: bool) -> Run {
        let page = self.page(first);
        page.kind.set(Kind::Head);
        page.slices.set(slices);
        page.head.set(first);
        let base = self.base.load(Ordering::Relaxed);
        page.start.set(base + ((first as usize) << SLICE_SHIFT));
        self.mark_interior(first, 1, slices);
        Run { page, zeroed }
    }

    fn mark_interior(&self, first: u32, from: u32, to: u32) {
        for slice in first + from..first + to {
            let page = self.page(slice);
            page.kind.set(Kind::Interior);
            page.head.set(first);
            page.owner.store(INTERIOR, Ordering::Relaxed);
        }
    }

    /// True for a block larger than any that asked before, from 128 KiB on. Such a
    /// one has just been outgrown or is not like the others: nobody will soon want a
    /// run of its size, so its memory need not wait.
    pub(super) fn is_record(&self, bytes: usize) -> bool {
        if bytes <= self.largest.load(Ordering::Relaxed) {
            return false;
        }
        self.largest.store(bytes, Ordering::Relaxed);
        true
    }

    /// Gives the memory of a run in use back to the kernel; the run stays.
    pub(super) fn empty(&self, page: &Page) -> bool {
        let length = (page.slices.get() as usize) << SLICE_SHIFT;
        // SAFETY: the caller owns the run, and no block lives in it.
        unsafe { self.pages.purge(page.start.get(), length) }
    }

    /// Takes a run back. `dirty` when its memory was or may have been written.
    /// Answers the bytes that wait to go back to the kernel now.
    pub(super) fn give(&self, page: &'static Page, dirty: bool, now_ms: u64) -> usize {
        page.owner.store(SINGLE, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        let (first, slices) = (self.slice_of(page), page.slices.get());
        self.list(&mut inner, first, slices, dirty, now_ms);
        inner.waiting_slices << SLICE_SHIFT
    }

    /// Lists a run as free, merged with its free neighbours.
    fn list(&self, inner: &mut Inner, first: u32, slices: u32, dirty: bool, now_ms: u64) {
        let (mut start, mut count) = (first, slices);
        // The oldest dirty part decides when the whole run is purged, so that a
        // busy neighbour cannot keep it young for ever.
        let mut stamp = if dirty { now_ms } else { SETTLED };
        let mut any_dirty = dirty;
        // What the run was is over even where merging hides its ends: a second free
        // of its block must not find a head.
        self.page(first).kind.set(Kind::Untouched);
        self.page(first + slices - 1).kind.set(Kind::Untouched);
        let mut absorb = |inner: &mut Inner, neighbour: u32| {
            let page = self.page(neighbour);
            stamp = stamp.min(page.freed_at_ms.get());
            any_dirty |= page.dirty.get();
            inner.remove(self, neighbour)
        };
        if first > 1 && self.page(first - 1).kind.get() == Kind::Free {
            start = self.page(first - 1).head.get();
            count += absorb(inner, start);
        }
        let after = first + slices;
        if after < inner.next && self.page(after).kind.get() == Kind::Free {
            count += absorb(inner, after);
        }
        // Merged into a run before it, its first slice is a head no more (S2).
        self.page(first).kind.set(Kind::Untouched);
        let head = self.page(start);
        head.dirty.set(any_dirty);
        head.freed_at_ms.set(stamp);
        inner.insert(self, start, count);
    }

    /// Grows a run in place by taking free slices right behind it.
    pub(super) fn extend(&self, page: &'static Page, slices: u32) -> bool {
        let mut inner = self.inner.lock();
        let (first, have) = (self.slice_of(page), page.slices.get());
        let Some(more) = slices.checked_sub(have).filter(|more| *more > 0) else {
            return true;
        };
        let after = first + have;
        if after == inner.next {
            if self.grow(&mut inner, first + slices).is_none() {
                return false;
            }
            self.advance(&mut inner, first + slices);
        } else {
            let next = self.page(after);
            if next.kind.get() != Kind::Free || next.slices.get() < more {
                return false;
            }
            let _ = self.cut(&mut inner, after, more, 1);
        }
        self.mark_interior(first, have, slices);
        page.slices.set(slices);
        true
    }

    /// Gives back the slices of a run behind the first `slices`.
    pub(super) fn shrink(&self, page: &'static Page, slices: u32, now_ms: u64) {
        let mut inner = self.inner.lock();
        let (first, have) = (self.slice_of(page), page.slices.get());
        if slices == 0 || slices >= have {
            return;
        }
        page.slices.set(slices);
        self.list(&mut inner, first + slices, have - slices, true, now_ms);
    }

    /// Room for the records of a page of `class`, zeroed.
    pub(super) fn take_records(&self, class: usize) -> Option<*mut AtomicU64> {
        let mut inner = self.inner.lock();
        let at = match inner.areas.take(class, false) {
            Some(at) => at,
            None => match self.fresh_records(&mut inner.areas, class) {
                Some(at) => at,
                None => inner.areas.take(class, true)?,
            },
        };
        Some(ptr::with_exposed_provenance_mut(at))
    }

    fn fresh_records(&self, areas: &mut Areas, class: usize) -> Option<usize> {
        let end = areas.next + areas::area_bytes(class);
        let base = self.records.load(Ordering::Relaxed);
        if end > records_room(self.span.load(Ordering::Relaxed)) {
            return None;
        }
        if end > areas.committed {
            self.commit_records(areas, base, end)?;
        }
        let at = base + areas.next;
        areas.next = end;
        Some(at)
    }

    /// Makes records usable at least up to `end`; large ones by whole huge pages, for a part of one
    /// that is touched gets small pages for good.
    fn commit_records(&self, areas: &mut Areas, base: usize, end: usize) -> Option<()> {
        let from = base + areas.committed;
        let huge = areas.committed >= RECORD_HUGE_FROM;
        let room = records_room(self.span.load(Ordering::Relaxed));
        let step = if huge { RECORD_HUGE_STEP } else { RECORD_STEP };
        for step in [step, RECORD_STEP] {
            let more = end.next_multiple_of(step).min(room) - areas.committed;
            // SAFETY: within our reserve.
            if unsafe { self.pages.commit(from, more) } {
                self.pages.accounts().add(word::METADATA, signed(more));
                if huge {
                    // SAFETY: advice on our own range that keeps its content.
                    let _ = unsafe { sys::advise(from, more, sys::HUGEPAGE) };
                }
                areas.committed += more;
                return Some(());
            }
        }
        None
    }

    /// Takes the records of a page back; all of them are zero again.
    pub(super) fn give_records(&self, class: usize, area: *mut AtomicU64) {
        let mut inner = self.inner.lock();
        inner.areas.give(class, area.expose_provenance());
    }

    /// Returns free slices freed before `before_ms`, and the records of what is gone,
    /// to the kernel; answers bytes.
    pub fn purge(&self, before_ms: u64) -> usize {
        let mut bytes = 0;
        loop {
            let mut batch = [(0, 0); BATCH];
            let due = |page: &Page| page.freed_at_ms.get() <= before_ms;
            let mut inner = self.inner.lock();
            let count = inner.waiting.drain(self, 4096, due, &mut batch);
            let batch = &mut batch[..count];
            inner.waiting_slices -= batch.iter().map(|run| run.1 as usize).sum::<usize>();
            drop(inner);
            bytes += self.purge_batch(batch);
            if count < BATCH {
                break;
            }
        }
        if bytes > 0 {
            bytes += self.purge_records();
        }
        bytes
    }

    /// Gives runs that are off the lists to the kernel and lists them as settled.
    fn purge_batch(&self, batch: &[(u32, u32)]) -> usize {
        let mut bytes = 0;
        for &(slice, slices) in batch {
            let start = self.range().0 + ((slice as usize) << SLICE_SHIFT);
            let length = (slices as usize) << SLICE_SHIFT;
            // SAFETY: the run is off the lists, so nobody else can have it.
            let purged = unsafe { self.pages.for_upkeep().purge(start, length) };
            if purged {
                bytes += length;
            }
            // Pages that cannot be purged (locked in memory) are settled for the purger
            // but not clean for calloc, until a neighbour is freed.
            self.list(&mut self.inner.lock(), slice, slices, !purged, SETTLED);
        }
        bytes
    }

    fn purge_records(&self) -> usize {
        let chain = self.inner.lock().areas.drain();
        let (chain, bytes) = areas::join(chain, |at, bytes| {
            // SAFETY: whole pages of areas that are off the lists and zero (A1).
            unsafe { self.pages.for_upkeep().purge(at, bytes) }
        });
        let base = self.records.load(Ordering::Relaxed);
        self.inner.lock().areas.refill(base, chain);
        bytes
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

/// Room for 8 bytes a slot of 16 bytes, and for the origins of every OS page.
const fn records_room(span: usize) -> usize {
    let origins = span / SLICE_BYTES * ORIGINS_BYTES as usize;
    (span / 2 + origins).next_multiple_of(RECORD_STEP)
}

/// Byte offsets of what the plain paths use, in [`Spaces`]: its first space's.
pub(super) mod layout {
    use core::mem::offset_of;

    use super::{Space, Spaces};

    const FIRST: usize = offset_of!(Spaces, first);
    /// Address of the slices.
    pub const BASE: usize = FIRST + offset_of!(Space, base);
    /// Bytes of slices handed out.
    pub const LIMIT: usize = FIRST + offset_of!(Space, limit);
    /// See the field.
    pub const BIAS: usize = FIRST + offset_of!(Space, bias);
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// An array of a non-Copy value made from an argument, in a const fn.
macro_rules! repeat {
    ($value:expr) => {
        [
            $value, $value, $value, $value, $value, $value, $value, $value, $value, $value, $value,
            $value, $value, $value, $value,
        ]
    };
}

/// The first space, and smaller ones for when it is refused or used up.
#[derive(Debug)]
pub struct Spaces {
    first: Space,
    more: [Space; Spaces::MORE],
    serial: Lock<()>,
    /// Most bytes a further space may reserve.
    step: AtomicU64,
}

impl Spaces {
    const MORE: usize = 15;

    /// No space reserved yet.
    pub const fn new(pages: Pages) -> Self {
        Self {
            first: Space::new(pages),
            more: repeat!(Space::new(pages)),
            serial: Lock::new(()),
            step: AtomicU64::new(0),
        }
    }

    /// Reserves the first space: `span` bytes, halving on refusal down to 1 MiB.
    pub fn reserve(&self, span: usize) -> bool {
        let mut span = span;
        while span >= 1 << 20 {
            if self.first.reserve(span) {
                self.step.store(span as u64, Ordering::Relaxed);
                return true;
            }
            span /= 2;
        }
        false
    }

    /// The space most blocks are in.
    pub const fn first(&self) -> &Space {
        &self.first
    }

    /// All spaces that are reserved.
    pub fn iter(&self) -> impl Iterator<Item = &Space> {
        core::iter::once(&self.first)
            .chain(self.more.iter().take_while(|space| space.is_reserved()))
    }

    /// The page struct for a block's address.
    #[inline]
    pub fn page_of(&self, address: usize) -> Option<&'static Page> {
        match self.first.page_of(address) {
            Some(page) => Some(page),
            None => self.page_elsewhere(address),
        }
    }

    #[cold]
    fn page_elsewhere(&self, address: usize) -> Option<&'static Page> {
        if !self.more[0].is_reserved() {
            return None;
        }
        self.more.iter().find_map(|space| space.page_of(address))
    }

    /// The page of a struct found by [`Spaces::page_of`]: itself or, for a later
    /// slice of a run, the run's first.
    #[inline]
    pub fn head_of(&self, page: &'static Page, address: usize) -> &'static Page {
        if page.flags() & INTERIOR == 0 {
            page
        } else {
            self.space_of(address).page(page.head.get())
        }
    }

    /// The run in use around an address that may be wild.
    pub fn page_checked(&self, address: usize) -> Option<&'static Page> {
        self.iter().find_map(|space| space.page_checked(address))
    }

    /// The space of an address of ours.
    pub(super) fn space_of(&self, address: usize) -> &Space {
        let within = |space: &&Space| {
            let (base, span) = space.range();
            address.wrapping_sub(base) < span
        };
        self.iter().find(within).unwrap_or(&self.first)
    }

    /// Takes a run from the first space that has room, reserving another when none has.
    pub(super) fn take(&self, slices: u32, align: usize, taste: Taste) -> Option<Run> {
        if align > ALIGN_MAX {
            return None;
        }
        let run = self
            .iter()
            .find_map(|space| space.take(slices, align, taste));
        if run.is_some() || taste == Taste::OnlyWarm {
            return run;
        }
        let _serial = self.serial.lock();
        let fresh = self.more.iter().find(|space| !space.is_reserved())?;
        let need = ((slices as usize + 1) << SLICE_SHIFT).checked_add(align)?;
        let mut span = need.checked_next_power_of_two()?.max(4 << 20);
        let most = usize::try_from(self.step.load(Ordering::Relaxed)).ok()? / 2;
        if most > span {
            span = most;
        }
        while span >= need {
            if fresh.reserve(span) {
                return fresh.take(slices, align, taste);
            }
            span /= 2;
        }
        None
    }

    /// Bytes that wait to go back to the kernel.
    pub fn dirty_bytes(&self) -> usize {
        self.iter().map(Space::dirty_bytes).sum()
    }

    /// Returns free memory to the kernel, see [`Space::purge`].
    pub fn purge(&self, before_ms: u64) -> usize {
        self.iter().map(|space| space.purge(before_ms)).sum()
    }

    /// Gives all addresses back.
    ///
    /// # Safety
    /// No block, page or space is used any more.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(&self) {
        for space in self.iter() {
            let (at, bytes) = (&space.mapping.0, &space.mapping.1);
            let bytes = bytes.load(Ordering::Relaxed);
            // SAFETY: the caller's duty.
            unsafe { space.pages.release(at.load(Ordering::Relaxed), bytes) };
        }
    }

    /// Takes all locks for the time of a fork.
    pub fn hold(&self) {
        self.serial.hold();
        self.first.hold();
        self.more.iter().for_each(Space::hold);
    }

    /// Opens them again.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty, for each lock.
        unsafe {
            self.more.iter().for_each(|space| space.release());
            self.first.release();
            self.serial.release();
        }
    }
}
