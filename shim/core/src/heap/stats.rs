//! A layer that counts and forwards: a counter is a layer, not a line in six
//! functions.
//!
//! # Concurrency
//! Any thread the parent admits; each counter is exact, sums over several are
//! exact when no call is under way.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::layer::{Caller, Layer, Shape};

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks handed out.
    pub allocations: u64,
    /// Blocks taken back.
    pub frees: u64,
    /// Requests the parent refused.
    pub refused: u64,
    /// Blocks resized in place.
    pub resized: u64,
    /// Blocks moved by [`Layer::remap`].
    pub moved: u64,
    /// Resizes and remaps the parent declined.
    pub declined: u64,
    /// Requested bytes handed out, growth included.
    pub allocated_bytes: u64,
    /// Requested bytes taken back, shrinking included.
    pub freed_bytes: u64,
    /// Most live requested bytes.
    pub peak_bytes: u64,
}

impl Counts {
    /// Requested bytes of live blocks.
    pub const fn live_bytes(&self) -> u64 {
        self.allocated_bytes.wrapping_sub(self.freed_bytes)
    }

    /// Live blocks.
    pub const fn live_blocks(&self) -> u64 {
        self.allocations.wrapping_sub(self.frees)
    }
}

#[derive(Clone, Copy)]
#[repr(usize)]
enum Field {
    Allocations,
    Frees,
    Refused,
    Resized,
    Moved,
    Declined,
    AllocatedBytes,
    FreedBytes,
    PeakBytes,
    LiveBytes,
}

/// See the module's text.
#[derive(Debug)]
pub struct Stats<P: Layer> {
    parent: P,
    words: [AtomicU64; Field::LiveBytes as usize + 1],
}

impl<P: Layer> Stats<P> {
    /// Counts what goes to `parent`.
    pub const fn new(parent: P) -> Self {
        Self {
            parent,
            words: [const { AtomicU64::new(0) }; Field::LiveBytes as usize + 1],
        }
    }

    /// What it forwards to.
    pub const fn parent(&self) -> &P {
        &self.parent
    }

    /// The counters now.
    pub fn counts(&self) -> Counts {
        let read = |field: Field| self.words[field as usize].load(Ordering::Relaxed);
        Counts {
            allocations: read(Field::Allocations),
            frees: read(Field::Frees),
            refused: read(Field::Refused),
            resized: read(Field::Resized),
            moved: read(Field::Moved),
            declined: read(Field::Declined),
            allocated_bytes: read(Field::AllocatedBytes),
            freed_bytes: read(Field::FreedBytes),
            peak_bytes: read(Field::PeakBytes),
        }
    }

    fn add(&self, field: Field, amount: u64) -> u64 {
        let before = self.words[field as usize].fetch_add(amount, Ordering::Relaxed);
        before.wrapping_add(amount)
    }

    fn change(&self, before: usize, after: usize) {
        let (before, after) = (before as u64, after as u64);
        if after > before {
            self.add(Field::AllocatedBytes, after - before);
        } else {
            self.add(Field::FreedBytes, before - after);
        }
        let live = self.add(Field::LiveBytes, after.wrapping_sub(before));
        if after > before {
            self.words[Field::PeakBytes as usize].fetch_max(live, Ordering::Relaxed);
        }
    }
}

// SAFETY: forwards to a layer.
unsafe impl<P: Layer> Layer for Stats<P> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        let Some(block) = self.parent.allocate(shape, caller) else {
            self.add(Field::Refused, 1);
            return None;
        };
        self.add(Field::Allocations, 1);
        self.change(0, shape.requested);
        Some(block)
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        // SAFETY: the caller's duty, passed on.
        if unsafe { self.parent.resize(block, shape, to, caller) } {
            self.add(Field::Resized, 1);
            self.change(shape.requested, to);
            return true;
        }
        self.add(Field::Declined, 1);
        false
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's duty, passed on.
        let Some(moved) = (unsafe { self.parent.remap(block, shape, to, caller) }) else {
            self.add(Field::Declined, 1);
            return None;
        };
        let how = if moved == block {
            Field::Resized
        } else {
            Field::Moved
        };
        self.add(how, 1);
        self.change(shape.requested, to);
        Some(moved)
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        // A free is counted before the block can be handed out again.
        self.add(Field::Frees, 1);
        self.change(shape.requested, 0);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.parent.free(block, shape, caller) };
    }
}
