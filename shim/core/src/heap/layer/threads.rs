//! How a layer lives with threads: plain cells or atomics, no lock or a lock.
//!
//! # Concurrency
//! [`Number::get`] (Acquire) pairs with [`Number::set`] and [`Number::swap_if`]
//! (Release) of the shared kind. A mutex's `acquire` pairs with its `release`.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::fmt::Debug;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Caller, Layer, Shape};
use crate::sync::Lock;

/// A number that is changed through a shared reference.
pub trait Number: Debug {
    /// Starts at zero.
    const ZERO: Self;
    /// Reads it.
    fn get(&self) -> usize;
    /// Writes it.
    fn set(&self, value: usize);
    /// Writes `new` if it still is `old`.
    fn swap_if(&self, old: usize, new: usize) -> bool;
    /// Adds, wrapping.
    fn add(&self, amount: usize);
    /// Subtracts, wrapping.
    fn sub(&self, amount: usize);
}

impl Number for Cell<usize> {
    const ZERO: Self = Cell::new(0);

    #[inline]
    fn get(&self) -> usize {
        Cell::get(self)
    }
    #[inline]
    fn set(&self, value: usize) {
        Cell::set(self, value);
    }
    #[inline]
    fn swap_if(&self, _: usize, new: usize) -> bool {
        Cell::set(self, new);
        true
    }
    #[inline]
    fn add(&self, amount: usize) {
        Cell::set(self, Cell::get(self).wrapping_add(amount));
    }
    #[inline]
    fn sub(&self, amount: usize) {
        Cell::set(self, Cell::get(self).wrapping_sub(amount));
    }
}

impl Number for AtomicUsize {
    const ZERO: Self = AtomicUsize::new(0);

    #[inline]
    fn get(&self) -> usize {
        self.load(Ordering::Acquire)
    }
    #[inline]
    fn set(&self, value: usize) {
        self.store(value, Ordering::Release);
    }
    #[inline]
    fn swap_if(&self, old: usize, new: usize) -> bool {
        self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
    #[inline]
    fn add(&self, amount: usize) {
        self.fetch_add(amount, Ordering::Relaxed);
    }
    #[inline]
    fn sub(&self, amount: usize) {
        self.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// A lock a layer can be built with.
///
/// # Safety
/// Between `acquire` and `release` of one thread no other thread passes
/// `acquire`; a type that does not hold to that is not `Sync`.
pub unsafe trait Mutex: Debug {
    /// An open lock.
    const OPEN: Self;
    /// Waits for it.
    fn acquire(&self);
    /// Opens it.
    ///
    /// # Safety
    /// This thread acquired it.
    unsafe fn release(&self);
}

/// No lock: for one thread. Not `Sync`, so the compiler keeps it to one.
#[derive(Debug)]
pub struct NoMutex(PhantomData<Cell<()>>);

// SAFETY: not Sync, so only one thread is ever here.
unsafe impl Mutex for NoMutex {
    const OPEN: Self = Self(PhantomData);
    fn acquire(&self) {}
    unsafe fn release(&self) {}
}

/// The crate's spin lock that yields.
#[derive(Debug)]
pub struct SpinMutex(Lock<()>);

// SAFETY: Lock admits one holder.
unsafe impl Mutex for SpinMutex {
    const OPEN: Self = Self(Lock::new(()));
    fn acquire(&self) {
        self.0.hold();
    }
    unsafe fn release(&self) {
        // SAFETY: this thread holds it (caller's duty).
        unsafe { self.0.release() };
    }
}

/// A mutex held until dropped.
#[derive(Debug)]
pub struct Held<'a, M: Mutex>(&'a M);

impl<'a, M: Mutex> Held<'a, M> {
    /// Waits for `mutex`.
    pub fn new(mutex: &'a M) -> Self {
        mutex.acquire();
        Self(mutex)
    }
}

impl<M: Mutex> Drop for Held<'_, M> {
    fn drop(&mut self) {
        // SAFETY: acquired in new().
        unsafe { self.0.release() };
    }
}

/// Numbers and a mutex that belong together.
pub trait Threading: Debug {
    /// Numbers of this kind.
    type Number: Number;
    /// The lock of this kind.
    type Mutex: Mutex;
}

/// For one thread: cells, no lock.
#[derive(Debug)]
pub struct Single;
impl Threading for Single {
    type Number = Cell<usize>;
    type Mutex = NoMutex;
}

/// For many threads: atomics, a lock on slow paths.
#[derive(Debug)]
pub struct Shared;
impl Threading for Shared {
    type Number = AtomicUsize;
    type Mutex = SpinMutex;
}

/// Any layer behind a mutex: `Sync` when the mutex is.
#[derive(Debug)]
pub struct Locked<L, M: Mutex = SpinMutex> {
    layer: L,
    mutex: M,
}

// SAFETY: the layer is used under the mutex only, which is Sync itself.
unsafe impl<L: Send, M: Mutex + Sync> Sync for Locked<L, M> {}

impl<L: Layer, M: Mutex> Locked<L, M> {
    /// `layer`, one call at a time.
    pub const fn new(layer: L) -> Self {
        Self {
            layer,
            mutex: M::OPEN,
        }
    }

    /// The layer, from the only owner.
    pub fn get_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

// SAFETY: forwards to a layer.
unsafe impl<L: Layer, M: Mutex> Layer for Locked<L, M> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        let _held = Held::new(&self.mutex);
        self.layer.allocate(shape, caller)
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        let _held = Held::new(&self.mutex);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.layer.resize(block, shape, to, caller) }
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        let _held = Held::new(&self.mutex);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.layer.remap(block, shape, to, caller) }
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        let _held = Held::new(&self.mutex);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.layer.free(block, shape, caller) }
    }
}
