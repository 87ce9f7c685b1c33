//! The arena and the fixed buffer: blocks one behind the other, frees that do nothing.
//!
//! # Design
//! ```text
//! reserve  | header block | header block | ... next ... committed ... limit
//! header   record word, extent word: slot bytes / 16 and slack
//! starts   one bit for each 16 bytes: a block begins (or began last) there
//! ```
//! Only the last block's space comes back, and only it grows in place. The arena
//! commits in growing chunks; a fixed buffer is the same with a small limit.
//! `tail` in the account is committed space without a live block: freed blocks,
//! gaps before aligned ones, and the end never used. Headers count as rounding.
//!
//! # Failure
//! `take` answers `None` past the limit or when the kernel refuses.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pageshim_wire::process::{class, word};

use super::{Block, Found, signed};
use crate::OS_PAGE_BYTES;
use crate::heap::gpa::classes::{ALIGN, SINGLETON};
use crate::heap::page::Pages;
use crate::sync::Lock;

const CHUNK_MIN: usize = 1 << 20;
const HEADER: usize = 16;
/// Bytes that one word of `starts` covers.
const WORD_REACH: usize = 64 * ALIGN;

#[repr(C)]
#[derive(Debug)]
struct Header {
    record: AtomicU64,
    extent: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    next: usize,
    last: usize,
    committed: usize,
    touched: usize,
    starts_committed: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct Bump {
    pages: Pages,
    base: AtomicUsize,
    limit: AtomicUsize,
    starts: AtomicUsize,
    inner: Lock<Inner>,
}

impl Bump {
    /// A heap without a reserve.
    pub const fn new(pages: Pages) -> Self {
        Self {
            pages,
            base: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            starts: AtomicUsize::new(0),
            inner: Lock::new(Inner {
                next: 0,
                last: 0,
                committed: 0,
                touched: 0,
                starts_committed: 0,
            }),
        }
    }

    /// Reserves `limit` bytes, the most that all blocks and headers may take. Once.
    pub fn reserve(&self, limit: usize) -> bool {
        let Some(span) = limit.checked_next_multiple_of(OS_PAGE_BYTES) else {
            return false;
        };
        let starts = (span / WORD_REACH * 8 + 8).next_multiple_of(OS_PAGE_BYTES);
        let Some(base) = self.pages.reserve(span) else {
            return false;
        };
        let Some(starts) = self.pages.reserve(starts) else {
            // SAFETY: just reserved, unused.
            unsafe { self.pages.release(base, span) };
            return false;
        };
        self.base.store(base, Ordering::Relaxed);
        self.starts.store(starts, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Release);
        true
    }

    /// First address and bytes of the reserve.
    pub fn range(&self) -> (usize, usize) {
        let limit = self.limit.load(Ordering::Acquire);
        (self.base.load(Ordering::Relaxed), limit)
    }

    /// Commits memory and start bits up to `end`.
    fn commit(&self, inner: &mut Inner, end: usize) -> Option<()> {
        if end <= inner.committed {
            return Some(());
        }
        let (base, limit) = self.range();
        if end > limit {
            return None;
        }
        let span = limit.next_multiple_of(OS_PAGE_BYTES);
        let grown = inner
            .committed
            .saturating_add(CHUNK_MIN.max(inner.committed / 2));
        let exact = end.next_multiple_of(OS_PAGE_BYTES);
        let wanted = grown.max(exact).next_multiple_of(CHUNK_MIN).min(span);
        let target = [wanted, exact].into_iter().find(|target| {
            // SAFETY: within the reserve.
            unsafe {
                self.pages
                    .commit(base + inner.committed, target - inner.committed)
            }
        })?;
        self.commit_starts(inner, target)?;
        let more = signed(target - inner.committed);
        let accounts = self.pages.accounts();
        accounts.add(word::HEAP_COMMITTED, more);
        accounts.add_page(SINGLETON, more);
        inner.committed = target;
        Some(())
    }

    fn commit_starts(&self, inner: &mut Inner, end: usize) -> Option<()> {
        let need = (end / WORD_REACH * 8 + 8).next_multiple_of(OS_PAGE_BYTES);
        let more = need.saturating_sub(inner.starts_committed);
        if more > 0 {
            let at = self.starts.load(Ordering::Relaxed) + inner.starts_committed;
            // SAFETY: within the bits' reserve.
            unsafe { self.pages.commit(at, more) }.then_some(())?;
            self.pages.accounts().add(word::METADATA, signed(more));
            inner.starts_committed = need;
        }
        Some(())
    }

    /// The word of start bits for an offset below `committed`.
    fn starts(&self, offset: usize) -> &AtomicU64 {
        let at = ptr::with_exposed_provenance::<AtomicU64>(self.starts.load(Ordering::Relaxed));
        // SAFETY: committed along with the memory it describes.
        unsafe { &*at.add(offset / WORD_REACH) }
    }

    fn bit(offset: usize) -> u64 {
        1 << (offset / ALIGN % 64)
    }

    /// Header of a block that begins at `offset`.
    fn header(&self, offset: usize) -> &'static Header {
        let at = self.base.load(Ordering::Relaxed) + offset - HEADER;
        // SAFETY: callers pass offsets of blocks, whose headers are committed and stay.
        unsafe { &*ptr::with_exposed_provenance::<Header>(at) }
    }

    fn block(&self, offset: usize) -> Block {
        let header = self.header(offset);
        let extent = header.extent.load(Ordering::Relaxed);
        let usable = usize::try_from(extent & 0xffff_ffff).unwrap_or(0) * ALIGN;
        let slack = usize::try_from(extent >> 32).unwrap_or(0);
        Block {
            address: self.base.load(Ordering::Relaxed) + offset,
            usable,
            requested: usable.saturating_sub(slack),
            record: &header.record,
            zeroed: false,
        }
    }

    /// The extent word; `None` when the numbers do not fit.
    fn extent(slot: usize, requested: usize) -> Option<u64> {
        let units = u32::try_from(slot / ALIGN).ok()?;
        let slack = u32::try_from(slot.checked_sub(requested)?).ok()?;
        Some(u64::from(units) | u64::from(slack) << 32)
    }

    /// A block of `requested` bytes at a multiple of `align`.
    pub fn take(&self, requested: usize, align: usize) -> Option<Block> {
        let slot = requested.max(1).checked_next_multiple_of(ALIGN)?;
        let extent = Self::extent(slot, requested)?;
        let mut inner = self.inner.lock();
        let base = self.base.load(Ordering::Relaxed);
        let from = base.checked_add(inner.next)?.checked_add(HEADER)?;
        let start = from.checked_next_multiple_of(align.max(ALIGN))? - base;
        let end = start.checked_add(slot)?;
        self.commit(&mut inner, end)?;
        let zeroed = start >= inner.touched;
        self.forget_starts(&mut inner, end);
        self.starts(start)
            .fetch_or(Self::bit(start), Ordering::Relaxed);
        let header = self.header(start);
        header.record.store(0, Ordering::Relaxed);
        header.extent.store(extent, Ordering::Relaxed);
        inner.next = end;
        inner.last = start;
        self.bill(signed(slot + HEADER));
        let mut block = self.block(start);
        block.zeroed = zeroed;
        Some(block)
    }

    fn bill(&self, bytes: i64) {
        let accounts = self.pages.accounts();
        accounts.add_class(SINGLETON, class::CAPACITY, bytes);
    }

    /// Clears the bits of blocks that were taken back and are about to be written over.
    fn forget_starts(&self, inner: &mut Inner, end: usize) {
        let stale = end.min(inner.touched);
        let mut offset = inner.next;
        while offset < stale {
            let word = self.starts(offset);
            if offset.is_multiple_of(WORD_REACH) && stale - offset >= WORD_REACH {
                word.store(0, Ordering::Relaxed);
                offset += WORD_REACH;
            } else {
                word.fetch_and(!Self::bit(offset), Ordering::Relaxed);
                offset += ALIGN;
            }
        }
        if end > inner.touched {
            inner.touched = end;
            let bytes = end.next_multiple_of(OS_PAGE_BYTES) as u64;
            self.pages.accounts().raise_bytes_max(bytes);
        }
    }

    /// What is at an address of the reserve.
    pub fn find(&self, address: usize) -> Found {
        let offset = address.wrapping_sub(self.base.load(Ordering::Relaxed));
        let committed = self.inner.lock().committed;
        if !offset.is_multiple_of(ALIGN) || offset < HEADER || offset >= committed {
            return Found::Nothing;
        }
        if self.starts(offset).load(Ordering::Relaxed) & Self::bit(offset) == 0 {
            return Found::Nothing;
        }
        Found::of(self.block(offset))
    }

    /// Takes a block back whose record was cleared: its space when it is the last.
    pub fn give(&self, address: usize) {
        let offset = address - self.base.load(Ordering::Relaxed);
        let mut inner = self.inner.lock();
        self.bill(-signed(self.block(offset).usable + HEADER));
        if inner.last == offset {
            // The bit stays until the space is used again, so that a second free shows.
            inner.next = offset - HEADER;
            inner.last = 0;
        }
    }

    /// Makes a block hold `requested` bytes at its place.
    pub fn resize(&self, address: usize, requested: usize) -> Option<Block> {
        let offset = address - self.base.load(Ordering::Relaxed);
        let slot = requested.max(1).checked_next_multiple_of(ALIGN)?;
        let mut inner = self.inner.lock();
        let old = self.block(offset).usable;
        let is_last = inner.last == offset;
        if slot > old && !is_last {
            return None;
        }
        let kept = if is_last { slot } else { old };
        let extent = Self::extent(kept, requested)?;
        if is_last {
            let end = offset.checked_add(slot)?;
            self.commit(&mut inner, end)?;
            self.forget_starts(&mut inner, end);
            inner.next = end;
        }
        self.header(offset).extent.store(extent, Ordering::Relaxed);
        self.bill(signed(kept) - signed(old));
        Some(self.block(offset))
    }

    /// Visits all live blocks.
    pub fn each_live(&self, mut visit: impl FnMut(&Block)) {
        let end = self.inner.lock().next;
        for at in (0..end).step_by(WORD_REACH) {
            let mut bits = self.starts(at).load(Ordering::Relaxed);
            while bits != 0 {
                let offset = at + bits.trailing_zeros() as usize * ALIGN;
                bits &= bits - 1;
                let block = self.block(offset);
                if offset < end && block.record.load(Ordering::Relaxed) != 0 {
                    visit(&block);
                }
            }
        }
    }

    /// Gives all addresses back.
    ///
    /// # Safety
    /// Neither a block nor the heap is used any more.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(&self) {
        let (base, limit) = self.range();
        let span = limit.next_multiple_of(OS_PAGE_BYTES);
        let bits = (span / WORD_REACH * 8 + 8).next_multiple_of(OS_PAGE_BYTES);
        // SAFETY: the caller's duty.
        unsafe {
            self.pages.release(base, span);
            self.pages
                .release(self.starts.load(Ordering::Relaxed), bits);
        }
    }

    /// Takes the lock for the time of a fork.
    pub fn hold(&self) {
        self.inner.hold();
    }

    /// Opens it again.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty.
        unsafe { self.inner.release() };
    }
}
