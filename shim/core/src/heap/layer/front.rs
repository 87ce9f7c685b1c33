//! A layer as people use it: typed values, slices, empty requests, growth, and
//! Rust's [`GlobalAlloc`].
//!
//! # Failure
//! `None` when the layer refuses; what the caller held stays valid.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use super::{Align, Caller, Layer, Shape};

/// The face of a layer; `Front(&layer)` borrows it, `Front(layer)` owns it.
#[derive(Clone, Copy, Debug)]
pub struct Front<L>(
    /// The layer behind it.
    pub L,
);

/// Where empty blocks are: aligned, never read or freed.
const fn empty(align: Align) -> NonNull<u8> {
    match NonNull::new(ptr::without_provenance_mut(align.bytes())) {
        Some(pointer) => pointer,
        None => NonNull::dangling(),
    }
}

impl<L: Layer> Front<L> {
    /// A block of `shape`; an empty request gets an aligned address that needs
    /// no memory and never reaches the layer.
    #[inline(always)]
    pub fn allocate(&self, shape: Shape) -> Option<NonNull<u8>> {
        if shape.requested == 0 {
            return Some(empty(shape.align));
        }
        self.0.allocate(shape, Caller::here())
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// A live block of this layer (or an empty one) with exactly this shape.
    #[inline(always)]
    pub unsafe fn free(&self, block: NonNull<u8>, shape: Shape) {
        if shape.requested != 0 {
            // SAFETY: the caller's duty, passed on.
            unsafe { self.0.free(block, shape, Caller::here()) };
        }
    }

    /// Changes the size where the block is; to 0 frees it, which always works.
    ///
    /// # Safety
    /// As [`Front::free`]; after `true` the block has the new size.
    #[inline(always)]
    pub unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, requested: usize) -> bool {
        let caller = Caller::here();
        if requested == 0 {
            // SAFETY: the caller's duty, passed on.
            unsafe { self.free(block, shape) };
            return true;
        }
        if shape.requested == 0 {
            return false;
        }
        // SAFETY: the caller's duty, passed on; both sizes are at least 1 (L1).
        unsafe { self.0.resize(block, shape, requested, caller) }
    }

    /// Changes the size, moving the block when it must: in place, else
    /// [`Layer::remap`], else a new block, a copy and a free.
    ///
    /// # Safety
    /// As [`Front::free`]. After `Some` only the answered block is live; after
    /// `None` the old one still is.
    #[inline(always)]
    pub unsafe fn reallocate(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        requested: usize,
    ) -> Option<NonNull<u8>> {
        let target = shape.resized(requested);
        // SAFETY: the caller's duty, passed on.
        unsafe { self.reshape(block, shape, target, Caller::here()) }
    }

    /// [`Front::reallocate`] to another alignment, too.
    ///
    /// # Safety
    /// As [`Front::reallocate`].
    pub unsafe fn reshape(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        target: Shape,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        if target.requested == 0 {
            // SAFETY: the caller's duty, passed on.
            unsafe { self.free(block, shape) };
            return Some(empty(target.align));
        }
        if shape.requested == 0 {
            return self.0.allocate(target, caller);
        }
        if shape.align == target.align {
            // SAFETY: the caller's duty, passed on; both sizes are at least 1 (L1).
            let moved = unsafe { self.0.remap(block, shape, target.requested, caller) };
            if moved.is_some() {
                return moved;
            }
        }
        let fresh = self.0.allocate(target, caller)?;
        let kept = shape.requested.min(target.requested);
        // SAFETY: both blocks are live, do not overlap, and hold `kept` bytes.
        unsafe { fresh.copy_from_nonoverlapping(block, kept) };
        // SAFETY: the caller's duty, passed on; the copy is done.
        unsafe { self.0.free(block, shape, caller) };
        Some(fresh)
    }

    /// A place that holds `value`.
    #[inline(always)]
    pub fn create<T>(&self, value: T) -> Option<NonNull<T>> {
        let place = self.allocate(Shape::of::<T>())?.cast::<T>();
        // SAFETY: a fresh block of the type's shape.
        unsafe { place.write(value) };
        Some(place)
    }

    /// Drops the value and takes its place back.
    ///
    /// # Safety
    /// `place` came from [`Front::create`] of this layer and is not used again.
    #[inline(always)]
    pub unsafe fn destroy<T>(&self, place: NonNull<T>) {
        // SAFETY: the caller's duty.
        unsafe { place.drop_in_place() };
        // SAFETY: the caller's duty.
        unsafe { self.free(place.cast(), Shape::of::<T>()) };
    }

    /// Room for `count` values, not initialised; `None` also when the bytes
    /// overflow.
    #[inline(always)]
    pub fn slice<T>(&self, count: usize) -> Option<NonNull<[T]>> {
        let block = self.allocate(Shape::array::<T>(count)?)?;
        Some(NonNull::slice_from_raw_parts(block.cast(), count))
    }

    /// A copy of `values`.
    #[inline(always)]
    pub fn duplicate<T: Copy>(&self, values: &[T]) -> Option<NonNull<[T]>> {
        let place = self.slice::<T>(values.len())?;
        // SAFETY: fresh room for as many values, or none and nothing is copied.
        unsafe {
            place
                .cast::<T>()
                .as_ptr()
                .copy_from_nonoverlapping(values.as_ptr(), values.len());
        };
        Some(place)
    }

    /// A copy of `values` with `end` behind it (not counted in the length): a
    /// C string for `end` 0. Give it back as a slice of one more.
    #[inline(always)]
    pub fn duplicate_ended<T: Copy>(&self, values: &[T], end: T) -> Option<NonNull<[T]>> {
        let place = self.slice::<T>(values.len().checked_add(1)?)?.cast::<T>();
        // SAFETY: fresh room for one value more than `values`.
        unsafe {
            place
                .as_ptr()
                .copy_from_nonoverlapping(values.as_ptr(), values.len());
        };
        // SAFETY: as above, the last place.
        unsafe { place.add(values.len()).write(end) };
        Some(NonNull::slice_from_raw_parts(place, values.len()))
    }

    /// Takes a slice's memory back; drops no value.
    ///
    /// # Safety
    /// `slice` came from this layer with this length and is not used again.
    #[inline(always)]
    pub unsafe fn free_slice<T>(&self, slice: NonNull<[T]>) {
        if let Some(shape) = Shape::array::<T>(slice.len()) {
            // SAFETY: the caller's duty.
            unsafe { self.free(slice.cast(), shape) };
        }
    }
}

// SAFETY: a layer's duties are those of a global allocator; nothing panics.
unsafe impl<L: Layer> GlobalAlloc for Front<L> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout.into())
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller's duty.
            unsafe { self.free(block, layout.into()) };
        }
    }

    #[inline(always)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, requested: usize) -> *mut u8 {
        let Some(block) = NonNull::new(block) else {
            return ptr::null_mut();
        };
        // SAFETY: the caller's duty.
        unsafe { self.reallocate(block, layout.into(), requested) }
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}
