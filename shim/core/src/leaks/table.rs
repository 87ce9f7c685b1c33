//! Memory of the check's own: mapped for it, unmapped behind it.
#![allow(unsafe_code)]

use core::marker::PhantomData;

use crate::OS_PAGE_BYTES;
use crate::sys;

/// What the kernel backs with one entry of the page table where it may.
const HUGE_BYTES: usize = 2 << 20;

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

    /// The same for what is used at random all over: whole huge pages of it are asked for as such,
    /// for a word in each is found without the page table.
    pub fn huge(count: usize) -> Option<Self> {
        let bytes = count.checked_mul(size_of::<T>())?;
        if bytes < HUGE_BYTES {
            return Self::new(count);
        }
        let bytes = bytes.checked_next_multiple_of(OS_PAGE_BYTES)?;
        let room = bytes.checked_add(HUGE_BYTES)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let from = unsafe { sys::map_anonymous(0, room, sys::PROT_READ_WRITE, false) }.ok()?;
        let at = from.next_multiple_of(HUGE_BYTES);
        // SAFETY: the ends of our own mapping, not used yet; it keeps `bytes` from `at` on.
        unsafe {
            let _ = sys::unmap(from, at - from);
            let _ = sys::unmap(at + bytes, from + room - at - bytes);
        }
        // SAFETY: advice on our own mapping; the content is kept.
        let _ = unsafe { sys::advise(at, bytes & !(HUGE_BYTES - 1), sys::HUGEPAGE) };
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

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a large table begins with a huge page, is as long as it must be, and zero. Method: its last value.
    #[test]
    fn a_large_table_begins_with_a_huge_page() {
        for (bytes, aligned) in [(1 << 20, false), (HUGE_BYTES, true), ((5 << 20) + 3, true)] {
            let mut table = Table::<u8>::huge(bytes).expect("memory");
            let (from, to) = table.range();
            assert_eq!(to - from, bytes.next_multiple_of(OS_PAGE_BYTES));
            assert!(!aligned || from.is_multiple_of(HUGE_BYTES));
            assert_eq!(table.all().last_mut().map(core::mem::take), Some(0));
        }
    }
}
