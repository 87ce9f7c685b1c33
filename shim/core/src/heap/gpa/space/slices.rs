//! Runs of slices, handed out and taken back.
//!
//! # Concurrency
//! Under the space's lock.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use pageshim_wire::process::word;

use super::{Inner, SETTLED, Space, signed};
use crate::heap::gpa::classes::{SLICE_BYTES, SLICE_SHIFT};
use crate::heap::gpa::page::{INTERIOR, Kind, PAGE_STRUCT_SHIFT, Page, SINGLE};
use crate::heap::gpa::runs::Structs;

const COMMIT_STEP: usize = 4 << 20;
pub(super) const STRUCT_STEP: usize = 64 << 10;

/// Which free memory suits a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::heap::gpa) enum Taste {
    /// What is still resident first: the run will be used at once.
    Warm,
    /// Resident memory or none.
    OnlyWarm,
    /// What is not resident first: little of the run may ever be touched.
    Clean,
}

/// A run of slices just taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::heap::gpa) struct Run {
    pub(in crate::heap::gpa) page: &'static Page,
    pub(in crate::heap::gpa) zeroed: bool,
}

impl Space {
    /// Takes a run of `slices` whose first byte is aligned to `align`.
    pub(in crate::heap::gpa) fn take(
        &self,
        slices: u32,
        align: usize,
        taste: Taste,
    ) -> Option<Run> {
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
    pub(super) fn cut(&self, inner: &mut Inner, slice: u32, slices: u32, step: u32) -> Run {
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

    pub(super) fn advance(&self, inner: &mut Inner, end: u32) {
        inner.next = end;
        let limit = (end as usize) << SLICE_SHIFT;
        self.limit.store(limit, Ordering::Release);
    }

    /// Commits slices and their structs up to slice number `end`.
    pub(super) fn grow(&self, inner: &mut Inner, end: u32) -> Option<()> {
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
    pub(super) fn begin(&self, first: u32, slices: u32, zeroed: bool) -> Run {
        let page = self.page(first);
        page.kind.set(Kind::Head);
        page.slices.set(slices);
        page.head.set(first);
        let base = self.base.load(Ordering::Relaxed);
        page.start.set(base + ((first as usize) << SLICE_SHIFT));
        self.mark_interior(first, 1, slices);
        Run { page, zeroed }
    }

    pub(super) fn mark_interior(&self, first: u32, from: u32, to: u32) {
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
    pub(in crate::heap::gpa) fn is_record(&self, bytes: usize) -> bool {
        if bytes <= self.largest.load(Ordering::Relaxed) {
            return false;
        }
        self.largest.store(bytes, Ordering::Relaxed);
        true
    }

    /// Gives the memory of a run in use back to the kernel; the run stays.
    pub(in crate::heap::gpa) fn empty(&self, page: &Page) -> bool {
        let length = (page.slices.get() as usize) << SLICE_SHIFT;
        // SAFETY: the caller owns the run, and no block lives in it.
        unsafe { self.pages.purge(page.start.get(), length) }
    }

    /// Takes a run back. `dirty` when its memory was or may have been written.
    /// Answers the bytes that wait to go back to the kernel now.
    pub(in crate::heap::gpa) fn give(
        &self,
        page: &'static Page,
        dirty: bool,
        now_ms: u64,
    ) -> usize {
        page.owner.store(SINGLE, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        let (first, slices) = (self.slice_of(page), page.slices.get());
        self.list(&mut inner, first, slices, dirty, now_ms);
        inner.waiting_slices << SLICE_SHIFT
    }

    /// Lists a run as free, merged with its free neighbours.
    pub(super) fn list(
        &self,
        inner: &mut Inner,
        first: u32,
        slices: u32,
        dirty: bool,
        now_ms: u64,
    ) {
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
    pub(in crate::heap::gpa) fn extend(&self, page: &'static Page, slices: u32) -> bool {
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
    pub(in crate::heap::gpa) fn shrink(&self, page: &'static Page, slices: u32, now_ms: u64) {
        let mut inner = self.inner.lock();
        let (first, have) = (self.slice_of(page), page.slices.get());
        if slices == 0 || slices >= have {
            return;
        }
        page.slices.set(slices);
        self.list(&mut inner, first + slices, have - slices, true, now_ms);
    }
}
