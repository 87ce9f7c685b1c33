//! Where a class's next free slot comes from: pages of the queue, heaps that nobody
//! holds, the spaces.
//!
//! # Concurrency
//! The owner only (H1).

use core::ptr;
use core::sync::atomic::Ordering;

use pageshim_wire::process::{Misuse, word};

use super::heirs::IDLE_HEAPS;
use super::{Heap, aim_of, page_at};
use crate::heap::gpa::classes::{SLICE_SHIFT, magic, page_slices, page_slots, slot_bytes};
use crate::heap::gpa::page::{FULL, Page, RECORDS};
use crate::heap::gpa::space::{Run, Taste};

impl Heap {
    /// Finds or makes a page of `class` with a free slot and puts it first.
    #[cold]
    #[inline(never)]
    pub(super) fn refill(&self, class: usize) -> Option<&'static Page> {
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
    pub(super) fn mend(&self, page: &Page) {
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
    pub(super) fn take_run(&self, slices: u32, align: usize) -> Option<Run> {
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
}
