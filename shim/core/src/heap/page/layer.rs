//! Whole pages as a layer: every block is a mapping of its own.
//!
//! # Design
//! A block costs its size rounded up to pages and one system call, a free
//! another. Alignments above a page map more and trim head and tail. A hint
//! leads the kernel to put the next mapping beside the last one, so that
//! neighbours merge into one kernel mapping (the count of those is limited).
//!
//! # Invariants
//! `requested + rounding + retained = committed`; retained is what the kernel
//! refused to take back (it was at its mapping limit): purged, never reused.
//!
//! # Concurrency
//! Any thread, no lock: a hint that loses a race is only a worse hint.
//!
//! # Failure
//! `None` or `false` when the kernel refuses or a size wraps.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Accounts, Pages};
use crate::heap::layer::{Align, Caller, Layer, Shape, Usage};
use crate::sys;

/// Which way mappings grow from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The kernel alone decides.
    Off,
    /// Each below the last, as the kernel itself goes on Linux.
    Down,
    /// Each above the last, which leaves room to grow in place.
    Up,
}

/// See the module's text.
#[derive(Debug)]
pub struct PageLayer {
    pages: Pages,
    direction: Hint,
    next: AtomicUsize,
    page_bytes: AtomicUsize,
    requested: AtomicUsize,
    committed: AtomicUsize,
    retained: AtomicUsize,
}

impl PageLayer {
    /// Pages billed to `accounts`, each mapping below the last.
    pub const fn new(accounts: &'static Accounts) -> Self {
        Self::with_hint(accounts, Hint::Down, 0)
    }

    /// Pages billed to `accounts`; the first mapping is asked for at `start`
    /// (its end for [`Hint::Down`]), 0 leaves it to the kernel.
    pub const fn with_hint(accounts: &'static Accounts, direction: Hint, start: usize) -> Self {
        Self {
            pages: Pages::new(accounts),
            direction,
            next: AtomicUsize::new(start),
            page_bytes: AtomicUsize::new(0),
            requested: AtomicUsize::new(0),
            committed: AtomicUsize::new(0),
            retained: AtomicUsize::new(0),
        }
    }

    /// The calls below this layer.
    pub const fn pages(&self) -> Pages {
        self.pages
    }

    /// The kernel's page size, asked for once.
    pub fn page_bytes(&self) -> usize {
        let known = self.page_bytes.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let bytes = sys::os_page_bytes();
        self.page_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Where the memory is.
    pub fn usage(&self) -> Usage {
        let committed = self.committed.load(Ordering::Relaxed);
        let requested = self.requested.load(Ordering::Relaxed);
        let retained = self.retained.load(Ordering::Relaxed);
        Usage {
            requested,
            rounding: committed.saturating_sub(requested + retained),
            retained,
            committed,
            ..Usage::default()
        }
    }

    fn round(&self, requested: usize) -> Option<usize> {
        let page = self.page_bytes();
        let bytes = requested.checked_next_multiple_of(page)?;
        (bytes <= isize::MAX.cast_unsigned()).then_some(bytes)
    }

    fn commit(&self, before: usize, after: usize) {
        let change = after.wrapping_sub(before);
        self.committed.fetch_add(change, Ordering::Relaxed);
        let signed = change.cast_signed() as i64;
        self.pages.accounts().add_committed(signed);
    }

    /// Maps pages for `shape`, at most three system calls: one for alignments up
    /// to a page, else a map and up to two trims. Not in `usage` as requested.
    pub fn map(&self, shape: Shape) -> Option<NonNull<u8>> {
        let bytes = self.round(shape.requested)?;
        let extra = shape.align.bytes().saturating_sub(self.page_bytes());
        let whole = bytes.checked_add(extra)?;
        let hint = self.next.load(Ordering::Relaxed);
        let wanted = match self.direction {
            Hint::Down if hint != 0 => shape_down(hint, bytes, shape.align),
            Hint::Up => shape.align.up(hint).unwrap_or(0),
            Hint::Off | Hint::Down => 0,
        };
        let at = self.pages.map_near(wanted, whole)?;
        let kept = shape.align.up(at)?;
        self.commit(0, whole);
        self.give_back(at, kept - at);
        self.give_back(kept + bytes, at + whole - kept - bytes);
        let next = if self.direction == Hint::Up {
            kept + bytes
        } else {
            kept
        };
        // Another thread's newer hint is as good as ours.
        let _ = self
            .next
            .compare_exchange(hint, next, Ordering::Relaxed, Ordering::Relaxed);
        NonNull::new(ptr::with_exposed_provenance_mut(kept))
    }

    /// Unmaps pages; what the kernel refuses to unmap is emptied and retained.
    fn give_back(&self, address: usize, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // SAFETY: the range is a mapping of ours that nobody uses any more.
        if unsafe { self.pages.release(address, bytes) } {
            self.commit(bytes, 0);
            return;
        }
        // SAFETY: as above.
        let _ = unsafe { self.pages.purge(address, bytes) };
        self.retained.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Unmaps the pages of a block of `requested` bytes: one system call.
    ///
    /// # Safety
    /// The block came from [`PageLayer::map`] or [`PageLayer::remap_pages`] with
    /// this size; nobody uses it.
    pub unsafe fn unmap(&self, block: NonNull<u8>, requested: usize) {
        if let Some(bytes) = self.round(requested) {
            self.give_back(block.as_ptr().expose_provenance(), bytes);
        }
    }

    /// Resizes pages: nothing to do within the same count, a tail is unmapped,
    /// growth is `mremap`, in place or (`may_move`) anywhere.
    ///
    /// # Safety
    /// As [`PageLayer::unmap`]; after an answer only that block is in use.
    pub unsafe fn remap_pages(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        requested: usize,
        may_move: bool,
    ) -> Option<NonNull<u8>> {
        let (old, new) = (self.round(shape.requested)?, self.round(requested)?);
        let address = block.as_ptr().expose_provenance();
        if new == old {
            return Some(block);
        }
        if new < old {
            // SAFETY: the tail belongs to the block, and the caller lets it go.
            let given = unsafe { self.pages.release(address + new, old - new) };
            if given {
                self.commit(old, new);
            }
            return given.then_some(block);
        }
        if !may_move {
            // SAFETY: a mapping of ours, only growing.
            let grown = unsafe { self.pages.resize(address, old, new) };
            if grown {
                self.commit(old, new);
            }
            return grown.then_some(block);
        }
        if shape.align.bytes() > self.page_bytes() {
            return None;
        }
        // SAFETY: a mapping of ours; the caller uses the answer from now on.
        let moved = unsafe { self.pages.relocate(address, old, new) }?;
        self.commit(old, new);
        NonNull::new(ptr::with_exposed_provenance_mut(moved))
    }

    fn count(&self, before: usize, after: usize) {
        let change = after.wrapping_sub(before);
        self.requested.fetch_add(change, Ordering::Relaxed);
    }
}

/// The place for `bytes` right below `hint`, 0 when there is none.
fn shape_down(hint: usize, bytes: usize, align: Align) -> usize {
    hint.checked_sub(bytes)
        .map_or(0, |at| at & !(align.bytes() - 1))
}

// SAFETY: mappings are fresh, whole pages, and trimmed to the alignment.
unsafe impl Layer for PageLayer {
    fn allocate(&self, shape: Shape, _: Caller) -> Option<NonNull<u8>> {
        let block = self.map(shape)?;
        self.count(0, shape.requested);
        Some(block)
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, _: Caller) -> bool {
        // SAFETY: the caller's duty, passed on.
        let done = unsafe { self.remap_pages(block, shape, to, false) }.is_some();
        if done {
            self.count(shape.requested, to);
        }
        done
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        _: Caller,
    ) -> Option<NonNull<u8>> {
        if shape.align.bytes() > self.page_bytes() {
            return None;
        }
        // SAFETY: the caller's duty, passed on.
        let moved = unsafe { self.remap_pages(block, shape, to, true) }?;
        self.count(shape.requested, to);
        Some(moved)
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, _: Caller) {
        self.count(shape.requested, 0);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.unmap(block, shape.requested) };
    }
}
