//! Which stack memory may be read, per stack and not per thread.
//!
//! A thread may run on its own stack, a coroutine's, or a signal's alternate
//! one; a coroutine's may vanish and another come in its place. So bounds are
//! learnt from the stack pointer: the page it points into is in use, and further
//! pages upwards are probed one by one when a frame needs them.
//!
//! # Design
//! ```text
//! own      [own_lo, own_hi)   the thread's own stack as its maker knows it; never probed
//! active   [lo, hi)           the stack last entered; hi grows page by page, `wall` is
//!                             the first page found unreadable above it
//! ```
//! Entering another stack forgets the active one. Two probes per switch are the
//! price of never trusting a mapping that may have gone: a thread cannot unmap
//! the stack it stands on, so knowledge is dropped exactly when it left it.
//!
//! # Invariants
//! B1: every aligned word in `[lo, hi)` was readable when the stack was entered
//! or when `hi` grew over it, and the thread has not been seen elsewhere since.
//!
//! # Safety
//! The only raw read of the unwinder is [`peek`]; callers show B1.
#![allow(unsafe_code)]

use super::kernel;

const PAGE: u64 = 4096;
/// How far above a stack pointer an unknown stack is explored (16 MiB).
const REACH: u64 = 16 << 20;
/// A stack pointer this close above the active stack is tried as part of it.
const NEAR: u64 = 64 << 10;
/// Bytes below the stack pointer that belong to the running function.
const RED_ZONE: u64 = 128;
/// End of user addresses on x86-64.
const USER_END: u64 = 1 << 47;

/// Readable stack memory of one thread. All zeros is valid: everything is probed.
/// One per thread; made anew, or [`Self::forget`], when handed to another.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Bounds {
    own_lo: u64,
    own_hi: u64,
    lo: u64,
    hi: u64,
    wall: u64,
    probe: Option<fn(u64) -> bool>,
}

/// Reads a word.
///
/// # Safety
/// `address` is aligned and readable (B1).
#[inline(always)]
pub(crate) unsafe fn peek(address: u64) -> u64 {
    debug_assert_eq!(address % 8, 0);
    let from = core::ptr::with_exposed_provenance::<u64>(address as usize);
    // SAFETY: the caller's duty. Volatile: the memory belongs to running code.
    unsafe { from.read_volatile() }
}

/// A distance in words; beyond all words when it is not a multiple of one.
#[inline(always)]
const fn words(bytes: u64) -> u64 {
    bytes.rotate_right(3)
}

impl Bounds {
    /// Bounds of a thread whose own stack is `[lo, hi)`, mapped for as long as
    /// the thread lives; `(0, 0)` when unknown.
    pub const fn new(lo: u64, hi: u64) -> Self {
        Self {
            own_lo: (lo + 7) & !7,
            own_hi: hi & !7,
            lo: 0,
            hi: 0,
            wall: 0,
            probe: None,
        }
    }

    /// As [`Self::new`], asking `probe` instead of the kernel whether the word
    /// at an address can be read. `None` goes back to the kernel.
    pub fn set_probe(&mut self, probe: Option<fn(u64) -> bool>) {
        self.probe = probe;
        self.forget();
    }

    /// Forgets what was probed. For a forked child, or after a stack was unmapped.
    pub const fn forget(&mut self) {
        (self.lo, self.hi, self.wall) = (0, 0, 0);
    }

    /// Makes the stack that holds `sp` the active one; false when it has none.
    #[inline(always)]
    pub(crate) fn enter(&mut self, sp: u64) -> bool {
        if self.holds(sp) && sp.is_multiple_of(8) {
            return true;
        }
        self.enter_slow(sp)
    }

    #[cold]
    fn enter_slow(&mut self, sp: u64) -> bool {
        if !sp.is_multiple_of(8) || !(PAGE..USER_END).contains(&sp) {
            return false;
        }
        if (self.own_lo..self.own_hi).contains(&sp) {
            (self.lo, self.hi, self.wall) = (self.own_lo, self.own_hi, self.own_hi);
            return true;
        }
        if sp >= self.hi && sp - self.hi < NEAR && self.grow(sp) {
            return true; // the same stack, further out
        }
        let page = sp & !(PAGE - 1);
        if !self.readable(sp) {
            self.forget();
            return false;
        }
        if self.lo == page + PAGE && self.hi > self.lo && self.lo != self.own_lo {
            self.lo = page; // the same stack, one page deeper
            return true;
        }
        let end = page + PAGE;
        // Interrupted code may have saved rbp in the red zone, a page below.
        let red = (sp - RED_ZONE) & !(PAGE - 1);
        let lo = if red < page && self.readable(red) {
            red
        } else {
            page
        };
        (self.lo, self.hi) = (lo, end);
        self.wall = end.saturating_add(REACH).min(USER_END);
        true
    }

    /// True when the word at `address` is known to be readable.
    #[inline(always)]
    pub(crate) const fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.lo) < self.hi.wrapping_sub(self.lo)
    }

    /// True when the active stack holds all from `sp` up to and including `address`,
    /// which is not below `sp`.
    #[inline(always)]
    pub(crate) const fn spans(&self, sp: u64, address: u64) -> bool {
        sp >= self.lo && address < self.hi
    }

    /// True when the active stack is readable up to and including `address`.
    #[inline(always)]
    pub(crate) fn reaches(&mut self, address: u64) -> bool {
        address < self.hi || self.grow(address)
    }

    /// The word at `address` on the active stack; `None` when it is not of it.
    #[inline(always)]
    pub(crate) fn read(&mut self, address: u64) -> Option<u64> {
        let bytes = self.hi.wrapping_sub(self.lo);
        if words(address.wrapping_sub(self.lo)) < bytes / 8 {
            // SAFETY: aligned as `lo` is, and inside [lo, hi): B1.
            return Some(unsafe { peek(address) });
        }
        self.read_slow(address)
    }

    /// As [`Self::read`], for an address not below `sp`, on the stack entered at or
    /// below `sp`; one compare. `None` also when [`Self::read`] would have to think.
    #[inline(always)]
    pub(crate) fn read_above(&self, sp: u64, address: u64) -> Option<u64> {
        let bytes = self.hi.saturating_sub(sp);
        if words(address.wrapping_sub(sp)) < bytes / 8 {
            // SAFETY: aligned as `sp` is, and inside [sp, hi), with lo <= sp: B1.
            return Some(unsafe { peek(address) });
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn read_slow(&mut self, address: u64) -> Option<u64> {
        if !address.is_multiple_of(8) || !(self.holds(address) || self.grow(address)) {
            return None;
        }
        // SAFETY: aligned, and inside [lo, hi): B1.
        Some(unsafe { peek(address) })
    }

    /// The word at `address` on whichever stack it is; may switch stacks.
    pub(crate) fn read_anywhere(&mut self, address: u64) -> Option<u64> {
        match self.read(address) {
            Some(word) => Some(word),
            None if self.enter(address) => self.read(address),
            None => None,
        }
    }

    #[cold]
    fn grow(&mut self, address: u64) -> bool {
        if address < self.hi || address >= self.wall {
            return false;
        }
        while self.hi <= address {
            if !self.readable(self.hi) {
                self.wall = self.hi;
                return false;
            }
            self.hi += PAGE;
        }
        true
    }

    fn readable(&self, address: u64) -> bool {
        self.probe.unwrap_or(kernel::readable)(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_pages(address: u64) -> bool {
        (0x10000..0x13000).contains(&address)
    }

    // Goal: an unknown stack grows upwards to its wall and no further, and is
    // dropped when another one is entered. Method: a fake kernel with three pages.
    #[test]
    fn an_unknown_stack_is_probed_up_to_its_wall() {
        let mut bounds = Bounds::new(0x50000, 0x60000);
        bounds.set_probe(Some(three_pages));
        assert!(bounds.enter(0x10ff8));
        assert!(bounds.holds(0x10000) && !bounds.holds(0x11000));
        assert!(bounds.grow(0x12ff8) && bounds.holds(0x12ff8));
        assert!(!bounds.grow(0x13000) && !bounds.grow(0x13008));
        assert!(!bounds.holds(0xfff8));
        bounds.forget();
        assert!(bounds.enter(0x10ff8) && bounds.enter(0x12008) && bounds.holds(0x10ff8));
        bounds.forget();
        assert!(bounds.enter(0x12008) && bounds.holds(0x11ff8) && !bounds.holds(0x10ff8));
        bounds.forget();
        assert!(bounds.enter(0x10008) && !bounds.grow(0x13008));
        assert!(bounds.enter(0x50008) && bounds.holds(0x5fff8));
        assert!(!bounds.holds(0x10ff8) && !bounds.holds(0x60000));
        assert!(!bounds.enter(0x20000), "nothing there");
        assert!(!bounds.enter(0x10001), "not aligned");
        assert!(bounds.enter(0x12000) && bounds.enter(0x11ff8));
        assert!(bounds.holds(0x12ff8), "one page deeper is the same stack");
    }
}
