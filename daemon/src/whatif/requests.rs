//! What a process asked for, as far as its counters say.

use pageshim_wire::process::word;

use crate::books::header::Header;
use crate::books::report::{Amount, Process};
use crate::books::threads::ThreadSums;

/// Bytes of an OS page.
pub const OS_PAGE: u64 = 4096;

/// A size class: its slots and the blocks that went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Bytes of a slot; 0 for singletons.
    pub slot_bytes: u64,
    /// All blocks ever.
    pub allocated: Amount,
    /// Blocks now.
    pub live: Amount,
}

/// What an arena would hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Bytes it is filled to.
    pub filled: u64,
    /// The most it was filled to.
    pub most: u64,
}

/// The counters that the costs come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Classes with blocks. On heaps other than gpa all are singletons.
    pub classes: Vec<Class>,
    /// OS pages with one block each: now.
    pub pages: u64,
    /// The same, at most.
    pub pages_max: u64,
    /// By how many calls reallocations on the page layer differ from a free and an allocation.
    pub page_calls: i64,
    /// An arena's bytes; null where blocks are only counted, or sampled.
    pub packed: Option<Packed>,
    /// Blocks of 128 KiB and more ever allocated, freed.
    pub large: (u64, u64),
    /// Calls to the kernel for blocks.
    pub calls: u64,
    /// Bytes the heap holds, and held at most.
    pub committed: (u64, u64),
}

impl Requests {
    /// Of a process whose every block is counted; `None` of others.
    pub fn of(header: &Header, threads: &ThreadSums, process: &Process) -> Option<Self> {
        if !matches!(process.mode.as_str(), "exact" | "trace" | "count") {
            return None;
        }
        let layers = &threads.layers;
        let further = layers.further.saturating_add(further_live(header, threads));
        let live = process.live.blocks.cast_signed();
        let pages = live.saturating_add(further).max(0).cast_unsigned();
        let published = header.word(word::PUBLISHED_PAGES).cast_signed();
        // As for the peak of bytes: with several threads what is pending has no common moment.
        let pending = match threads.used {
            1 => published.saturating_add(layers.pending_blocks_high),
            _ => 0,
        };
        let highest = header.word(word::PEAK_PAGES).max(pages);
        let filled = layers.filled.max(0).cast_unsigned();
        let most = layers.filled.saturating_add(layers.filled_more.max(0));
        let calls = threads.syscalls[..5].iter().map(|call| call.0);
        let calls = calls.fold(0, u64::saturating_add);
        Some(Self {
            classes: classes(header, threads),
            pages,
            pages_max: highest.max(pending.max(0).cast_unsigned()),
            page_calls: layers.page_calls,
            packed: (process.mode != "count").then_some(Packed {
                filled,
                most: most.max(0).cast_unsigned().max(filled),
            }),
            large: layers.large,
            calls: calls.saturating_sub(header.word(word::OWN_CALLS)),
            committed: (
                header.word(word::HEAP_COMMITTED),
                header.word(word::HEAP_BYTES_MAX),
            ),
        })
    }
}

/// OS pages beyond the first of live blocks in slots: all of a class have equally many.
fn further_live(header: &Header, threads: &ThreadSums) -> i64 {
    let pairs = header.classes().into_iter().zip(&threads.classes);
    let pages = pairs.map(|(class, sums)| {
        let each = class.slot_bytes.saturating_sub(1) / OS_PAGE;
        sums.live()
            .blocks
            .saturating_mul(each)
            .min(1 << 52)
            .cast_signed()
    });
    pages.fold(0, i64::saturating_add)
}

fn classes(header: &Header, threads: &ThreadSums) -> Vec<Class> {
    let pairs = header.classes().into_iter().zip(&threads.classes);
    pairs
        .map(|(class, sums)| Class {
            slot_bytes: class.slot_bytes,
            allocated: sums.allocated,
            live: sums.live(),
        })
        .filter(|class| class.allocated.blocks > 0)
        .collect()
}
