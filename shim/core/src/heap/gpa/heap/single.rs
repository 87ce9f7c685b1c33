//! Blocks that have a run of their own.
//!
//! # Concurrency
//! The owner of a singleton is who holds its block.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::Ordering;

use pageshim_wire::process::class;

use super::Heap;
use crate::heap::gpa::block::Block;
use crate::heap::gpa::classes::{SINGLETON, SLICE_BYTES, SLICE_SHIFT};
use crate::heap::gpa::page::{Page, RECORDS, SINGLE};
use crate::sys;

impl Heap {
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

    pub(super) fn give_single(&self, page: &'static Page) {
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
}
