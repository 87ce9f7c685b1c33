//! A block while it is free: a link to the next free one, and a mark.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

/// A block of memory that holds no user data now: its first word links to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(NonNull<u8>);

impl Block {
    /// A block at a pointer of ours.
    pub const fn at(pointer: NonNull<u8>) -> Self {
        Self(pointer)
    }

    /// A block at an address of ours, `None` for zero.
    pub fn from_address(address: usize) -> Option<Self> {
        NonNull::new(ptr::with_exposed_provenance_mut(address)).map(Self)
    }

    /// The block's address.
    pub fn address(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// The block's place.
    pub const fn not_null(self) -> NonNull<u8> {
        self.0
    }

    /// The block as the caller gets it.
    pub const fn pointer(self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// Its second word, which names its page while it is free.
    #[inline]
    pub(super) fn mark(self) -> usize {
        // SAFETY: blocks are at least 16 bytes of ours.
        unsafe { self.0.cast::<usize>().add(1).read() }
    }

    #[inline]
    pub(super) fn set_mark(self, mark: usize) {
        // SAFETY: as above; the block is free, or just being handed out.
        unsafe { self.0.cast::<usize>().add(1).write(mark) };
    }

    /// Makes a block just taken forget the free block after it: a leak check would take the link
    /// for a pointer of the program's, which may never write there.
    #[inline(always)]
    pub fn forget_link(self) {
        self.set_next(ptr::null_mut());
    }

    #[inline]
    pub(super) fn next(self) -> *mut u8 {
        // SAFETY: a free block is at least 16 bytes of ours, 16-aligned, and holds a link.
        unsafe { self.0.cast::<*mut u8>().read() }
    }

    #[inline]
    pub(super) fn set_next(self, next: *mut u8) {
        // SAFETY: as in next(); nobody else uses a free block.
        unsafe { self.0.cast::<*mut u8>().write(next) };
    }
}
