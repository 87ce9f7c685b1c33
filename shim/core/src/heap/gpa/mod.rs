//! The general purpose layer: size classes over page runs cut from one reserve.
//!
//! # Design
//! ```text
//! reserve   | page structs | records | slices of 64 KiB ... (committed) ... (reserved) |
//! small     1 slice,  blocks of 16 B .. 8 KiB
//! medium    8 slices, blocks of 10 KiB .. 64 KiB
//! singleton as many slices as one larger block needs
//! ```
//! `space` hands out runs of slices, `page` is the out-of-line struct of a run,
//! `heap` is a thread's set of pages, `classes` the arithmetic between sizes.
//! One range test answers "ours?", and the page struct is found by arithmetic.
//!
//! A design with 4 MiB pages for blocks up to 512 KiB was left out: such a page
//! serves few blocks, and runs cut to size waste less and can grow in place.

mod areas;
mod block;
pub mod classes;
#[cfg(any(test, fuzzing))]
#[path = "tests/driver.rs"]
pub mod driver;
mod heap;
mod page;
mod runs;
mod space;
mod spaces;
mod survey;
#[cfg(test)]
mod tests;

/// Where fields are, for code that is not compiled: byte offsets.
pub mod layout {
    pub use super::heap::DIRECT;
    pub use super::page::layout::{AIM, FREE, MAGIC, NEXT, OWNER, PAGE_BYTES, PREV, USED};
    pub use super::spaces::layout::{BASE, BIAS, LIMIT};
}

pub use block::Block;
pub use heap::{Freed, Heap, HeapState, all_heaps};
pub use page::{FLAGS, FULL, INTERIOR, Kind, Page, RECORDS, SINGLE};
pub use space::Space;
pub use spaces::Spaces;
pub use survey::Survey;
