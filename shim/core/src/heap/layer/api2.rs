//! `allocator-api2` for every layer: collections that take an allocator take a
//! [`Front`].
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};

use super::{Caller, Front, Layer};

fn sized(block: Option<NonNull<u8>>, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let block = block.ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(block, layout.size()))
}

// SAFETY: a layer's blocks stay valid until freed; a moved Front moves its layer,
// and blocks of a layer that holds them inline do not exist: each draws from a parent.
unsafe impl<L: Layer> Allocator for Front<&L> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        sized(Front::allocate(self, layout.into()), layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's duty.
        unsafe { self.free(block, layout.into()) };
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's duty.
        let moved = unsafe { self.reshape(block, old.into(), new.into(), Caller::here()) };
        sized(moved, new)
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's duty.
        let moved = unsafe { self.reshape(block, old.into(), new.into(), Caller::here()) };
        sized(moved, new)
    }
}
