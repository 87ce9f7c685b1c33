//! Freed blocks: how long their memory waits, and whether somebody wrote to it.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use super::{Debug, Entry, FREED, Inner, Past, QUARANTINE, REGION, REPORTED, RETIRED, STALE};

/// Blocks found written after their free, to be reported once no lock is held.
#[derive(Debug, Default)]
pub struct Stale {
    found: [Option<Past>; 16],
    used: usize,
}

impl Stale {
    fn is_full(&self) -> bool {
        self.used == self.found.len()
    }

    fn push(&mut self, past: Past) {
        if let Some(room) = self.found.get_mut(self.used) {
            *room = Some(past);
            self.used += 1;
        }
    }

    /// The blocks.
    pub fn iter(&self) -> impl Iterator<Item = &Past> {
        self.found.iter().flatten()
    }
}

impl Debug {
    /// Queues a region; when the queue is full, the oldest leaves it.
    pub(super) fn quarantine(&self, inner: &mut Inner, region: usize, stale: &mut Stale) {
        if inner.ring_used == QUARANTINE {
            let oldest = inner.ring[inner.ring_first] as usize;
            inner.ring_first = (inner.ring_first + 1) % QUARANTINE;
            inner.ring_used -= 1;
            self.check_region(oldest, stale);
            self.retire(oldest);
        }
        let at = (inner.ring_first + inner.ring_used) % QUARANTINE;
        inner.ring[at] = u32::try_from(region).unwrap_or(0);
        inner.ring_used += 1;
    }

    fn retire(&self, region: usize) {
        self.counter(region).store(RETIRED, Ordering::Relaxed);
        let at = self.base.load(Ordering::Relaxed) + region * REGION;
        // SAFETY: all blocks of the region are freed.
        unsafe { self.pages.purge(at, REGION) };
    }

    fn check_region(&self, region: usize, stale: &mut Stale) {
        let from = self.base.load(Ordering::Relaxed) + region * REGION;
        let to = from + REGION;
        let count = self.count.load(Ordering::Relaxed);
        for index in self.rank(from).saturating_sub(1)..count {
            let entry = self.entry(index);
            if entry.address.load(Ordering::Relaxed) >= to {
                return;
            }
            Self::check(entry, from, to, stale);
        }
    }

    /// Reports a freed block once when its bytes within `from..to` have changed.
    fn check(entry: &Entry, from: usize, to: usize, stale: &mut Stale) {
        let begins = entry.address.load(Ordering::Relaxed);
        let ends = begins + entry.requested.load(Ordering::Relaxed);
        if entry.family.load(Ordering::Relaxed) & FREED == 0
            || stale.is_full()
            || Self::holds_only(begins.max(from), ends.min(to), STALE)
        {
            return;
        }
        if entry.family.fetch_or(REPORTED, Ordering::Relaxed) & REPORTED == 0 {
            stale.push(Self::past_of(entry));
        }
    }

    /// Checks every freed block whose memory is still there.
    pub fn check_all(&self, stale: &mut Stale) {
        let base = self.base.load(Ordering::Relaxed);
        for index in 0..self.count.load(Ordering::Acquire) {
            let entry = self.entry(index);
            let begins = entry.address.load(Ordering::Relaxed) - base;
            let ends = begins + entry.requested.load(Ordering::Relaxed);
            for region in Self::regions(begins, ends) {
                if self.counter(region).load(Ordering::Relaxed) != RETIRED {
                    let from = base + region * REGION;
                    Self::check(entry, from, from + REGION, stale);
                }
            }
        }
    }
}
