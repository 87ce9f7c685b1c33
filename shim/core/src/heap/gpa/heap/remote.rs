//! Frees into pages of other heaps.
//!
//! # Concurrency
//! See [`Heap`]'s text; every step here may meet the owner's.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::{Ordering, fence};

use super::{Heap, HeapState};
use crate::heap::gpa::block::Block;
use crate::heap::gpa::page::{NOTIFY, Page};

impl Heap {
    pub(super) fn other_heap(&self, page: &Page) -> Option<&'static Self> {
        let address = page.owner_heap();
        // SAFETY: H3: owner words hold addresses of heaps that live for ever, or 0.
        unsafe { ptr::with_exposed_provenance::<Self>(address).as_ref() }
    }

    pub(super) fn give_remote(&self, page: &'static Page, block: Block) {
        page.mark_free(block);
        let mut old = page.remote.load(Ordering::Relaxed);
        loop {
            let new = if old & NOTIFY != 0 {
                0
            } else {
                block.set_next(ptr::with_exposed_provenance_mut(old));
                block.address()
            };
            // Release pairs with the Acquire in Page::collect_remote.
            match page
                .remote
                .compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if old & NOTIFY != 0 => break,
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
        self.hand_over(page, block);
    }

    /// The page is full and its owner wants to hear of it: the block itself goes
    /// to the owner, still counted as used, so that the page cannot vanish.
    ///
    /// The owner may lose the page, or end, while the block is on its way. Each
    /// side first writes, then looks, with a fence between: the owner's heir stores
    /// its name in the page and then takes the list (in absorb), a thread that ends
    /// stores Idle and then looks at the list (in park), and here the block is
    /// listed before the page and the state are read. So one of the two sees it.
    fn hand_over(&self, page: &'static Page, block: Block) {
        let Some(owner) = self.other_heap(page) else {
            return;
        };
        owner.list_delayed(block);
        fence(Ordering::SeqCst);
        let moved = page.owner_heap() != owner.address();
        if moved {
            self.drain_delayed_of(owner);
        } else if owner.state() == HeapState::Idle as u32 {
            self.absorb(owner);
        }
    }

    fn list_delayed(&self, block: Block) {
        let mut old = self.delayed.load(Ordering::Relaxed);
        loop {
            block.set_next(ptr::with_exposed_provenance_mut(old));
            // Release pairs with the Acquire in drain_delayed_of.
            match self.delayed.compare_exchange_weak(
                old,
                block.address(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// Takes what other threads freed into full pages of `heap`: ours, or one whose
    /// pages we have just absorbed.
    pub(super) fn drain_delayed_of(&self, heap: &Self) {
        if heap.delayed.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut next = Block::from_address(heap.delayed.swap(0, Ordering::Acquire));
        while let Some(block) = next {
            next = NonNull::new(block.next()).map(Block::at);
            let Some(page) = self.spaces.page_of(block.address()) else {
                continue;
            };
            let page = self.spaces.head_of(page, block.address());
            if page.owner_heap() == self.address() {
                self.give(page, block);
            } else {
                // The page moved on. Its new owner must hear of it all the same:
                // a plain remote free would wait for a look nobody takes.
                self.hand_over(page, block);
            }
        }
    }

    pub(super) fn drain_delayed(&self) {
        self.drain_delayed_of(self);
    }
}
