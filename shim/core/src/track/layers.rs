//! What the same requests would cost on the page layer and in an arena, where the usual
//! counters do not say.
//!
//! # Design
//! On the page layer each block has OS pages of its own. All blocks of a class of slots have
//! equally many, because every multiple of an OS page is a slot size; so the class counters
//! say how many pages are live, and only singletons are counted here, on their slow path. How
//! many were live at most is known from the high of blocks, moved by every allocation, and
//! from the further pages at each publication.
//!
//! An arena takes back only what was allocated last: what the thread's last block gives back
//! is counted. Where another thread allocated in between, a real arena takes less back than this
//! says.

use core::sync::atomic::Ordering;

use pageshim_wire::process::word as process_word;
use pageshim_wire::thread::{LARGE_BYTES, class_word, packed_bytes, word};

use super::{Entry, Track};
use crate::OS_PAGE_BYTES;
use crate::heap::gpa::classes::{SINGLETON, SLOT_CLASSES, class_of, slot_bytes};
use crate::state::State;

const PAGE: u64 = OS_PAGE_BYTES as u64;
/// The first class whose blocks are more than one OS page.
const FIRST_FURTHER: usize = class_of(OS_PAGE_BYTES + 1);
/// Blocks of at least so many OS pages are moved by the kernel when they grow on the page layer.
const MOVED_FROM: u64 = 16;

/// OS pages of a block beyond its first.
const fn further(requested: u64) -> u64 {
    requested.saturating_sub(1) / PAGE
}

impl Track {
    /// OS pages beyond the first of all live blocks, as far as this thread's counters go.
    pub fn further_pages(&self) -> i64 {
        if !self.is_set() {
            return 0;
        }
        let singles = self.get_signed(word::SINGLE_PAGES);
        let singles = singles - self.get_signed(word::SINGLE_PAGES_FREED);
        let pages = (FIRST_FURTHER..SLOT_CLASSES).map(|class| {
            let at = Self::class(class);
            let blocks = self.get_signed(at + class_word::ALLOCATIONS);
            let live = blocks - self.get_signed(at + class_word::FREES);
            live * further(slot_bytes(class) as u64).cast_signed()
        });
        pages.fold(singles, i64::wrapping_add)
    }

    /// Adds what is pending to the process's pages: `most` and `count` are its blocks.
    pub(super) fn publish_pages(&self, state: &State, most: i64, count: i64) {
        let (Some(total), Some(peak)) = (
            state.word(process_word::PUBLISHED_PAGES),
            state.word(process_word::PEAK_PAGES),
        ) else {
            return;
        };
        let now = self.further_pages();
        let more = now - self.get_signed(word::FURTHER_PUBLISHED);
        self.set_signed(word::FURTHER_PUBLISHED, now);
        let sum = (count + more).cast_unsigned();
        let before = total.fetch_add(sum, Ordering::Relaxed).cast_signed();
        // Further pages as they were when blocks were most, or as they are: the allocation of a
        // large block is what brings a publication about.
        let reached = before.saturating_add(most.max(count + more)).max(0);
        peak.fetch_max(reached.cast_unsigned(), Ordering::Relaxed);
    }

    /// Counts a singleton's pages.
    pub(super) fn single_came(&self, entry: &Entry) {
        if entry.class != SINGLETON {
            return;
        }
        let requested = entry.requested as u64;
        self.bump(word::SINGLE_PAGES, further(requested));
        if requested >= LARGE_BYTES {
            self.bump(word::LARGE, 1);
        }
    }

    /// Counts that a singleton's pages go, and what an arena was filled to before.
    pub(super) fn single_went(&self, entry: &Entry, temporary: bool) {
        if entry.class != SINGLETON {
            return;
        }
        let requested = entry.requested as u64;
        self.bump(word::SINGLE_PAGES_FREED, further(requested));
        if requested >= LARGE_BYTES {
            self.bump(word::LARGE_FREES, 1);
        }
        if temporary && requested >= PAGE {
            // The block is already taken off.
            let filled = self.filled().wrapping_add(packed_bytes(requested));
            let most = self.get(word::PACKED_HIGH).cast_signed();
            let most = most.max(filled.cast_signed()).max(0);
            self.set_signed(word::PACKED_HIGH, most);
        }
    }

    /// What this thread's blocks fill an arena to.
    fn filled(&self) -> u64 {
        self.get(word::PACKED)
            .wrapping_sub(self.get(word::PACKED_BACK))
    }

    pub(super) fn inherit_single(&self, class: usize, bytes: u64) {
        self.bump(word::PACKED, packed_bytes(bytes));
        if class == SINGLETON {
            self.bump(word::SINGLE_PAGES, further(bytes));
        }
    }

    /// Counts a reallocation from `old` to `new` requested bytes, for the layers that would
    /// have done it otherwise than by an allocation and a free. `moved`: it was done so here.
    /// `last`: the block was the thread's newest. Answers what goes on being the newest block,
    /// if not this one: a block that shrinks in an arena stays where it is.
    pub fn resized(&self, old: usize, new: usize, moved: bool, last: bool) -> Option<usize> {
        let (before, after) = (further(old as u64) + 1, further(new as u64) + 1);
        let calls: i64 = if before == after {
            0
        } else if after < before {
            1
        } else if before >= MOVED_FROM {
            3
        } else {
            2
        };
        self.bump(word::PAGE_CALLS, (calls - 2).cast_unsigned());
        let (old, new) = (packed_bytes(old as u64), packed_bytes(new as u64));
        if last {
            // In place, in an arena; what was done in place here is counted as the free of the last.
            let more = if moved { old } else { 0 };
            self.bump(word::PACKED_BACK, more);
        } else if new <= old {
            self.bump(word::PACKED_BACK, new);
            return Some(self.last.get());
        }
        None
    }

    /// [`Track::resized`] of a block that was moved: the newest block is the one at its new place,
    /// or, in an arena where it shrank, the one before. That is not known any more.
    pub fn moved(&self, old: usize, new: usize, last: bool) {
        let _ = self.resized(old, new, true, last);
    }

    /// A block of `requested` bytes is about to be copied. The kernel would move a large one's
    /// pages, so that both are never there: until [`Track::copied`] they do not count.
    pub fn copying(&self, requested: usize) {
        self.bump(word::SINGLE_PAGES_FREED, Self::moved_pages(requested));
    }

    /// Follows [`Track::copying`] and the free of the old block.
    pub fn copied(&self, requested: usize) {
        let pages = Self::moved_pages(requested);
        self.bump(word::SINGLE_PAGES_FREED, pages.wrapping_neg());
    }

    fn moved_pages(requested: usize) -> u64 {
        let pages = further(requested as u64);
        if pages + 1 >= MOVED_FROM { pages } else { 0 }
    }
}

#[cfg(test)]
mod tests;
