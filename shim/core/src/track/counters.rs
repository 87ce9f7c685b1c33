//! A thread's counters as an allocation or a free adds to them.
//!
//! # Design
//! Nobody else writes these words, so an addition is one plain instruction: readers
//! are other processes, which an atomic one would not help.
#![allow(unsafe_code)]

#[cfg(not(miri))]
use core::arch::asm;
use core::ptr::NonNull;

use pageshim_wire::process::ms_from_tick;
use pageshim_wire::thread::{
    Api, BLOCKS_STEP, CLASS_COUNTER_WORDS, class_word, lifetime_bucket, packed_bytes, site_word,
    word,
};

use super::{Entry, PUBLISH_BYTES, Track};

const _: () = assert!(
    class_word::ALLOCATED_BYTES == class_word::ALLOCATIONS + 1
        && class_word::FREED_BYTES == class_word::FREES + 1
        && site_word::ALLOCATED_BYTES == site_word::ALLOCATIONS + 1
        && site_word::FREED_BYTES == site_word::FREES + 1
);

/// The words of a thread's region, to add to.
#[derive(Clone, Copy, Debug)]
pub struct Counters(pub(super) NonNull<u64>);

impl Counters {
    #[inline(always)]
    fn word(self, index: usize) -> *mut u64 {
        // SAFETY: Track::set_region()'s caller vouched for the region.
        unsafe { self.0.as_ptr().add(index) }
    }

    #[inline(always)]
    pub(super) fn add(self, index: usize, amount: u64) {
        let word = self.word(index);
        // SAFETY: as above; no other thread of this process touches the word now.
        unsafe { *word = (*word).wrapping_add(amount) };
    }

    /// Adds 1 and `amount` to words `FIRST` and `FIRST + 1` behind word `from`. By hand,
    /// because the compiler would add to neighbours by vector, which takes three times
    /// the instructions.
    #[inline(always)]
    fn add_pair<const FIRST: usize>(self, from: usize, amount: u64) {
        #[cfg(not(miri))]
        // SAFETY: as in add().
        unsafe {
            asm!(
                "inc qword ptr [{region} + {from} + {first}]",
                "add qword ptr [{region} + {from} + {first} + 8], {amount}",
                region = in(reg) self.0.as_ptr(),
                from = in(reg) from * 8,
                first = const FIRST * 8,
                amount = in(reg) amount,
                options(nostack),
            );
        }
        #[cfg(miri)]
        {
            self.add(from + FIRST, 1);
            self.add(from + FIRST + 1, amount);
        }
    }

    /// Counts a block in its class: all that count mode keeps.
    #[inline(always)]
    pub fn came_to_class(self, class: usize, requested: usize) {
        const FIRST: usize = word::CLASSES + class_word::ALLOCATIONS;
        self.add_pair::<FIRST>(class * CLASS_COUNTER_WORDS, requested as u64);
    }

    /// Counts a free in its class.
    #[inline(always)]
    pub fn went_from_class(self, class: usize, requested: usize) {
        const FIRST: usize = word::CLASSES + class_word::FREES;
        self.add_pair::<FIRST>(class * CLASS_COUNTER_WORDS, requested as u64);
    }

    /// Counts an allocation's [`Api`].
    #[inline(always)]
    pub fn came_by(self, api: Api) {
        if api != Api::Malloc {
            self.add(word::API + api as usize, 1);
        }
    }

    /// Counts a block in its class and site.
    #[inline(always)]
    pub fn came(self, entry: &Entry) {
        self.came_to_class(entry.class, entry.requested);
        self.add(word::PACKED, packed_bytes(entry.requested as u64));
        if entry.site != 0 {
            let site = Track::site(entry.site);
            self.add_pair::<{ site_word::ALLOCATIONS }>(site, entry.requested as u64);
            self.add(site + site_word::ROUNDING_BYTES, entry.slack as u64);
        }
    }

    /// Counts a free in its class and site; `temporary` when nothing was allocated since.
    #[inline(always)]
    pub fn went(self, entry: &Entry, temporary: bool) {
        self.went_from_class(entry.class, entry.requested);
        if entry.site != 0 {
            let site = Track::site(entry.site);
            self.add_pair::<{ site_word::FREES }>(site, entry.requested as u64);
        }
        if temporary {
            self.add(word::TEMPORARY, 1);
            // An arena takes its last block back.
            self.add(word::PACKED_BACK, packed_bytes(entry.requested as u64));
            self.add(Track::site(entry.site) + site_word::TEMPORARY, 1);
        }
    }

    /// Counts how long a block lived. Not within a tick: that is the rest of all frees.
    #[inline(always)]
    pub fn lived(self, site: u32, birth: u64, now: u64) {
        if now == birth {
            return;
        }
        let ms = ms_from_tick(now).saturating_sub(ms_from_tick(birth));
        self.add(word::LIFETIME + lifetime_bucket(ms), 1);
        self.add(word::LIFETIME_SUM_MS, ms);
        if site != 0 {
            self.add(Track::site(site) + site_word::LIFETIME_MS, ms);
        }
    }

    /// Moves what is pending up; true when it is time to publish.
    #[inline(always)]
    pub fn grew(self, requested: usize) -> bool {
        self.grew_by(requested as u64, 1)
    }

    /// [`Counters::grew`] by several blocks.
    #[inline(always)]
    pub(super) fn grew_by(self, bytes: u64, blocks: u64) -> bool {
        self.more_blocks(blocks);
        let room = self.word(word::PENDING_ROOM);
        // SAFETY: as in add().
        let (left, short) = unsafe { *room }.overflowing_sub(bytes);
        // SAFETY: as in add().
        unsafe { *room = left };
        short && self.rose(left.wrapping_neg())
    }

    /// Moves the high of blocks up, in steps: it is what the page layer would need.
    #[inline(always)]
    fn more_blocks(self, blocks: u64) {
        let room = self.word(word::BLOCKS_ROOM);
        // SAFETY: as in add().
        let (left, short) = unsafe { *room }.overflowing_sub(blocks);
        // SAFETY: as in add().
        unsafe { *room = left };
        if short {
            cold();
            self.add(
                word::BLOCKS_HIGH,
                BLOCKS_STEP.wrapping_sub(left.wrapping_add(1)),
            );
            // SAFETY: as in add().
            unsafe { *room = BLOCKS_STEP - 1 };
        }
    }

    /// Net live blocks since the last publication.
    #[inline(always)]
    fn pending_blocks(self) -> u64 {
        // SAFETY: as in add().
        unsafe { (*self.word(word::BLOCKS_HIGH)).wrapping_sub(*self.word(word::BLOCKS_ROOM)) }
    }

    /// A new high, `more` above the last.
    #[inline(always)]
    fn rose(self, more: u64) -> bool {
        // SAFETY: as in add().
        unsafe {
            *self.word(word::PENDING_ROOM) = 0;
            let high = (*self.word(word::PENDING_HIGH)).wrapping_add(more);
            *self.word(word::PENDING_HIGH) = high;
            *self.word(word::PENDING_HIGH_BLOCKS) = self.pending_blocks();
            high > PUBLISH_BYTES
        }
    }

    /// Moves what is pending down; true when it is time to publish.
    #[inline(always)]
    pub fn shrank(self, requested: usize) -> bool {
        self.shrank_by(requested as u64, 1)
    }

    /// [`Counters::shrank`] by several blocks.
    #[inline(always)]
    pub(super) fn shrank_by(self, bytes: u64, blocks: u64) -> bool {
        self.add(word::BLOCKS_ROOM, blocks);
        self.add(word::PENDING_ROOM, bytes);
        // SAFETY: as in add().
        unsafe { *self.word(word::PENDING_ROOM) > PUBLISH_BYTES }
    }
}

/// Tells the compiler that one seldom comes here.
#[cold]
const fn cold() {}

#[cfg(test)]
mod tests {
    use super::*;
    use pageshim_wire::layout::THREAD_HEADER_BYTES;
    use std::vec;

    // Goal: what is pending, its high and when to publish are those of a plain sum. Method:
    // random steps against a model that keeps sum and high apart.
    #[test]
    fn pending_bytes_follow_the_plain_sum() {
        let mut words = vec![0u64; (THREAD_HEADER_BYTES / 8) as usize];
        let track = Track::new();
        // SAFETY: nothing behind the header's first words is touched here.
        unsafe { track.set_region(words.as_mut_ptr().cast()) };
        let counters = track.counters().expect("set");
        let (mut sum, mut high, mut blocks, mut at_high) = (0i64, 0i64, 0i64, 0i64);
        let mut most = 0i64;
        let mut random = 1u64;
        for step in 0..200_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bytes = (random >> 50) as usize;
            let limit = PUBLISH_BYTES.cast_signed();
            let due = if random >> 40 & 1 == 0 {
                (sum, blocks) = (sum + bytes as i64, blocks + 1);
                most = most.max(blocks);
                let rises = sum > high;
                if rises {
                    (high, at_high) = (sum, blocks);
                }
                assert_eq!(counters.grew(bytes), rises && high > limit, "step {step}");
                rises && high > limit
            } else {
                (sum, blocks) = (sum - bytes as i64, blocks - 1);
                assert_eq!(counters.shrank(bytes), high - sum > limit, "step {step}");
                high - sum > limit
            };
            let room = track.get_signed(word::PENDING_ROOM);
            assert_eq!(track.get_signed(word::PENDING_HIGH) - room, sum);
            assert_eq!(track.get_signed(word::PENDING_HIGH), high);
            let above = track.get_signed(word::BLOCKS_HIGH) - most;
            assert_eq!(counters.pending_blocks().cast_signed(), blocks);
            assert!((0..BLOCKS_STEP as i64).contains(&above), "step {step}");
            assert_eq!(track.get_signed(word::PENDING_HIGH_BLOCKS), at_high);
            if due {
                track.clear_pending();
                (sum, high, blocks, at_high) = (0, 0, 0, 0);
                most = 0;
            }
        }
    }
}
