//! A bucket: slots of one class, bumped and never reused, with their books at
//! its end.
//!
//! # Design
//! ```text
//! base                                                     base + bucket_bytes
//! | slot | slot | slot |  tail  | books of each slot | header |
//! ```
//! The base is aligned to the bucket's size, so the bucket of an address is
//! arithmetic; whether there is one is the layer's table's to say.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use super::FILL_FREED;
use crate::heap::layer::{Align, Shape};

/// Bytes behind each block that hold the canary.
pub(super) const FOOTER: usize = 8;
/// Most bytes checked behind a block.
const SLACK_CHECKED: usize = 64;

/// Books of the whole bucket.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    pub(super) canary: u64,
    pub(super) slot_log2: u32,
    pub(super) slots: u32,
    pub(super) taken: u32,
    pub(super) freed: u32,
    pub(super) retired: bool,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Hold {
    Live = 1,
    Freed = 2,
}

/// Allocation and free trace, zero terminated when short.
pub(super) type Traces<const FRAMES: usize> = [[usize; FRAMES]; 2];

/// Books of one slot.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Slot<const FRAMES: usize> {
    pub(super) requested: usize,
    pub(super) align: Align,
    pub(super) hold: Hold,
    pub(super) traces: Traces<FRAMES>,
}

impl<const FRAMES: usize> Slot<FRAMES> {
    pub(super) const fn shape(&self) -> Shape {
        Shape::new(self.requested, self.align)
    }
}

/// A bucket by its base; `bytes` is the layer's bucket size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<const FRAMES: usize> {
    pub(super) base: usize,
    bytes: usize,
}

impl<const FRAMES: usize> Bucket<FRAMES> {
    pub(super) const fn at(base: usize, bytes: usize) -> Self {
        Self { base, bytes }
    }

    /// Slots of `1 << slot_log2` bytes a bucket of `bytes` has.
    const fn slots_in(bytes: usize, slot_log2: u32) -> usize {
        (bytes - size_of::<Header>()) / ((1 << slot_log2) + size_of::<Slot<FRAMES>>())
    }

    /// Log2 of the smallest slot for `shape`, when a bucket of `bytes` has room
    /// for three of them.
    pub(super) fn slot_log2(bytes: usize, shape: Shape) -> Option<u32> {
        let most = bytes.trailing_zeros() - 2;
        let need = shape.requested.checked_add(FOOTER)?;
        let slot = need.max(shape.align.bytes()).checked_next_power_of_two()?;
        let log2 = slot.trailing_zeros().max(4);
        (log2 <= most && Self::slots_in(bytes, log2) > 0).then_some(log2)
    }

    /// Writes the header of a fresh bucket; `zeroed` when its memory is zero.
    pub(super) fn begin(self, canary: u64, slot_log2: u32, zeroed: bool) {
        let slots = Self::slots_in(self.bytes, slot_log2);
        if !zeroed {
            let books = slots * size_of::<Slot<FRAMES>>() + size_of::<Header>();
            let from = self.base + self.bytes - books;
            // SAFETY: the end of a fresh block of `bytes`.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(from).write_bytes(0, books) };
        }
        let header = Header {
            canary,
            slot_log2,
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            taken: 0,
            freed: 0,
            retired: false,
        };
        // SAFETY: as in header().
        unsafe { self.header_at().write(header) };
    }

    fn header_at(self) -> *mut Header {
        ptr::with_exposed_provenance_mut(self.base + self.bytes - size_of::<Header>())
    }

    /// The header; the layer's lock is held for as long as the answer is used.
    #[expect(clippy::mut_from_ref, reason = "a view of memory, not of self")]
    pub(super) fn header(&self) -> &mut Header {
        // SAFETY: the bucket is in the table, so its memory and header are ours.
        unsafe { &mut *self.header_at() }
    }

    /// Bytes of header and slots' books.
    pub(super) fn books_bytes(self) -> usize {
        self.header().slots as usize * size_of::<Slot<FRAMES>>() + size_of::<Header>()
    }

    pub(super) fn slot_bytes(self) -> usize {
        1 << self.header().slot_log2
    }

    /// The books of slot `index`, which was taken; lock as for the header.
    #[expect(clippy::mut_from_ref, reason = "a view of memory, not of self")]
    pub(super) fn slot(&self, index: usize) -> &mut Slot<FRAMES> {
        debug_assert!(index < self.header().taken as usize);
        // SAFETY: `index < taken <= slots`, and take() wrote these books.
        unsafe { &mut *self.slot_at(index) }
    }

    fn slot_at(self, index: usize) -> *mut Slot<FRAMES> {
        let at = self.base + self.bytes - self.books_bytes();
        ptr::with_exposed_provenance_mut::<Slot<FRAMES>>(at).wrapping_add(index)
    }

    pub(super) fn block(self, index: usize) -> usize {
        self.base + index * self.slot_bytes()
    }

    /// The slot that begins at `address` and was handed out.
    pub(super) fn index_of(self, address: usize) -> Option<usize> {
        let (offset, slot) = (address - self.base, self.slot_bytes());
        let index = offset / slot;
        let begins = offset.is_multiple_of(slot);
        (begins && index < self.header().taken as usize).then_some(index)
    }

    /// The next slot; never one that was used before.
    pub(super) fn take(self, books: Slot<FRAMES>) -> Option<NonNull<u8>> {
        let header = self.header();
        if header.taken == header.slots || header.retired {
            return None;
        }
        let index = header.taken as usize;
        header.taken += 1;
        // SAFETY: within the books of this bucket: `index < slots`.
        unsafe { self.slot_at(index).write(books) };
        NonNull::new(ptr::with_exposed_provenance_mut(self.block(index)))
    }

    /// Writes the canary behind a block of `requested` bytes.
    pub(super) fn seal(self, index: usize, requested: usize) {
        seal(
            self.block(index) + requested,
            self.slack(requested),
            self.header().canary,
        );
    }

    /// Offset of the first byte behind the block that was written.
    pub(super) fn broken_seal(self, index: usize, requested: usize) -> Option<usize> {
        let at = self.block(index) + requested;
        let broken = broken_seal(at, self.slack(requested), self.header().canary)?;
        Some(requested + broken)
    }

    fn slack(self, requested: usize) -> usize {
        (self.slot_bytes() - requested).min(SLACK_CHECKED)
    }

    /// Fills a freed slot so that a later write shows.
    pub(super) fn fill_freed(self, index: usize) {
        let at = ptr::with_exposed_provenance_mut::<u8>(self.block(index));
        // SAFETY: a whole slot of ours that nobody uses.
        unsafe { at.write_bytes(FILL_FREED, self.slot_bytes()) };
    }

    /// Offset of the first byte of a freed slot that was written.
    pub(super) fn written_after_free(self, index: usize) -> Option<usize> {
        let at = ptr::with_exposed_provenance::<u8>(self.block(index));
        // SAFETY: a whole slot of ours that was filled; read byte by byte, as
        // the program that must not write it might.
        (0..self.slot_bytes())
            .find(|offset| unsafe { at.add(*offset).read_volatile() } != FILL_FREED)
    }
}

/// Writes `bytes` of the canary's pattern at `address`.
pub(super) fn seal(address: usize, bytes: usize, canary: u64) {
    let at = ptr::with_exposed_provenance_mut::<u8>(address);
    for offset in 0..bytes {
        // SAFETY: the caller's slack behind a block, all of it ours.
        unsafe { at.add(offset).write(canary.to_le_bytes()[offset % 8]) };
    }
}

/// First byte of a seal that differs from what [`seal`] wrote.
pub(super) fn broken_seal(address: usize, bytes: usize, canary: u64) -> Option<usize> {
    let at = ptr::with_exposed_provenance::<u8>(address);
    (0..bytes).find(|offset| {
        // SAFETY: as in seal().
        let found = unsafe { at.add(*offset).read_volatile() };
        found != canary.to_le_bytes()[offset % 8]
    })
}
