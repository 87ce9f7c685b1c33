//! Memory of the check's own: mapped for it, unmapped behind it.
#![allow(unsafe_code)]

use core::marker::PhantomData;

use crate::OS_PAGE_BYTES;
use crate::sys;

/// A zeroed array in a mapping of its own. Only what is touched takes memory.
#[derive(Debug)]
pub struct Table<T> {
    at: usize,
    count: usize,
    bytes: usize,
    of: PhantomData<T>,
}

/// Types for which all zeros is a value and that need no drop.
///
/// # Safety
/// Both hold.
pub unsafe trait Plain: Copy {}
// SAFETY: a number.
unsafe impl Plain for u8 {}
// SAFETY: a number.
unsafe impl Plain for usize {}
// SAFETY: two numbers.
unsafe impl Plain for (usize, usize) {}

// SAFETY: numbers.
unsafe impl Plain for super::roots::Still {}

impl<T: Plain> Table<T> {
    /// Room for `count` values, all zeros; `None` without memory.
    pub fn new(count: usize) -> Option<Self> {
        let bytes = count.max(1).checked_mul(size_of::<T>())?;
        let bytes = bytes.checked_next_multiple_of(OS_PAGE_BYTES)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { sys::map_anonymous(0, bytes, sys::PROT_READ_WRITE, false) }.ok()?;
        Some(Self {
            at,
            count,
            bytes,
            of: PhantomData,
        })
    }

    /// The mapping's address and end.
    pub const fn range(&self) -> (usize, usize) {
        (self.at, self.at + self.bytes)
    }

    /// How many values there is room for.
    pub const fn room(&self) -> usize {
        self.count
    }

    /// The first value.
    #[inline(always)]
    pub fn first(&self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.at)
    }

    /// All values.
    pub fn all(&mut self) -> &mut [T] {
        // SAFETY: our own mapping of so many plain values, borrowed with the table.
        unsafe { core::slice::from_raw_parts_mut(self.first(), self.count) }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping; references to it end with the table.
        let _ = unsafe { sys::unmap(self.at, self.bytes) };
    }
}
