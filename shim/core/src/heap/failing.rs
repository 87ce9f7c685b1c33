//! A layer that refuses from a chosen allocation on, and the check that runs a
//! piece of code once for every allocation it makes, refusing that one.
//!
//! # Concurrency
//! One thread.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::NonNull;

use super::layer::{Caller, Layer, Shape};

/// See the module's text.
#[derive(Debug)]
pub struct Failing<P: Layer> {
    parent: P,
    fail_index: Cell<usize>,
    resize_fail_index: Cell<usize>,
    resizes: Cell<usize>,
    allocations: Cell<usize>,
    frees: Cell<usize>,
    allocated_bytes: Cell<usize>,
    freed_bytes: Cell<usize>,
    refused: Cell<Option<Caller>>,
}

impl<P: Layer> Failing<P> {
    /// Allows `fail_index` allocations and refuses all after them.
    pub const fn new(parent: P, fail_index: usize) -> Self {
        Self {
            parent,
            fail_index: Cell::new(fail_index),
            resize_fail_index: Cell::new(usize::MAX),
            resizes: Cell::new(0),
            allocations: Cell::new(0),
            frees: Cell::new(0),
            allocated_bytes: Cell::new(0),
            freed_bytes: Cell::new(0),
            refused: Cell::new(None),
        }
    }

    /// Allows `index` resizes and remaps and declines all after them.
    pub fn fail_resizes_from(&self, index: usize) {
        self.resize_fail_index.set(index);
    }

    /// What it forwards to.
    pub const fn parent(&self) -> &P {
        &self.parent
    }

    /// Allocations that went through.
    pub fn allocations(&self) -> usize {
        self.allocations.get()
    }

    /// Blocks taken back.
    pub fn frees(&self) -> usize {
        self.frees.get()
    }

    /// Requested bytes handed out, growth included.
    pub fn allocated_bytes(&self) -> usize {
        self.allocated_bytes.get()
    }

    /// Requested bytes taken back, shrinking included.
    pub fn freed_bytes(&self) -> usize {
        self.freed_bytes.get()
    }

    /// True once an allocation was refused on purpose.
    pub fn has_failed(&self) -> bool {
        self.refused.get().is_some()
    }

    /// Who asked for the first allocation refused on purpose.
    pub fn failed_caller(&self) -> Option<Caller> {
        self.refused.get()
    }

    fn may_resize(&self) -> bool {
        let may = self.resizes.get() < self.resize_fail_index.get();
        self.resizes.set(self.resizes.get() + usize::from(may));
        may
    }

    fn change(&self, before: usize, after: usize) {
        let grown = after.saturating_sub(before);
        let shrunk = before.saturating_sub(after);
        self.allocated_bytes.set(self.allocated_bytes.get() + grown);
        self.freed_bytes.set(self.freed_bytes.get() + shrunk);
    }
}

// SAFETY: forwards to a layer, or refuses.
unsafe impl<P: Layer> Layer for Failing<P> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        if self.allocations.get() >= self.fail_index.get() {
            if !self.has_failed() {
                self.refused.set(Some(caller));
            }
            return None;
        }
        let block = self.parent.allocate(shape, caller)?;
        self.allocations.set(self.allocations.get() + 1);
        self.change(0, shape.requested);
        Some(block)
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        if !self.may_resize() {
            return false;
        }
        // SAFETY: the caller's duty, passed on.
        let done = unsafe { self.parent.resize(block, shape, to, caller) };
        if done {
            self.change(shape.requested, to);
        }
        done
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        if !self.may_resize() {
            return None;
        }
        // SAFETY: the caller's duty, passed on.
        let moved = unsafe { self.parent.remap(block, shape, to, caller) }?;
        self.change(shape.requested, to);
        Some(moved)
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        self.frees.set(self.frees.get() + 1);
        self.change(shape.requested, 0);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.parent.free(block, shape, caller) };
    }
}

/// The code under test met "no memory".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// What [`check_all_allocation_failures`] found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The first run, in which nothing was refused on purpose, ran out of memory.
    Starved,
    /// Allocation `fail_index` was refused and the code said all was well.
    Swallowed {
        /// The refused allocation, counted from 0.
        fail_index: usize,
    },
    /// Bytes were not given back after allocation `fail_index` was refused
    /// (`None`: in the run in which nothing was refused).
    Leaked {
        /// The refused allocation, counted from 0.
        fail_index: Option<usize>,
        /// Bytes that did not come back.
        bytes: usize,
    },
    /// The code made fewer allocations than in its first run.
    NotRepeatable {
        /// The allocation that was to be refused.
        fail_index: usize,
    },
}

/// Runs `code` once to count its allocations, then once for each with that one
/// (and all later ones) refused. Answers how many there were.
///
/// Each run must answer [`OutOfMemory`] when something was refused, and must
/// have given back every byte.
///
/// # Errors
/// The first [`Flaw`] found.
pub fn check_all_allocation_failures<P: Layer>(
    parent: &P,
    mut code: impl FnMut(&Failing<&P>) -> Result<(), OutOfMemory>,
) -> Result<usize, Flaw> {
    let leaked = |run: &Failing<&P>| run.allocated_bytes() - run.freed_bytes();
    let free_run = Failing::new(parent, usize::MAX);
    code(&free_run).map_err(|OutOfMemory| Flaw::Starved)?;
    let bytes = leaked(&free_run);
    if bytes != 0 {
        let fail_index = None;
        return Err(Flaw::Leaked { fail_index, bytes });
    }
    for fail_index in 0..free_run.allocations() {
        let run = Failing::new(parent, fail_index);
        let answer = code(&run);
        if !run.has_failed() {
            return Err(Flaw::NotRepeatable { fail_index });
        }
        if answer.is_ok() {
            return Err(Flaw::Swallowed { fail_index });
        }
        let bytes = leaked(&run);
        if bytes != 0 {
            let fail_index = Some(fail_index);
            return Err(Flaw::Leaked { fail_index, bytes });
        }
    }
    Ok(free_run.allocations())
}
