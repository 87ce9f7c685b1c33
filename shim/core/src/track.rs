//! What one thread counts: its region of the shared state.
//!
//! # Design
//! Every counter has one writer, so a plain load and store suffice. The bytes a
//! thread has allocated and not freed collect in `PENDING_*` words and are added
//! to the process's total when they pass [`PUBLISH_BYTES`] either way: the peak
//! is exact for one thread and off by at most that much for each further one.
//!
//! # Concurrency
//! Relaxed throughout; readers sum over threads and accept a moment's skew.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_wire::layout::{COUNTERS_BYTES, THREAD_HEADER_BYTES};
use pageshim_wire::process::{ms_from_tick, word as process_word};
use pageshim_wire::thread::{
    Api, CLASS_COUNTER_WORDS, class_word, lifetime_bucket, site_word, word,
};

use crate::OS_PAGE_BYTES;
use crate::state::State;

mod sampled;
pub use sampled::Sample;

/// Net bytes a thread may hold back from the process's total.
pub const PUBLISH_BYTES: i64 = 64 * 1024;

/// A block as the books see it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Size class.
    pub class: usize,
    /// Site.
    pub site: u32,
    /// Requested bytes.
    pub requested: usize,
    /// Usable minus requested.
    pub slack: usize,
}

/// A thread's counters. All zeros is "not counting".
#[derive(Debug)]
pub struct Track {
    region: Cell<*mut AtomicU64>,
    last: Cell<usize>,
}

impl Default for Track {
    fn default() -> Self {
        Self::new()
    }
}

impl Track {
    /// Not counting yet.
    pub const fn new() -> Self {
        Self {
            region: Cell::new(ptr::null_mut()),
            last: Cell::new(0),
        }
    }

    /// True once a region is set.
    pub fn is_set(&self) -> bool {
        !self.region.get().is_null()
    }

    /// The region, as an address.
    pub fn region(&self) -> usize {
        self.region.get().expose_provenance()
    }

    /// Starts counting in `region`.
    ///
    /// # Safety
    /// It has the layout of wire's thread region, for as many sites as ids are
    /// ever passed in, and this thread alone writes there.
    pub unsafe fn set_region(&self, region: *mut AtomicU64) {
        self.region.set(region);
    }

    #[inline(always)]
    fn at(&self, index: usize) -> &AtomicU64 {
        // SAFETY: set_region()'s caller vouched for the region; only called when it is set.
        unsafe { &*self.region.get().add(index) }
    }

    /// Adds as the only writer. Written so that it compiles to one instruction:
    /// readers are other processes, which an atomic here would not help.
    #[inline(always)]
    fn add(&self, index: usize, amount: u64) {
        // SAFETY: as in at(); no other thread of this process touches the word now.
        unsafe {
            let word = self.region.get().add(index).cast::<u64>();
            *word = (*word).wrapping_add(amount);
        }
    }

    /// Sets a header word of the region.
    pub fn set(&self, index: usize, value: u64) {
        if self.is_set() {
            self.at(index).store(value, Ordering::Relaxed);
        }
    }

    /// Reads a header word of the region.
    pub fn get(&self, index: usize) -> u64 {
        if self.is_set() {
            self.at(index).load(Ordering::Relaxed)
        } else {
            0
        }
    }

    /// Adds to a header word of the region.
    pub fn bump(&self, index: usize, amount: u64) {
        if self.is_set() {
            self.add(index, amount);
        }
    }

    #[inline(always)]
    fn site(site: u32) -> usize {
        let header = (THREAD_HEADER_BYTES / 8) as usize;
        header + site as usize * (COUNTERS_BYTES / 8) as usize
    }

    #[inline(always)]
    fn class(class: usize) -> usize {
        word::CLASSES + class * CLASS_COUNTER_WORDS
    }

    /// Counts a block that was just made at `address`.
    #[inline(always)]
    pub fn allocated(&self, state: &State, entry: &Entry, api: Api, address: usize) {
        if !self.is_set() {
            return;
        }
        let bytes = entry.requested as u64;
        let class = Self::class(entry.class);
        self.add(class + class_word::ALLOCATIONS, 1);
        self.add(class + class_word::ALLOCATED_BYTES, bytes);
        if api != Api::Malloc {
            self.add(word::API + api as usize, 1);
        }
        if entry.site != 0 {
            let site = Self::site(entry.site);
            self.add(site + site_word::ALLOCATIONS, 1);
            self.add(site + site_word::ALLOCATED_BYTES, bytes);
            self.add(site + site_word::ROUNDING_BYTES, entry.slack as u64);
            let pages = entry.requested.max(1).next_multiple_of(OS_PAGE_BYTES);
            self.add(site + site_word::PAGE_BYTES, pages as u64);
        }
        self.last.set(address);
        self.pend(state, entry.requested.cast_signed() as i64, 1);
    }

    /// Counts a block at `address` that is about to be freed.
    #[inline(always)]
    pub fn freed(&self, state: &State, entry: &Entry, birth: u64, address: usize) {
        if !self.is_set() {
            return;
        }
        let bytes = entry.requested as u64;
        let class = Self::class(entry.class);
        self.add(class + class_word::FREES, 1);
        self.add(class + class_word::FREED_BYTES, bytes);
        if entry.site != 0 {
            let site = Self::site(entry.site);
            self.add(site + site_word::FREES, 1);
            self.add(site + site_word::FREED_BYTES, bytes);
        }
        if self.last.get() == address {
            self.count_temporary(entry.site);
        }
        let now = state.tick();
        if now == birth {
            self.add(word::LIFETIME, 1);
        } else {
            self.count_lifetime(entry.site, now, birth);
        }
        self.pend(state, -(entry.requested.cast_signed() as i64), -1);
    }

    #[inline(always)]
    fn count_temporary(&self, site: u32) {
        self.add(word::TEMPORARY, 1);
        if site != 0 {
            self.add(Self::site(site) + site_word::TEMPORARY, 1);
        }
    }

    #[inline(never)]
    fn count_lifetime(&self, site: u32, now: u64, birth: u64) {
        let ms = ms_from_tick(now).saturating_sub(ms_from_tick(birth));
        self.add(word::LIFETIME + lifetime_bucket(ms), 1);
        self.add(word::LIFETIME_SUM_MS, ms);
        if site != 0 {
            self.add(Self::site(site) + site_word::LIFETIME_MS, ms);
        }
    }

    #[inline(always)]
    fn pend(&self, state: &State, bytes: i64, blocks: i64) {
        self.add(word::PENDING_BLOCKS, blocks.cast_unsigned());
        let sum = self.get_signed(word::PENDING_BYTES) + bytes;
        self.set_signed(word::PENDING_BYTES, sum);
        // A free cannot make a new high.
        if bytes >= 0 && sum > self.get_signed(word::PENDING_HIGH) {
            let count = self.get_signed(word::PENDING_BLOCKS);
            self.set_signed(word::PENDING_HIGH, sum);
            self.set_signed(word::PENDING_HIGH_BLOCKS, count);
        }
        let reach = sum.wrapping_add(PUBLISH_BYTES).cast_unsigned();
        if reach > 2 * PUBLISH_BYTES.cast_unsigned() {
            self.publish(state);
        }
    }

    #[inline(always)]
    fn get_signed(&self, index: usize) -> i64 {
        self.at(index).load(Ordering::Relaxed).cast_signed()
    }

    #[inline(always)]
    fn set_signed(&self, index: usize, value: i64) {
        self.at(index)
            .store(value.cast_unsigned(), Ordering::Relaxed);
    }

    /// Adds what is pending to the process's total and moves its peak.
    #[cold]
    #[inline(never)]
    pub fn publish(&self, state: &State) {
        if !self.is_set() {
            return;
        }
        let (Some(total), Some(blocks), Some(peak)) = (
            state.word(process_word::PUBLISHED_BYTES),
            state.word(process_word::PUBLISHED_BLOCKS),
            state.word(process_word::PEAK_BYTES),
        ) else {
            return;
        };
        let high = self.get_signed(word::PENDING_HIGH).max(0);
        let high_blocks = self.get_signed(word::PENDING_HIGH_BLOCKS);
        let (sum, count) = (
            self.get_signed(word::PENDING_BYTES),
            self.get_signed(word::PENDING_BLOCKS),
        );
        for index in [
            word::PENDING_BYTES,
            word::PENDING_BLOCKS,
            word::PENDING_HIGH,
            word::PENDING_HIGH_BLOCKS,
        ] {
            self.set_signed(index, 0);
        }
        let before = total.fetch_add(sum.cast_unsigned(), Ordering::Relaxed);
        let before_blocks = blocks.fetch_add(count.cast_unsigned(), Ordering::Relaxed);
        let reached = before
            .cast_signed()
            .saturating_add(high)
            .max(0)
            .cast_unsigned();
        if reached > peak.fetch_max(reached, Ordering::Relaxed) {
            let blocks_then = before_blocks.cast_signed().saturating_add(high_blocks);
            state.set(
                process_word::PEAK_BLOCKS,
                blocks_then.max(0).cast_unsigned(),
            );
            state.set(process_word::PEAK_TICK, state.tick());
        }
    }

    /// Stops counting: the region is another process's now.
    pub fn stop(&self) {
        self.region.set(ptr::null_mut());
    }

    /// Forgets what is pending; the caller has set the totals itself.
    pub fn clear_pending(&self) {
        for index in word::PENDING_BYTES..=word::PENDING_HIGH_BLOCKS {
            self.set(index, 0);
        }
    }

    /// In a child that inherited blocks nobody counted here: sets allocations of
    /// every class and site so that, over all threads, they equal the frees.
    /// Follow with [`Track::inherit`] for each live block, and they add up.
    pub fn begin_inherited<'a, T: Iterator<Item = &'a Self>>(
        &self,
        sites: u32,
        classes: usize,
        others: impl Fn() -> T,
    ) {
        let balance = |allocated, freed| self.balance(allocated, freed, others());
        for class in (0..classes).map(Self::class) {
            balance(class + class_word::ALLOCATIONS, class + class_word::FREES);
            balance(
                class + class_word::ALLOCATED_BYTES,
                class + class_word::FREED_BYTES,
            );
        }
        for site in (1..sites).map(Self::site) {
            balance(site + site_word::ALLOCATIONS, site + site_word::FREES);
            balance(
                site + site_word::ALLOCATED_BYTES,
                site + site_word::FREED_BYTES,
            );
        }
    }

    fn balance<'a>(&self, allocated: usize, freed: usize, others: impl Iterator<Item = &'a Self>) {
        let surplus = |track: &Self| track.get(freed).wrapping_sub(track.get(allocated));
        let sum = others.map(surplus).fold(0, u64::wrapping_add);
        self.set(allocated, self.get(freed).wrapping_add(sum));
    }

    /// Counts one live block that was inherited.
    pub fn inherit(&self, class: usize, site: u32, bytes: u64) {
        let class = Self::class(class);
        self.bump(class + class_word::ALLOCATIONS, 1);
        self.bump(class + class_word::ALLOCATED_BYTES, bytes);
        if site != 0 {
            let site = Self::site(site);
            self.bump(site + site_word::ALLOCATIONS, 1);
            self.bump(site + site_word::ALLOCATED_BYTES, bytes);
        }
    }
}
