//! Heaps for a whole process that are not the general purpose one: `PAGESHIM_HEAP`.
//!
//! # Design
//! Each draws from one address reserve, so that one range test answers "ours?",
//! and each keeps a record word for a block, zero when it is not live. Whoever
//! frees takes the record with one swap and then calls `give`: of two frees of
//! the same block one finds nothing.
//!
//! # Concurrency
//! Any thread may call anything; short locks inside.

mod bump;
mod debug;
mod pages;
#[cfg(test)]
mod tests;

pub use bump::Bump;
pub use debug::{Debug, Family, Past, Stale};
pub use pages::PageHeap;

use core::sync::atomic::AtomicU64;

/// A block of one of these heaps.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Where it begins.
    pub address: usize,
    /// Bytes the caller may use.
    pub usable: usize,
    /// Bytes the caller asked for.
    pub requested: usize,
    /// Its record; zero when it is not live.
    pub record: &'static AtomicU64,
    /// Its memory is known to be zero (of fresh blocks only).
    pub zeroed: bool,
}

/// What is at an address of a heap.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// A block that is not freed.
    Live(Block),
    /// A block that is freed.
    Freed,
    /// No block begins there.
    Nothing,
}

impl Found {
    /// Live or freed by the block's record.
    fn of(block: Block) -> Self {
        if block.record.load(core::sync::atomic::Ordering::Relaxed) == 0 {
            Self::Freed
        } else {
            Self::Live(block)
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
