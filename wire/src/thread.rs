//! A thread slot's region: counters that only its owner writes.
//!
//! # Design
//! All counters are monotone, so any reader may sum them over slots and any
//! moment's sum is meaningful: `live = allocated - freed`. A slot is handed on
//! when its thread ends; the next owner goes on counting where it stopped.
//! A free is counted by the thread that frees, under the site and class of the
//! block: one slot alone may show more frees than allocations, the sum over all
//! slots may not.

use crate::layout::THREAD_HEADER_BYTES;
use crate::process::CLASSES_MAX;

/// Word numbers in the thread header.
pub mod word {
    /// 0 never used, 1 in use, 2 free for the next thread.
    pub const STATE: usize = 0;
    /// Kernel thread id of the present or last owner.
    pub const TID: usize = 1;
    /// Owners so far.
    pub const GENERATION: usize = 2;
    /// Tick when the present owner began.
    pub const STARTED: usize = 3;
    /// Thread name, 16 bytes, NUL padded (2 words).
    pub const NAME: usize = 4;
    /// How far net live bytes not yet added to the header's PUBLISHED_BYTES are below
    /// PENDING_HIGH.
    pub const PENDING_ROOM: usize = 6;
    /// How far net live blocks not yet published are below BLOCKS_HIGH.
    pub const BLOCKS_ROOM: usize = 7;
    /// Most net live bytes since the last publication: peak = max(PEAK, PUBLISHED + this).
    pub const PENDING_HIGH: usize = 8;
    /// Net live blocks at that moment.
    pub const PENDING_HIGH_BLOCKS: usize = 9;
    /// Reallocations served in place.
    pub const REALLOC_IN_PLACE: usize = 10;
    /// Reallocations that moved.
    pub const REALLOC_MOVED: usize = 11;
    /// Frees by a thread that does not own the page.
    pub const REMOTE_FREES: usize = 12;
    /// Blocks freed before the thread's next allocation.
    pub const TEMPORARY: usize = 13;
    /// Stacks captured, frames in them, frames that were new.
    pub const STACKS: usize = 14;
    /// Frames of all stacks captured.
    pub const FRAMES: usize = 15;
    /// Frames that had to be unwound (not reused from the memo).
    pub const FRAMES_NEW: usize = 16;
    /// Allocations by [`super::Api`], malloc not included (it is the rest).
    pub const API: usize = 24;
    /// First of [`super::SYSCALLS`] pairs (count, ns).
    pub const SYSCALLS: usize = 40;
    /// First of [`super::LIFETIMES`] buckets. Bucket 0 is not counted: it is all frees that
    /// no other bucket has. Count mode keeps no lifetimes.
    pub const LIFETIME: usize = 80;
    /// At most [`super::BLOCKS_STEP`] above the most net live blocks since the last publication.
    pub const BLOCKS_HIGH: usize = 64;
    /// OS pages beyond the first of each live block, as last published (signed).
    pub const FURTHER_PUBLISHED: usize = 65;
    /// OS pages beyond the first of each singleton allocated.
    pub const SINGLE_PAGES: usize = 66;
    /// The same of singletons freed.
    pub const SINGLE_PAGES_FREED: usize = 67;
    /// Bytes that the blocks allocated take in an arena, see [`super::packed_bytes`]. Not
    /// counted in count mode, nor sampled.
    pub const PACKED: usize = 74;
    /// Bytes of those that an arena would have taken back, or not have needed: blocks freed before the
    /// thread's next allocation, reallocations in place (signed).
    pub const PACKED_BACK: usize = 68;
    /// Most bytes an arena would have been filled to when a singleton was freed so.
    pub const PACKED_HIGH: usize = 69;
    /// Calls to the kernel by which reallocations on the page layer differ from an allocation
    /// and a free (signed).
    pub const PAGE_CALLS: usize = 70;
    /// Allocations of at least [`super::LARGE_BYTES`].
    pub const LARGE: usize = 71;
    /// Frees of such blocks.
    pub const LARGE_FREES: usize = 73;
    /// Sum of lifetimes in ms.
    pub const LIFETIME_SUM_MS: usize = 79;
    /// First word of the class counters, [`super::CLASS_COUNTER_WORDS`] a class.
    pub const CLASSES: usize = 128;
}

/// Words per class: see [`class_word`].
pub const CLASS_COUNTER_WORDS: usize = 4;
/// Words of a class's counters.
pub mod class_word {
    /// Blocks allocated.
    pub const ALLOCATIONS: usize = 0;
    /// Requested bytes allocated.
    pub const ALLOCATED_BYTES: usize = 1;
    /// Blocks freed.
    pub const FREES: usize = 2;
    /// Requested bytes freed.
    pub const FREED_BYTES: usize = 3;
}

/// Words of a site's counters (one cache line).
pub mod site_word {
    /// Blocks allocated.
    pub const ALLOCATIONS: usize = 0;
    /// Requested bytes allocated.
    pub const ALLOCATED_BYTES: usize = 1;
    /// Blocks freed.
    pub const FREES: usize = 2;
    /// Requested bytes freed.
    pub const FREED_BYTES: usize = 3;
    /// Blocks freed before their thread's next allocation.
    pub const TEMPORARY: usize = 4;
    /// Sum of lifetimes of freed blocks, ms.
    pub const LIFETIME_MS: usize = 5;
    /// Usable minus requested bytes, over blocks allocated.
    pub const ROUNDING_BYTES: usize = 6;
    /// OS pages this site was the first to carve, in runs whose memory was clean (not in
    /// mode sampled, whose variances lie here).
    pub const FIRST_TOUCHES: usize = 7;
}

/// The family a call belongs to; index into the API words and metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Api {
    /// `malloc`.
    Malloc = 0,
    /// `calloc`.
    Calloc = 1,
    /// `realloc`, `reallocarray`: counted as a free of the old and an allocation of the new.
    Realloc = 2,
    /// `posix_memalign`, `aligned_alloc`, `memalign`, `valloc`, `pvalloc`.
    Aligned = 3,
    /// `operator new` in all forms.
    New = 4,
}
/// How many [`Api`]s there are.
pub const APIS: usize = 5;
/// Label of each [`Api`].
pub const API_NAMES: [&str; APIS] = ["malloc", "calloc", "realloc", "aligned", "new"];

/// System calls the layers make; pairs of words from [`word::SYSCALLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Syscall {
    /// `mmap`.
    Mmap = 0,
    /// `munmap`.
    Munmap = 1,
    /// `madvise`.
    Madvise = 2,
    /// `mremap`.
    Mremap = 3,
    /// `mprotect`.
    Mprotect = 4,
    /// Everything else the shim asks of the kernel (socket, clock, gettid).
    Other = 5,
}
/// How many [`Syscall`]s are counted.
pub const SYSCALLS: usize = 6;
/// Label of each [`Syscall`].
pub const SYSCALL_NAMES: [&str; SYSCALLS] =
    ["mmap", "munmap", "madvise", "mremap", "mprotect", "other"];

/// Buckets of the lifetime histogram.
pub const LIFETIMES: usize = 24;

/// The high of live blocks is moved in such steps.
pub const BLOCKS_STEP: u64 = 4;
/// From this size on, a malloc that maps large blocks apart does so.
pub const LARGE_BYTES: u64 = 128 * 1024;
/// Bytes of an arena's header of a block.
pub const PACKED_HEADER: u64 = 16;

/// Bytes that a block takes in an arena: itself and its header, in units of 16. A block of
/// no bytes takes one unit more than this says.
pub const fn packed_bytes(requested: u64) -> u64 {
    (requested.wrapping_add(PACKED_HEADER + 15)) & !15
}

/// The lifetime bucket of `ms`: 0 for under one tick, else `1 + log2(ms / 4)`,
/// so bucket `i >= 1` holds lifetimes in `[4 * 2^(i-1), 4 * 2^i)` ms.
pub const fn lifetime_bucket(ms: u64) -> usize {
    let ticks = ms / 4;
    if ticks == 0 {
        return 0;
    }
    let bucket = 1 + ticks.ilog2() as usize;
    if bucket < LIFETIMES {
        bucket
    } else {
        LIFETIMES - 1
    }
}

/// Upper bound in ms of lifetime bucket `index` (the last has none).
pub const fn lifetime_bound_ms(index: usize) -> u64 {
    4 << index
}

const _: () = assert!(
    (word::CLASSES + CLASSES_MAX * CLASS_COUNTER_WORDS) * 8 <= THREAD_HEADER_BYTES as usize
);
const _: () = assert!(word::LIFETIME + LIFETIMES <= word::CLASSES);
const _: () = assert!(word::SYSCALLS + 2 * SYSCALLS <= word::LIFETIME_SUM_MS);

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: bucket and bound agree. Method: each bound falls into the next bucket.
    #[test]
    fn lifetime_buckets_meet_their_bounds() {
        for index in 0..LIFETIMES - 1 {
            let bound = lifetime_bound_ms(index);
            assert_eq!(lifetime_bucket(bound - 1), index, "just under {bound}");
            assert_eq!(lifetime_bucket(bound), index + 1, "at {bound}");
        }
        assert_eq!(lifetime_bucket(u64::MAX), LIFETIMES - 1);
    }
}
