//! The page heap: every block has OS pages of its own, and every take and every
//! free is a system call.
//!
//! # Design
//! ```text
//! reserve  | guard page | run | run | run | ... next (never used yet)
//! table    one entry a page: record, length and link of the run that begins there
//! ```
//! A take maps fresh pages over its part of the reserve; a free maps the part
//! inaccessible again. Freed addresses are used again, by number of pages.
//!
//! # Invariants
//! W1. `edge` of a run's first and last page says whether it is live.
//! W2. The kernel holds at most `live + extra + free_segments` mappings for the
//!     reserve: a live block is one (two after it was moved to grow: `extra`),
//!     and inaccessible neighbours always merge.
//!
//! # Failure
//! `take` answers `None` when W2's number comes near the kernel's limit, when the
//! kernel refuses, or when the reserve is used up; the caller has another heap.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pageshim_wire::process::{class, word};

use super::{Block, Found, signed};
use crate::OS_PAGE_BYTES;
use crate::heap::gpa::classes::SINGLETON;
use crate::heap::page::Pages;
use crate::records::Record;
use crate::sync::Lock;

/// Runs of up to this many pages have a free list for each length.
const EXACT: usize = 256;
/// Free runs looked at in the list of longer ones.
const LOOKS: usize = 64;
const TABLE_STEP: usize = 256 << 10;
/// Blocks of at least so many pages are moved by the kernel, not copied.
const MOVE_MIN: u32 = 16;

#[repr(C)]
#[derive(Debug)]
struct Entry {
    record: AtomicU64,
    pages: AtomicU32,
    next: AtomicU32,
    edge: AtomicU32,
    extra: AtomicU32,
}

#[derive(Debug)]
struct Inner {
    next: u32,
    table_bytes: usize,
    lists: [u32; EXACT + 1],
    live: usize,
    extra: usize,
    free_segments: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct PageHeap {
    pages: Pages,
    base: AtomicUsize,
    span: AtomicUsize,
    table: AtomicUsize,
    mappings_max: AtomicUsize,
    inner: Lock<Inner>,
}

impl PageHeap {
    /// A heap without a reserve.
    pub const fn new(pages: Pages) -> Self {
        Self {
            pages,
            base: AtomicUsize::new(0),
            span: AtomicUsize::new(0),
            table: AtomicUsize::new(0),
            mappings_max: AtomicUsize::new(0),
            inner: Lock::new(Inner {
                next: 1,
                table_bytes: 0,
                lists: [0; EXACT + 1],
                live: 0,
                extra: 0,
                free_segments: 1,
            }),
        }
    }

    /// The table's own reserve: whole steps, as it is committed.
    fn table_bytes(span: usize) -> usize {
        (span / OS_PAGE_BYTES * size_of::<Entry>()).next_multiple_of(TABLE_STEP)
    }

    /// Reserves `span` bytes of addresses; blocks will be at most `mappings_max`
    /// mappings. Once.
    pub fn reserve(&self, span: usize, mappings_max: usize) -> bool {
        let table = Self::table_bytes(span);
        let Some(base) = self.pages.reserve(span) else {
            return false;
        };
        let Some(table) = self.pages.reserve(table) else {
            // SAFETY: just reserved, unused.
            unsafe { self.pages.release(base, span) };
            return false;
        };
        self.base.store(base, Ordering::Relaxed);
        self.table.store(table, Ordering::Relaxed);
        self.mappings_max.store(mappings_max, Ordering::Relaxed);
        self.span.store(span, Ordering::Release);
        let mut inner = self.inner.lock();
        let committed = self.commit_table(&mut inner, 1).is_some();
        if committed {
            self.entry(0).edge.store(1, Ordering::Relaxed);
        }
        committed
    }

    /// First address and bytes of the reserve.
    pub fn range(&self) -> (usize, usize) {
        let span = self.span.load(Ordering::Acquire);
        (self.base.load(Ordering::Relaxed), span)
    }

    /// Entry of a page below the committed part of the table.
    fn entry(&self, page: u32) -> &'static Entry {
        let table = self.table.load(Ordering::Relaxed);
        let at = ptr::with_exposed_provenance::<Entry>(table);
        // SAFETY: callers pass pages below `next`, whose entries are committed and zero at first.
        unsafe { &*at.add(page as usize) }
    }

    fn address(&self, page: u32) -> usize {
        self.base.load(Ordering::Relaxed) + page as usize * OS_PAGE_BYTES
    }

    fn total(&self) -> u32 {
        u32::try_from(self.span.load(Ordering::Relaxed) / OS_PAGE_BYTES).unwrap_or(u32::MAX)
    }

    fn commit_table(&self, inner: &mut Inner, end: u32) -> Option<()> {
        let need = end as usize * size_of::<Entry>();
        if need > inner.table_bytes {
            let target = need.next_multiple_of(TABLE_STEP);
            let more = target - inner.table_bytes;
            let at = self.table.load(Ordering::Relaxed) + inner.table_bytes;
            // SAFETY: the table's own reserve, whose end lies beyond the last page's entry.
            unsafe { self.pages.commit(at, more) }.then_some(())?;
            self.pages.accounts().add(word::METADATA, signed(more));
            inner.table_bytes = target;
        }
        Some(())
    }

    /// Pages of a block, at least one.
    fn count(requested: usize) -> Option<u32> {
        let rounded = requested.max(1).checked_add(OS_PAGE_BYTES - 1)?;
        u32::try_from(rounded / OS_PAGE_BYTES).ok()
    }

    fn block(&self, page: u32, requested: usize) -> Block {
        let entry = self.entry(page);
        Block {
            address: self.address(page),
            usable: entry.pages.load(Ordering::Relaxed) as usize * OS_PAGE_BYTES,
            requested,
            record: &entry.record,
            zeroed: true,
        }
    }

    /// A block of `requested` bytes at a multiple of `align`.
    pub fn take(&self, requested: usize, align: usize) -> Option<Block> {
        let count = Self::count(requested)?;
        let page = self.claim(count, align)?;
        // SAFETY: the run is this call's alone.
        if !unsafe { self.pages.map_at(self.address(page), Self::bytes(count)) } {
            self.put_back(&mut self.inner.lock(), page, count);
            return None;
        }
        self.bill(count, 1);
        Some(self.block(page, requested))
    }

    fn bytes(count: u32) -> usize {
        count as usize * OS_PAGE_BYTES
    }

    /// Books pages that began (or, negative, ended) to hold `blocks` blocks.
    fn bill(&self, count: u32, blocks: i64) {
        self.bill_pages(i64::from(count) * blocks);
        let accounts = self.pages.accounts();
        accounts.add_class(SINGLETON, class::PAGES, blocks);
    }

    fn bill_pages(&self, pages: i64) {
        let bytes = pages * signed(OS_PAGE_BYTES);
        let accounts = self.pages.accounts();
        accounts.add_committed(bytes);
        accounts.add_class(SINGLETON, class::PAGE_BYTES, bytes);
        accounts.add_class(SINGLETON, class::CAPACITY, bytes);
    }

    /// Addresses for a block, marked live, nothing mapped yet.
    fn claim(&self, count: u32, align: usize) -> Option<u32> {
        let mut inner = self.inner.lock();
        let mappings = inner.live + inner.extra + inner.free_segments;
        if mappings + 2 > self.mappings_max.load(Ordering::Relaxed) {
            return None;
        }
        let page = self.place(&mut inner, count, align)?;
        self.mark(&mut inner, page, count, true);
        self.entry(page).pages.store(count, Ordering::Relaxed);
        self.entry(page).record.store(0, Ordering::Relaxed);
        inner.live += 1;
        Some(page)
    }

    fn place(&self, inner: &mut Inner, count: u32, align: usize) -> Option<u32> {
        if align <= OS_PAGE_BYTES
            && let Some(page) = self.reuse(inner, count)
        {
            return Some(page);
        }
        let from = self.address(inner.next);
        let aligned = from.checked_next_multiple_of(align.max(OS_PAGE_BYTES))?;
        let gap = u32::try_from((aligned - from) / OS_PAGE_BYTES).ok()?;
        let page = inner.next.checked_add(gap)?;
        let end = page.checked_add(count)?;
        if end > self.total() {
            return None;
        }
        self.commit_table(inner, end)?;
        if gap > 0 {
            self.list(inner, inner.next, gap);
        }
        inner.next = end;
        Some(page)
    }

    /// A free run of `count` pages off the lists.
    fn reuse(&self, inner: &mut Inner, count: u32) -> Option<u32> {
        if count as usize <= EXACT {
            let page = inner.lists[count as usize - 1];
            if page != 0 {
                inner.lists[count as usize - 1] = self.entry(page).next.load(Ordering::Relaxed);
                return Some(page);
            }
        }
        let mut before = 0;
        let mut page = inner.lists[EXACT];
        for _ in 0..LOOKS {
            if page == 0 {
                return None;
            }
            let entry = self.entry(page);
            let (next, have) = (
                entry.next.load(Ordering::Relaxed),
                entry.pages.load(Ordering::Relaxed),
            );
            if have >= count {
                match before {
                    0 => inner.lists[EXACT] = next,
                    _ => self.entry(before).next.store(next, Ordering::Relaxed),
                }
                if have > count {
                    self.list(inner, page + count, have - count);
                }
                return Some(page);
            }
            (before, page) = (page, next);
        }
        None
    }

    /// Puts a free run on its list.
    fn list(&self, inner: &mut Inner, page: u32, count: u32) {
        let entry = self.entry(page);
        entry.pages.store(count, Ordering::Relaxed);
        entry.record.store(0, Ordering::Relaxed);
        let list = (count as usize - 1).min(EXACT);
        entry.next.store(inner.lists[list], Ordering::Relaxed);
        inner.lists[list] = page;
        entry.edge.store(0, Ordering::Relaxed);
        let last = self.entry(page + count - 1);
        last.edge.store(0, Ordering::Relaxed);
    }

    /// W1, and how many inaccessible stretches there are afterwards.
    fn mark(&self, inner: &mut Inner, page: u32, count: u32, live: bool) {
        let free_before = self.entry(page - 1).edge.load(Ordering::Relaxed) == 0;
        let after = page + count;
        let free_after = match after < inner.next {
            true => self.entry(after).edge.load(Ordering::Relaxed) == 0,
            false => after < self.total(),
        };
        let both = usize::from(free_before) + usize::from(free_after);
        inner.free_segments = match live {
            true => (inner.free_segments + both).saturating_sub(1),
            false => (inner.free_segments + 1).saturating_sub(both),
        };
        for page in [page, after - 1] {
            self.entry(page)
                .edge
                .store(u32::from(live), Ordering::Relaxed);
        }
    }

    fn put_back(&self, inner: &mut Inner, page: u32, count: u32) {
        self.mark(inner, page, count, false);
        self.list(inner, page, count);
        inner.live -= 1;
        if self.entry(page).extra.swap(0, Ordering::Relaxed) != 0 {
            inner.extra -= 1;
        }
    }

    /// What is at an address of the reserve.
    pub fn find(&self, address: usize) -> Found {
        let offset = address.wrapping_sub(self.base.load(Ordering::Relaxed));
        let page = u32::try_from(offset / OS_PAGE_BYTES).unwrap_or(u32::MAX);
        if !offset.is_multiple_of(OS_PAGE_BYTES) || page >= self.inner.lock().next {
            return Found::Nothing;
        }
        let entry = self.entry(page);
        if entry.pages.load(Ordering::Relaxed) == 0 || page == 0 {
            return Found::Nothing;
        }
        let mut block = self.block(page, 0);
        let record = Record::unpack(entry.record.load(Ordering::Relaxed));
        block.requested = record.map_or(0, |record| block.usable.saturating_sub(record.slack));
        Found::of(block)
    }

    /// Takes a block back whose record was cleared.
    pub fn give(&self, address: usize) {
        let page = self.page_of(address);
        let count = self.entry(page).pages.load(Ordering::Relaxed);
        // SAFETY: a block of ours that its owner gave up.
        unsafe { self.pages.retire(address, Self::bytes(count)) };
        self.bill(count, -1);
        self.put_back(&mut self.inner.lock(), page, count);
    }

    fn page_of(&self, address: usize) -> u32 {
        let offset = address - self.base.load(Ordering::Relaxed);
        u32::try_from(offset / OS_PAGE_BYTES).unwrap_or(0)
    }

    /// Makes a block hold `requested` bytes, at its place or, when the kernel can
    /// move its pages, at another; its record stays cleared.
    pub fn resize(&self, address: usize, requested: usize) -> Option<Block> {
        let page = self.page_of(address);
        let (old, new) = (
            self.entry(page).pages.load(Ordering::Relaxed),
            Self::count(requested)?,
        );
        if new < old {
            self.shrink(page, old, new);
        } else if new > old && !self.grow(page, old, new) {
            return self.migrate(page, old, new, requested);
        }
        Some(self.block(page, requested))
    }

    fn shrink(&self, page: u32, old: u32, new: u32) {
        let (rest, count) = (page + new, old - new);
        // SAFETY: the owner gave this part up.
        unsafe { self.pages.retire(self.address(rest), Self::bytes(count)) };
        self.bill_pages(-i64::from(count));
        let mut inner = self.inner.lock();
        self.entry(page).pages.store(new, Ordering::Relaxed);
        self.entry(rest - 1).edge.store(1, Ordering::Relaxed);
        self.mark(&mut inner, rest, count, false);
        self.list(&mut inner, rest, count);
    }

    /// Grows the last run of the used part.
    fn grow(&self, page: u32, old: u32, new: u32) -> bool {
        let mut inner = self.inner.lock();
        let (end, more) = (page + old, new - old);
        let moved = self.entry(page).extra.load(Ordering::Relaxed) != 0;
        if end != inner.next || moved || end.saturating_add(more) > self.total() {
            return false;
        }
        if self.commit_table(&mut inner, end + more).is_none() {
            return false;
        }
        // SAFETY: never used addresses of the reserve, taken under the lock.
        if !unsafe { self.pages.map_at(self.address(end), Self::bytes(more)) } {
            return false;
        }
        self.mark(&mut inner, end, more, true);
        inner.next = end + more;
        self.entry(page).pages.store(new, Ordering::Relaxed);
        drop(inner);
        self.bill_pages(i64::from(more));
        true
    }

    /// Has the kernel move a block's pages to a longer run.
    fn migrate(&self, page: u32, old: u32, new: u32, requested: usize) -> Option<Block> {
        if old < MOVE_MIN {
            return None;
        }
        let target = self.claim(new, OS_PAGE_BYTES)?;
        let (from, to) = (self.address(page), self.address(target));
        let (kept, more) = (Self::bytes(old), Self::bytes(new - old));
        // SAFETY: the new run is this call's alone, and so is the block during its realloc.
        let moved = unsafe {
            self.pages.map_at(to + kept, more) && self.pages.move_content(from, kept, to)
        };
        if !moved {
            // SAFETY: the new run again.
            unsafe { self.pages.retire(to, Self::bytes(new)) };
            self.put_back(&mut self.inner.lock(), target, new);
            return None;
        }
        self.inner.lock().extra += 1;
        self.entry(target).extra.store(1, Ordering::Relaxed);
        self.give(from);
        self.bill(new, 1);
        Some(self.block(target, requested))
    }

    /// Visits all live blocks.
    pub fn each_live(&self, mut visit: impl FnMut(&Block)) {
        let mut page = 1;
        let end = self.inner.lock().next;
        while page < end {
            if let Found::Live(block) = self.find(self.address(page)) {
                visit(&block);
            }
            page += self.entry(page).pages.load(Ordering::Relaxed).max(1);
        }
    }

    /// Gives all addresses back.
    ///
    /// # Safety
    /// Neither a block nor the heap is used any more.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(&self) {
        let (base, span) = self.range();
        let table = Self::table_bytes(span);
        // SAFETY: the caller's duty.
        unsafe {
            self.pages.release(base, span);
            self.pages
                .release(self.table.load(Ordering::Relaxed), table);
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
