//! The list of all heaps; those whose thread has ended, and who takes them over.
//!
//! # Concurrency
//! `state` says who holds a heap; it moves by compare-and-swap.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{EMPTY, Heap, HeapState, page_at};
use crate::heap::gpa::page::FULL;

impl Heap {
    pub(super) fn register(&'static self) {
        let mut old = HEAPS.load(Ordering::Relaxed);
        loop {
            self.next_heap.store(old, Ordering::Relaxed);
            let new = self.address();
            // Release pairs with the Acquire in all_heaps.
            match HEAPS.compare_exchange(old, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// The thread ends: empty pages go back, the rest waits for an heir.
    pub fn park(&self) {
        loop {
            self.drain_delayed();
            self.for_each_page(|page| {
                if page.flags() & FULL == 0 {
                    page.collect_remote();
                }
            });
            self.release_empty();
            self.bell.set(None);
            self.leave();
            // Pairs with the fence in hand_over.
            fence(Ordering::SeqCst);
            if self.delayed.load(Ordering::Relaxed) == 0 || !self.adopt() {
                return;
            }
        }
    }

    fn leave(&self) {
        IDLE_HEAPS.fetch_add(1, Ordering::Relaxed);
        self.state.store(HeapState::Idle as u32, Ordering::Release);
    }

    /// A new thread takes over an idle heap; false when someone was faster.
    pub fn adopt(&self) -> bool {
        let (idle, running) = (HeapState::Idle as u32, HeapState::Running as u32);
        let won = self
            .state
            .compare_exchange(idle, running, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if won {
            IDLE_HEAPS.fetch_sub(1, Ordering::Relaxed);
        }
        won
    }

    /// In a forked child: a heap whose thread did not come along.
    pub fn orphan(&self) {
        if self.state() == HeapState::Running as u32 {
            self.state
                .store(HeapState::Orphan as u32, Ordering::Release);
        }
    }

    /// Moves all pages of an idle heap into this one; false when it is not idle.
    pub(super) fn absorb(&self, other: &'static Self) -> bool {
        // Pages without records would make blocks that look freed twice, or the reverse.
        if other.recording.get() != self.recording.get() {
            return false;
        }
        if other.state() != HeapState::Idle as u32 || !other.adopt() {
            return false;
        }
        let heir = self.address();
        for (class, bin) in other.bins.iter().enumerate() {
            let mut next = page_at(bin.last.get()).map(|_| bin.first.get());
            other.set_first(class, &EMPTY);
            bin.last.set(ptr::null());
            while let Some(page) = next {
                next = page_at(page.next.get());
                page.owner.store(heir | page.flags(), Ordering::Relaxed);
                self.enqueue_last(page);
            }
            let mut next = page_at(bin.full.replace(ptr::null()));
            while let Some(page) = next {
                next = page_at(page.next.get());
                page.owner.store(heir | page.flags(), Ordering::Relaxed);
                self.list_full(page);
            }
            bin.spares.iter().for_each(|spare| spare.set(ptr::null()));
        }
        // Pairs with the fence in hand_over.
        fence(Ordering::SeqCst);
        self.drain_delayed_of(other);
        other.leave();
        true
    }

    /// Absorbs an idle heap that has pages of `class`.
    pub(super) fn absorb_class(&self, class: usize) -> bool {
        all_heaps().any(|heap| {
            let idle = !ptr::eq(heap, self) && heap.state() == HeapState::Idle as u32;
            let kin = ptr::eq(heap.spaces, self.spaces);
            idle && kin && !heap.bins[class].last.get().is_null() && self.absorb(heap)
        })
    }
}

pub(super) static IDLE_HEAPS: AtomicUsize = AtomicUsize::new(0);
static HEAPS: AtomicUsize = AtomicUsize::new(0);

/// Every heap ever set up in this process, newest first.
pub fn all_heaps() -> impl Iterator<Item = &'static Heap> {
    let heap = |address: usize| {
        // SAFETY: the list links heaps that live for ever (H3).
        unsafe { ptr::with_exposed_provenance::<Heap>(address).as_ref() }
    };
    // Acquire pairs with the Release in Heap::register.
    let first = heap(HEAPS.load(Ordering::Acquire));
    core::iter::successors(first, move |last| {
        heap(last.next_heap.load(Ordering::Relaxed))
    })
}

/// Empties the list of all heaps, whose memory may then go.
///
/// # Safety
/// No heap of this process is used any more.
#[cfg(fuzzing)]
pub(in crate::heap::gpa) unsafe fn forget_all_heaps() {
    HEAPS.store(0, Ordering::Relaxed);
}
