//! Free lists per slot of a few threads, powers of two, nothing stored per block.
//!
//! # Design
//! Each of `SLOTS` slots has a lock, a free list and a slab under way for each
//! class (8 bytes to half a slab). A caller tries the slot its thread prefers;
//! when another thread is in it, the next, and so on: it waits only when all are
//! taken. A free goes to the list of whichever slot the freeing thread gets: a
//! block has no owner. Blocks of more than half a slab come from the parent
//! directly. Slabs are never given back, not even on drop.
//!
//! The gpa gives memory back and keeps threads apart; this layer is for those
//! who want a hundred lines they can read, over a parent of their choice.
//!
//! # Concurrency
//! Any thread. Locks are held for a few instructions, or for the parent's call
//! that makes a slab.
//!
//! # Failure
//! `None` when the parent refuses.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::layer::{Align, Caller, Layer, Shape, Usage};
use crate::sync::{Guard, Lock};

/// Bytes of a slab, and its alignment.
pub const SLAB_BYTES: usize = 64 * 1024;
const SMALLEST_LOG2: u32 = 3;
const CLASSES: usize = 13;
const _: () = assert!(8 << (CLASSES - 1) == SLAB_BYTES / 2);
const SLAB: Shape = match Align::new(SLAB_BYTES) {
    Some(align) => Shape::new(SLAB_BYTES, align),
    None => Shape::bytes(SLAB_BYTES),
};

#[derive(Debug)]
struct Lists {
    next: [usize; CLASSES],
    free: [usize; CLASSES],
    requested: usize,
    used_bytes: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Slot(Lock<Lists>);

/// See the module's text.
#[derive(Debug)]
pub struct Smp<P: Layer, const SLOTS: usize = 16> {
    parent: P,
    slots: [Slot; SLOTS],
    slabs: AtomicUsize,
    prefer: fn() -> usize,
}

/// A number that differs between threads: where their stacks are.
fn by_stack() -> usize {
    let here = 0u8;
    let stack = ptr::from_ref(&here).addr() >> 16;
    stack.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

fn class_of(shape: Shape) -> Option<usize> {
    let bytes = shape.requested.max(shape.align.bytes()).max(8);
    let log2 = bytes.checked_next_power_of_two()?.trailing_zeros();
    let class = (log2 - SMALLEST_LOG2) as usize;
    (class < CLASSES).then_some(class)
}

const fn slot_bytes(class: usize) -> usize {
    8 << class
}

impl<P: Layer, const SLOTS: usize> Smp<P, SLOTS> {
    /// Empty lists over `parent`.
    pub const fn new(parent: P) -> Self {
        Self::with_preference(parent, by_stack)
    }

    /// As [`Smp::new`]; `prefer` answers a number for the calling thread, any.
    pub const fn with_preference(parent: P, prefer: fn() -> usize) -> Self {
        Self {
            parent,
            slots: [const {
                Slot(Lock::new(Lists {
                    next: [0; CLASSES],
                    free: [0; CLASSES],
                    requested: 0,
                    used_bytes: 0,
                }))
            }; SLOTS],
            slabs: AtomicUsize::new(0),
            prefer,
        }
    }

    /// What it draws from.
    pub const fn parent(&self) -> &P {
        &self.parent
    }

    /// Slabs taken from the parent so far.
    pub fn slabs(&self) -> usize {
        self.slabs.load(Ordering::Relaxed)
    }

    /// The first slot from number `from` on that is open, and its number; waits
    /// for the preferred one when none is.
    fn lock(&self, from: usize) -> (usize, Guard<'_, Lists>) {
        for step in 0..SLOTS {
            let index = from.wrapping_add(step) % SLOTS;
            if let Some(lists) = self.slots[index].0.try_lock() {
                return (index, lists);
            }
        }
        let index = from % SLOTS;
        (index, self.slots[index].0.lock())
    }

    fn take(lists: &mut Lists, class: usize) -> Option<NonNull<u8>> {
        let listed = NonNull::new(ptr::with_exposed_provenance_mut::<usize>(lists.free[class]));
        if let Some(link) = listed {
            // SAFETY: a listed block is free, at least 8 bytes, and holds the link.
            lists.free[class] = unsafe { link.read() };
            return Some(link.cast());
        }
        let at = lists.next[class];
        if at.is_multiple_of(SLAB_BYTES) {
            return None;
        }
        lists.next[class] = at + slot_bytes(class);
        NonNull::new(ptr::with_exposed_provenance_mut(at))
    }

    fn small(&self, shape: Shape, class: usize, caller: Caller) -> Option<NonNull<u8>> {
        let home = (self.prefer)();
        // One look at another slot's lists before a slab is made.
        for turn in 0..2 {
            let (_, mut lists) = self.lock(home.wrapping_add(turn));
            let mut block = Self::take(&mut lists, class);
            if block.is_none() && turn == 1 {
                let slab = self.parent.allocate(SLAB, caller)?;
                self.slabs.fetch_add(1, Ordering::Relaxed);
                let start = slab.as_ptr().expose_provenance();
                lists.next[class] = start + slot_bytes(class);
                block = Some(slab);
            }
            if let Some(block) = block {
                lists.requested = lists.requested.wrapping_add(shape.requested);
                lists.used_bytes = lists.used_bytes.wrapping_add(slot_bytes(class));
                return Some(block);
            }
        }
        None
    }

    /// Where the slabs are; blocks of the parent's are the parent's to show.
    /// Locks each slot in turn.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            committed: self.slabs() * SLAB_BYTES,
            ..Usage::default()
        };
        let mut used = 0usize;
        for slot in &self.slots {
            let lists = slot.0.lock();
            used = used.wrapping_add(lists.used_bytes);
            usage.requested = usage.requested.wrapping_add(lists.requested);
            for class in 0..CLASSES {
                let left = lists.next[class].wrapping_neg() % SLAB_BYTES;
                usage.tails += left;
                let mut link = lists.free[class];
                while let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut::<usize>(link)) {
                    usage.free_slots += slot_bytes(class);
                    // SAFETY: as in take(), under the lock.
                    link = unsafe { at.read() };
                }
            }
        }
        usage.rounding = used.wrapping_sub(usage.requested);
        usage
    }
}

// SAFETY: slots of a class hold and align what the class was chosen for.
unsafe impl<P: Layer, const SLOTS: usize> Layer for Smp<P, SLOTS> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        match class_of(shape) {
            Some(class) => self.small(shape, class, caller),
            None => self.parent.allocate(shape, caller),
        }
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        match (class_of(shape), class_of(shape.resized(to))) {
            (None, None) => {
                // SAFETY: the caller's duty; such blocks are the parent's.
                unsafe { self.parent.resize(block, shape, to, caller) }
            }
            (old, new) if old == new => {
                let (_, mut lists) = self.lock((self.prefer)());
                let change = to.wrapping_sub(shape.requested);
                lists.requested = lists.requested.wrapping_add(change);
                true
            }
            _ => false,
        }
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's duty; blocks without a class are the parent's.
        unsafe {
            if class_of(shape).is_none() && class_of(shape.resized(to)).is_none() {
                return self.parent.remap(block, shape, to, caller);
            }
            self.resize(block, shape, to, caller).then_some(block)
        }
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        let Some(class) = class_of(shape) else {
            // SAFETY: the caller's duty; such blocks are the parent's.
            unsafe { self.parent.free(block, shape, caller) };
            return;
        };
        let (_, mut lists) = self.lock((self.prefer)());
        lists.requested = lists.requested.wrapping_sub(shape.requested);
        lists.used_bytes = lists.used_bytes.wrapping_sub(slot_bytes(class));
        // SAFETY: the block is free now, at least 8 bytes, 8-aligned by its class.
        unsafe { block.cast::<usize>().write(lists.free[class]) };
        lists.free[class] = block.as_ptr().expose_provenance();
    }
}
