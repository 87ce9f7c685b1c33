//! What one thread counts: its region of the shared state.
//!
//! # Design
//! Every counter has one writer, so a plain load and store suffice. The bytes a
//! thread has allocated and not freed are pending, as a high and how far below it
//! they are now (`PENDING_*`), so that one subtraction and its carry tell whether
//! there is a new high. They are added to the process's total when the high passes
//! [`PUBLISH_BYTES`] or lies that far back: the peak is exact for one thread and off
//! by at most that much for each further one.
//!
//! # Concurrency
//! Relaxed throughout; readers sum over threads and accept a moment's skew.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_wire::layout::{COUNTERS_BYTES, THREAD_HEADER_BYTES};
use pageshim_wire::process::word as process_word;
use pageshim_wire::thread::{Api, CLASS_COUNTER_WORDS, class_word, site_word, word};

use crate::state::State;

mod counters;
mod layers;

mod sampled;

pub use counters::Counters;
pub use sampled::Sample;

/// Net bytes a thread may hold back from the process's total.
pub const PUBLISH_BYTES: u64 = 64 * 1024;

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

    /// The counters, when counting; looked up once for several additions.
    #[inline(always)]
    pub fn counters(&self) -> Option<Counters> {
        NonNull::new(self.region.get().cast()).map(Counters)
    }

    /// [`Track::counters`] of a thread known to count.
    ///
    /// # Safety
    /// [`Track::is_set`].
    #[inline(always)]
    pub unsafe fn counters_unchecked(&self) -> Counters {
        // SAFETY: the caller's duty.
        Counters(unsafe { NonNull::new_unchecked(self.region.get().cast()) })
    }

    #[inline(always)]
    fn at(&self, index: usize) -> &AtomicU64 {
        // SAFETY: set_region()'s caller vouched for the region; only called when it is set.
        unsafe { &*self.region.get().add(index) }
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
        if let Some(counters) = self.counters() {
            counters.add(index, amount);
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
    pub fn allocated(&self, state: &State, entry: &Entry, api: Api, address: usize) {
        let Some(counters) = self.counters() else {
            return;
        };
        counters.came(entry);
        counters.came_by(api);
        self.single_came(entry);
        self.note_last(address);
        if counters.grew(entry.requested) {
            self.publish(state);
        }
    }

    /// Counts a block at `address` that is about to be freed.
    pub fn freed(&self, state: &State, entry: &Entry, birth: u64, address: usize) {
        let Some(counters) = self.counters() else {
            return;
        };
        let temporary = self.is_last(address);
        counters.went(entry, temporary);
        self.single_went(entry, temporary);
        counters.lived(entry.site, birth, state.tick());
        if counters.shrank(entry.requested) {
            self.publish(state);
        }
    }

    /// Remembers the thread's newest block.
    #[inline(always)]
    pub fn note_last(&self, address: usize) {
        self.last.set(address);
    }

    /// True for the thread's newest block.
    #[inline(always)]
    pub fn is_last(&self, address: usize) -> bool {
        self.last.get() == address
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

    /// [`Track::publish`] when a free has brought it about.
    pub fn publish_if_far(&self, state: &State) {
        if self.get(word::PENDING_ROOM) > PUBLISH_BYTES {
            self.publish(state);
        }
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
        let most_blocks = self.get_signed(word::BLOCKS_HIGH);
        let room = self.get_signed(word::PENDING_ROOM);
        let sum = self.get_signed(word::PENDING_HIGH) - room;
        let count = most_blocks - self.get_signed(word::BLOCKS_ROOM);
        for index in [
            word::PENDING_ROOM,
            word::BLOCKS_ROOM,
            word::BLOCKS_HIGH,
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
        self.publish_pages(state, most_blocks, count);
    }

    /// Counts OS pages a site was the first to carve.
    pub fn touched(&self, site: u32, os_pages: u64) {
        self.bump(Self::site(site) + site_word::FIRST_TOUCHES, os_pages);
    }

    /// Stops counting: the region is another process's now.
    pub fn stop(&self) {
        self.region.set(ptr::null_mut());
    }

    /// Forgets what is pending; the caller has set the totals itself.
    pub fn clear_pending(&self) {
        for index in word::PENDING_ROOM..=word::PENDING_HIGH_BLOCKS {
            self.set(index, 0);
        }
        self.set(word::BLOCKS_HIGH, 0);
        let further = self.further_pages();
        self.set(word::FURTHER_PUBLISHED, further.cast_unsigned());
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
        balance(word::SINGLE_PAGES, word::SINGLE_PAGES_FREED);
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
    pub fn inherit(&self, index: usize, site: u32, bytes: u64) {
        let class = Self::class(index);
        self.bump(class + class_word::ALLOCATIONS, 1);
        self.bump(class + class_word::ALLOCATED_BYTES, bytes);
        self.inherit_single(index, bytes);
        if site != 0 {
            let site = Self::site(site);
            self.bump(site + site_word::ALLOCATIONS, 1);
            self.bump(site + site_word::ALLOCATED_BYTES, bytes);
        }
    }
}
