//! A bump over a buffer it is handed: no parent, no system call, a hard limit.
//!
//! # Design
//! One stretch of `bump`: the end moves up with each block and back when the last
//! one is freed or shrunk; any other free only leaves a gap. [`Fixed::reset`]
//! takes all back.
//!
//! # Invariants
//! F1. `requested + retained = end`: live bytes, and bytes behind `end` that
//!     serve nobody (alignment gaps, freed blocks). `end + tails = bytes`.
//!
//! # Concurrency
//! [`Fixed`] is for one thread. In [`SharedFixed`] every call is one compare-and-swap
//! of `end`; the counters are exact when no call is under way.
//!
//! # Failure
//! `None` when the buffer is full; nothing changes then.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;

use super::bump::Stretch;
use super::layer::{Caller, Layer, Number, Shape, Usage};

/// See the module's text.
#[derive(Debug)]
pub struct Fixed<'a, N: Number = Cell<usize>> {
    start: NonNull<u8>,
    bytes: usize,
    end: N,
    requested: N,
    retained: N,
    buffer: PhantomData<&'a mut [u8]>,
}

/// [`Fixed`] for any number of threads.
pub type SharedFixed<'a> = Fixed<'a, AtomicUsize>;

// SAFETY: it owns its buffer (exclusively borrowed) and no thread's data.
unsafe impl<N: Number + Send> Send for Fixed<'_, N> {}
// SAFETY: shared use goes through N alone, which is Sync.
unsafe impl<N: Number + Sync> Sync for Fixed<'_, N> {}

impl<'a, N: Number> Fixed<'a, N> {
    /// A bump over `buffer`.
    pub const fn new(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        let bytes = buffer.len();
        // SAFETY: a slice's pointer is not null, and the borrow lasts for 'a.
        unsafe { Self::over(NonNull::new_unchecked(buffer.as_mut_ptr().cast()), bytes) }
    }

    /// A bump over `bytes` at `start`, for statics and memory of a parent.
    ///
    /// # Safety
    /// The range is valid for 'a and used through this value alone.
    pub const unsafe fn over(start: NonNull<u8>, bytes: usize) -> Self {
        Self {
            start,
            bytes,
            end: N::ZERO,
            requested: N::ZERO,
            retained: N::ZERO,
            buffer: PhantomData,
        }
    }

    /// Bytes from the start to the end of the last block.
    pub fn end_index(&self) -> usize {
        self.end.get()
    }

    /// The buffer's size.
    pub const fn capacity(&self) -> usize {
        self.bytes
    }

    /// Takes everything back.
    pub fn reset(&mut self) {
        self.end.set(0);
        self.requested.set(0);
        self.retained.set(0);
    }

    /// True when `pointer` points into the buffer (its end not included).
    pub fn owns(&self, pointer: NonNull<u8>) -> bool {
        pointer.addr().get().wrapping_sub(self.start.addr().get()) < self.bytes
    }

    /// True when all of a block lies in the buffer.
    pub fn owns_block(&self, block: NonNull<u8>, requested: usize) -> bool {
        let offset = block.addr().get().wrapping_sub(self.start.addr().get());
        offset < self.bytes && requested <= self.bytes - offset
    }

    /// True when nothing lies behind the block. An alignment gap behind it
    /// belongs to the next block even after that one was freed: then false.
    pub fn is_last(&self, block: NonNull<u8>, requested: usize) -> bool {
        self.offset(block) + requested == self.end.get()
    }

    fn offset(&self, block: NonNull<u8>) -> usize {
        block.addr().get() - self.start.addr().get()
    }

    fn stretch(&self) -> Stretch<'_, N> {
        Stretch {
            start: self.start.addr().get(),
            bytes: self.bytes,
            end: &self.end,
            requested: &self.requested,
            retained: &self.retained,
        }
    }

    /// Where the buffer's bytes are.
    pub fn usage(&self) -> Usage {
        Usage {
            requested: self.requested.get(),
            retained: self.retained.get(),
            tails: self.bytes - self.end.get(),
            committed: self.bytes,
            ..Usage::default()
        }
    }
}

// SAFETY: `end` only moves past free bytes, one caller at a time (compare-and-swap).
unsafe impl<N: Number> Layer for Fixed<'_, N> {
    fn allocate(&self, shape: Shape, _: Caller) -> Option<NonNull<u8>> {
        let at = self.stretch().take(shape)?;
        // SAFETY: the block lies within the buffer.
        Some(unsafe { self.start.add(at) })
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, _: Caller) -> bool {
        self.stretch().resize(block.addr().get(), shape, to)
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, _: Caller) {
        self.stretch().give(block.addr().get(), shape);
    }
}
