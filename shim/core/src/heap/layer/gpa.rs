//! The gpa as a layer: one heap behind the four calls.
//!
//! # Concurrency
//! A heap belongs to one thread at a time, so the layer is `Send`, not `Sync`;
//! [`super::Locked`] makes it both. Blocks may be freed through any layer over
//! the same spaces.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::{self, NonNull};

use pageshim_wire::process::{CLASS_WORDS, class, word};

use super::{Caller, Layer, Shape, Usage};
use crate::heap::accounts::Accounts;
use crate::heap::gpa::classes::{
    ALIGN, CLASSES, SINGLETON, SLOT_MAX, aligned_class, class_of, slot_bytes,
};
use crate::heap::gpa::{Block, Heap, Page, Spaces};
use crate::heap::page::Pages;

/// See the module's text.
#[derive(Debug)]
pub struct GpaLayer {
    heap: &'static Heap,
    accounts: &'static Accounts,
    requested: Cell<usize>,
    rounding: Cell<usize>,
    used: [Cell<usize>; CLASSES],
}

// SAFETY: moves between threads as a whole (module text): H1 of the heap holds.
unsafe impl Send for GpaLayer {}

impl GpaLayer {
    /// A heap of its own over `spaces`, which are reserved (`span` bytes, halving
    /// on refusal) if they are not yet. Its struct is mapped from `pages` and
    /// lives for ever. `None` when the kernel refuses.
    pub fn open(spaces: &'static Spaces, pages: Pages, span: usize) -> Option<Self> {
        if !spaces.first().is_reserved() && !spaces.reserve(span) {
            return None;
        }
        let bytes = size_of::<Heap>().next_multiple_of(crate::OS_PAGE_BYTES);
        let at = pages.map(bytes)?;
        let accounts = pages.accounts();
        accounts.add(word::METADATA, i64::try_from(bytes).unwrap_or(0));
        let place = ptr::with_exposed_provenance_mut::<Heap>(at);
        // SAFETY: fresh pages, never unmapped, aligned to a page.
        let heap = unsafe { Heap::place_unlisted(place, spaces, accounts, false) };
        Some(Self::new(heap, accounts))
    }

    /// The layer over a heap this thread holds; its books start empty.
    pub const fn new(heap: &'static Heap, accounts: &'static Accounts) -> Self {
        Self {
            heap,
            accounts,
            requested: Cell::new(0),
            rounding: Cell::new(0),
            used: [const { Cell::new(0) }; CLASSES],
        }
    }

    /// The heap behind it.
    #[cfg(fuzzing)]
    pub const fn heap(&self) -> &'static Heap {
        self.heap
    }

    /// Gives a layer's heap and all addresses of its spaces back.
    ///
    /// # Safety
    /// No block and no other heap of these spaces is used any more.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(heap: &'static Heap, pages: Pages) {
        let spaces = heap.spaces();
        let bytes = size_of::<Heap>().next_multiple_of(crate::OS_PAGE_BYTES);
        // SAFETY: the caller's duty.
        unsafe {
            spaces.unmap();
            pages.release(ptr::from_ref(heap).addr(), bytes);
        }
    }

    /// Gives back what serves no block; answers bytes returned to the kernel.
    pub fn trim(&self) -> usize {
        self.heap.trim()
    }

    /// Where the heap's memory is, when this layer is the only one over its
    /// spaces and accounts.
    pub fn usage(&self) -> Usage {
        let at = |index: usize| read(self.accounts, index);
        let mut usage = Usage {
            requested: self.requested.get(),
            rounding: self.rounding.get(),
            metadata: at(word::METADATA),
            committed: at(word::HEAP_COMMITTED) + at(word::METADATA),
            ..Usage::default()
        };
        let mut runs = 0;
        for (index, used) in self.used.iter().enumerate() {
            let first = word::CLASSES + index * CLASS_WORDS;
            let (run, slots) = (at(first + class::PAGE_BYTES), at(first + class::CAPACITY));
            runs += run;
            if index == SINGLETON {
                usage.tails += run - slots;
            } else {
                usage.free_slots += (slots - used.get()) * slot_bytes(index);
                usage.tails += run - slots * slot_bytes(index);
            }
        }
        usage.retained = at(word::HEAP_COMMITTED) - runs;
        usage
    }

    fn page(&self, block: NonNull<u8>) -> Option<&'static Page> {
        let address = block.as_ptr().expose_provenance();
        let spaces = self.heap.spaces();
        let page = spaces.page_of(address)?;
        Some(spaces.head_of(page, address))
    }

    fn count(&self, page: &Page, requested: usize) {
        self.requested.set(self.requested.get() + requested);
        self.rounding
            .set(self.rounding.get() + page.usable() - requested);
        let used = &self.used[page.class()];
        used.set(used.get() + 1);
    }

    fn uncount(&self, page: &Page, requested: usize) {
        self.requested.set(self.requested.get() - requested);
        self.rounding
            .set(self.rounding.get() + requested - page.usable());
        let used = &self.used[page.class()];
        used.set(used.get() - 1);
    }
}

fn read(accounts: &Accounts, index: usize) -> usize {
    let value = accounts
        .word(index)
        .load(core::sync::atomic::Ordering::Relaxed);
    usize::try_from(value).unwrap_or(usize::MAX)
}

// SAFETY: the gpa's slots and runs hold what their class promises.
unsafe impl Layer for GpaLayer {
    fn allocate(&self, shape: Shape, _: Caller) -> Option<NonNull<u8>> {
        let (requested, align) = (shape.requested, shape.align.bytes());
        if requested > isize::MAX.cast_unsigned() {
            return None;
        }
        let class = if align <= ALIGN && requested <= SLOT_MAX {
            Some(class_of(requested))
        } else {
            aligned_class(requested, align)
        };
        let (block, page) = match class {
            Some(class) => self.heap.take_class(class)?,
            None => {
                let (block, page, _) = self.heap.take_single(requested, align)?;
                (block, page)
            }
        };
        self.count(page, requested);
        NonNull::new(block.pointer())
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, _: Caller) -> bool {
        let Some(page) = self.page(block) else {
            return false;
        };
        if to > isize::MAX.cast_unsigned() {
            return false;
        }
        self.uncount(page, shape.requested);
        // A slot serves any size it holds; a smaller one would move the block.
        let done = if page.is_single() {
            to > SLOT_MAX && self.heap.resize_single(page, to)
        } else {
            to <= page.usable()
        };
        self.count(page, if done { to } else { shape.requested });
        done
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, _: Caller) {
        let Some(page) = self.page(block) else {
            return;
        };
        self.uncount(page, shape.requested);
        self.heap.give(page, Block::at(block));
    }
}
