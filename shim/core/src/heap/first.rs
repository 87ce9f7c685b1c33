//! Buffer first: a fixed buffer serves until it is full, then a fallback does.
//!
//! # Design
//! Ownership is by address: a block in the buffer's range is the buffer's.
//!
//! # Concurrency
//! As its two parts: `SharedFixed` over a `Sync` fallback is `Sync`.
//!
//! # Failure
//! `None` when both refuse.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::fixed::Fixed;
use super::layer::{Caller, Layer, Number, Shape};

/// See the module's text.
#[derive(Debug)]
pub struct First<'a, N: Number, F: Layer> {
    buffer: Fixed<'a, N>,
    fallback: F,
}

impl<'a, N: Number, F: Layer> First<'a, N, F> {
    /// `buffer` before `fallback`.
    pub const fn new(buffer: Fixed<'a, N>, fallback: F) -> Self {
        Self { buffer, fallback }
    }

    /// The buffer.
    pub const fn buffer(&self) -> &Fixed<'a, N> {
        &self.buffer
    }

    /// What serves when the buffer is full.
    pub const fn fallback(&self) -> &F {
        &self.fallback
    }
}

// SAFETY: each block goes back to the layer its address says it came from.
unsafe impl<N: Number, F: Layer> Layer for First<'_, N, F> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        let block = self.buffer.allocate(shape, caller);
        block.or_else(|| self.fallback.allocate(shape, caller))
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        // SAFETY: the caller's duty, passed to the block's owner.
        unsafe {
            if self.buffer.owns(block) {
                self.buffer.resize(block, shape, to, caller)
            } else {
                self.fallback.resize(block, shape, to, caller)
            }
        }
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's duty, passed to the block's owner.
        unsafe {
            if self.buffer.owns(block) {
                self.buffer.remap(block, shape, to, caller)
            } else {
                self.fallback.remap(block, shape, to, caller)
            }
        }
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        // SAFETY: the caller's duty, passed to the block's owner.
        unsafe {
            if self.buffer.owns(block) {
                self.buffer.free(block, shape, caller);
            } else {
                self.fallback.free(block, shape, caller);
            }
        }
    }
}
