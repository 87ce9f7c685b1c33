//! Free memory that goes back to the kernel.
//!
//! # Concurrency
//! The lock is dropped around the system calls.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use super::{SETTLED, Space};
use crate::heap::gpa::areas;
use crate::heap::gpa::classes::SLICE_SHIFT;
use crate::heap::gpa::page::Page;

/// Free slices go back to the kernel this long after they were freed.
pub(in crate::heap::gpa) const PURGE_AFTER_MS: u64 = 1000;
/// Runs given back to the kernel between two holds of the lock.
const BATCH: usize = 32;

impl Space {
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
}
