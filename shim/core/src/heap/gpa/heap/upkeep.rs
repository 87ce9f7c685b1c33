//! What a heap does now and then: take in what other threads freed, give back what
//! was not needed.
//!
//! # Design
//! Slow paths come by here, and act twice a second, and sooner after a sweep that
//! gave much back and has more to look at. An owner that takes no slow path while
//! much memory waits (one that allocates and frees the same few slots) is called by
//! its bell.
//!
//! # Concurrency
//! The owner only (H1).

use core::cell::Cell;
use core::ptr;

use super::{Bin, Heap, SLOT_CLASSES, all_heaps, page_at};
use crate::heap::gpa::page::{FULL, Page};
use crate::heap::gpa::space::PURGE_AFTER_MS;
use crate::sys;

/// Pages looked at in one sweep.
const SWEEP_PAGES: usize = 4096;
/// Until the next sweep when the last one found nothing more to do.
const AGAIN_AFTER_MS: u64 = PURGE_AFTER_MS / 2;
/// The same after one that had much to give back.
const MORE_AFTER_MS: u64 = 50;
/// Free memory that is worth the owner's attention until it went back.
const RESTLESS_BYTES: usize = 16 << 20;

impl Heap {
    /// Sets the bit [`Heap::BELL`] there when much free memory waits to go back, for
    /// an owner whose fast paths would never come by [`Heap::upkeep`].
    pub fn set_bell(&self, bell: Option<&'static Cell<u8>>) {
        self.bell.set(bell);
    }

    /// See [`Heap::set_bell`].
    pub const BELL: u8 = 0x80;

    #[inline]
    pub(super) fn ring(&self, waiting_bytes: usize) {
        if waiting_bytes > RESTLESS_BYTES
            && let Some(bell) = self.bell.get()
        {
            bell.set(bell.get() | Self::BELL);
        }
    }

    /// What slow paths do now and then, for an owner that takes none; false
    /// when nothing is left that should bring it here again soon.
    pub fn upkeep(&self) -> bool {
        self.maintain();
        self.spaces.dirty_bytes() > RESTLESS_BYTES
    }

    /// From slow paths, acting now and then: what other threads freed is taken in;
    /// spare pages and free slices that were not needed go back.
    #[inline]
    pub(super) fn maintain(&self) {
        let now = sys::coarse_ms();
        if now >= self.next_maintenance_ms.get() {
            self.maintain_now(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn maintain_now(&self, now: u64) {
        self.release_spares();
        self.drain_delayed();
        let pause = if self.sweep() {
            MORE_AFTER_MS
        } else {
            AGAIN_AFTER_MS
        };
        self.next_maintenance_ms.set(now + pause);
        self.spaces.purge(now.saturating_sub(PURGE_AFTER_MS));
    }

    /// Takes in what other threads freed into pages that wait in queues, and gives
    /// back those that became empty. Each time a bounded number of pages: a queue's
    /// visited part goes to its end, and the next sweep begins with the next class.
    /// True when it gave pages back and did not come round: there may be many more.
    fn sweep(&self) -> bool {
        let (mut left, mut released) = (SWEEP_PAGES, 0);
        for turn in 0..SLOT_CLASSES {
            let class = (self.sweep_from.get() as usize + turn) % SLOT_CLASSES;
            released += self.sweep_class(class, &mut left);
            if left == 0 {
                self.sweep_from.set(u32::try_from(class).unwrap_or(0) + 1);
                return released > 0;
            }
        }
        false
    }

    /// Answers how many pages it gave back.
    fn sweep_class(&self, class: usize, left: &mut usize) -> usize {
        let bin = &self.bins[class];
        let Some(last) = page_at(bin.last.get()) else {
            return 0;
        };
        let mut released = 0;
        // The first page stays first: it is the one in use.
        let mut next = page_at(bin.first.get().next.get());
        while let Some(page) = next
            && *left > 0
        {
            *left -= 1;
            next = page_at(page.next.get());
            page.collect_remote();
            if page.used.get() == 0 {
                self.release_page(page);
                released += 1;
            } else if *left == 0 && !ptr::eq(page, last) {
                self.rotate(bin, page);
            }
        }
        released
    }

    /// Moves the pages behind a queue's first, up to `page`, to its end.
    fn rotate(&self, bin: &Bin, page: &'static Page) {
        let first = bin.first.get();
        let (Some(moved), Some(rest)) = (page_at(first.next.get()), page_at(page.next.get()))
        else {
            return;
        };
        let Some(last) = page_at(bin.last.get()) else {
            return;
        };
        first.next.set(rest);
        rest.prev.set(first);
        last.next.set(moved);
        moved.prev.set(last);
        page.next.set(ptr::null());
        bin.last.set(page);
    }

    /// Gives spare pages back; answers nothing, the space's purge counts.
    fn release_spares(&self) {
        for (class, bin) in self.bins.iter().enumerate() {
            for spare in &bin.spares {
                let Some(page) = page_at(spare.replace(ptr::null())) else {
                    continue;
                };
                let ours = page.owner_heap() == self.address() && page.class() == class;
                let alone = ptr::eq(bin.last.get(), page) && ptr::eq(bin.first.get(), page);
                if ours && page.used.get() == 0 && page.flags() & FULL == 0 && !alone {
                    self.release_page(page);
                }
            }
        }
    }

    /// Gives back everything that serves no block now; answers the bytes returned
    /// to the kernel.
    pub fn trim(&self) -> usize {
        let kin = |heap: &&Self| ptr::eq(heap.spaces, self.spaces) && !ptr::eq(*heap, self);
        all_heaps().filter(kin).for_each(|heap| {
            self.absorb(heap);
        });
        self.drain_delayed();
        self.for_each_page(|page| {
            if page.flags() & FULL == 0 {
                page.collect_remote();
            }
        });
        self.release_empty();
        self.spaces.purge(u64::MAX - 1)
    }

    pub(super) fn release_empty(&self) {
        for bin in &self.bins {
            let mut next = page_at(bin.last.get()).map(|_| bin.first.get());
            while let Some(page) = next {
                next = page_at(page.next.get());
                if page.used.get() == 0 {
                    self.release_page(page);
                }
            }
        }
    }

    /// Visits every page of this heap.
    pub(super) fn for_each_page(&self, mut visit: impl FnMut(&'static Page)) {
        for bin in &self.bins {
            let queue = page_at(bin.last.get()).map(|_| bin.first.get());
            for start in [queue, page_at(bin.full.get())] {
                let mut next = start;
                while let Some(page) = next {
                    next = page_at(page.next.get());
                    visit(page);
                }
            }
        }
    }
}
