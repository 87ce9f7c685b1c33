//! A class's pages: those with free slots, the full ones, the spare ones.
//!
//! # Concurrency
//! The owner only (H1).
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::Ordering;

use pageshim_wire::process::class;

use super::{EMPTY, Heap, SPARES, UNREAD, aim_of, page_at};
use crate::heap::gpa::classes::{SLICE_SHIFT, slot_bytes};
use crate::heap::gpa::page::{FULL, NOTIFY, Page};
use crate::sys;

impl Heap {
    pub(super) fn enqueue_first(&self, page: &'static Page) {
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

    pub(super) fn enqueue_last(&self, page: &'static Page) {
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
    pub(super) fn dequeue(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        let (prev, next) = unlink(page);
        if next.is_none() {
            bin.last.set(page.prev.get());
        }
        if prev.is_none() {
            self.set_first(page.class(), next.unwrap_or(&EMPTY));
        }
        let aimed = &self.direct[page.aim.get() as usize];
        if ptr::eq(aimed.get(), page) {
            aimed.set(self.bins[page.class()].first.get());
        }
    }

    /// The next request of the slot's very size comes from `page`, which is queued (H4).
    #[inline(always)]
    pub(super) fn aim_at(&self, page: &'static Page) {
        // SAFETY: aim_of() stays within the table.
        let entry = unsafe { self.direct.get_unchecked(page.aim.get() as usize) };
        entry.set(page);
    }

    pub(super) fn set_first(&self, class: usize, page: &'static Page) {
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
    pub(super) fn retire_full(&self, page: &'static Page) {
        let asked = page
            .remote
            .compare_exchange(0, NOTIFY, Ordering::AcqRel, Ordering::Relaxed);
        if asked.is_err() {
            page.collect_remote();
            return;
        }
        self.dequeue(page);
        page.set_flag(FULL, true);
        self.list_full(page);
    }

    /// Puts a page that is marked full on its class's list of those.
    pub(super) fn list_full(&self, page: &'static Page) {
        let bin = &self.bins[page.class()];
        page.prev.set(ptr::null());
        page.next.set(bin.full.get());
        if let Some(old) = page_at(bin.full.get()) {
            old.prev.set(page);
        }
        bin.full.set(page);
    }

    /// A full page got a slot back.
    pub(super) fn unfull(&self, page: &'static Page) {
        let (prev, _) = unlink(page);
        if prev.is_none() {
            self.bins[page.class()].full.set(page.next.get());
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
    pub(super) fn release_page(&self, page: &'static Page) {
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
}

/// Joins the neighbours of a page in a list, and answers them; where it has none, the list's
/// end is the caller's to move.
fn unlink(page: &Page) -> (Option<&'static Page>, Option<&'static Page>) {
    let (prev, next) = (page_at(page.prev.get()), page_at(page.next.get()));
    if let Some(next) = next {
        next.prev.set(page.prev.get());
    }
    if let Some(prev) = prev {
        prev.next.set(page.next.get());
    }
    (prev, next)
}
