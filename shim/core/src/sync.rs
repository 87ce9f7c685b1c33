//! A lock for slow paths that can neither allocate nor call libc.
//!
//! # Concurrency
//! `acquire` (Acquire) pairs with the Release store in `Guard::drop`.
//! Holders run a bounded number of instructions and at most a few system calls.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// A value behind a spin lock that yields.
#[derive(Debug)]
pub struct Lock<T> {
    held: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, one at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to use the value.
#[derive(Debug)]
pub struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self {
            held: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        let mut spins = 0u32;
        while self.held.swap(1, Ordering::Acquire) != 0 {
            while self.held.load(Ordering::Relaxed) != 0 {
                spins = spins.wrapping_add(1);
                if spins.is_multiple_of(128) {
                    sys::yield_now();
                } else {
                    core::hint::spin_loop();
                }
            }
        }
        Guard(self)
    }

    /// Takes the lock when it is open.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Not then_some: a guard made and dropped would open the holder's lock.
        (self.held.swap(1, Ordering::Acquire) == 0).then(|| Guard(self))
    }

    /// Takes the lock and leaves it taken, for the time of a fork.
    pub fn hold(&self) {
        core::mem::forget(self.lock());
    }

    /// Opens a lock taken by [`Lock::hold`]; in a forked child also one whose
    /// holder did not survive.
    ///
    /// # Safety
    /// No other thread of this process is inside the lock.
    pub unsafe fn release(&self) {
        self.held.store(0, Ordering::Release);
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.held.store(0, Ordering::Release);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only way in.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only way in.
        unsafe { &mut *self.0.value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a failed try leaves the lock to its holder. Method: try twice while it is held.
    #[test]
    fn a_failed_try_leaves_the_lock_held() {
        let lock = Lock::new(7);
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        assert!(lock.try_lock().is_none(), "the first try opened it");
        drop(held);
        assert_eq!(lock.try_lock().map(|value| *value), Some(7));
        assert!(lock.try_lock().is_some(), "given back");
    }
}
