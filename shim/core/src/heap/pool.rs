//! A pool: many values of one type, reused in last-freed-first order.
//!
//! # Design
//! Places come from an arena over the parent; a freed place holds the link to
//! the next free one. A pool that may not grow serves what was preheated.
//!
//! # Concurrency
//! One thread.
//!
//! # Failure
//! `None` when the parent refuses, or a pool that may not grow is empty.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::arena::{Arena, Reset};
use super::layer::{Align, Caller, Layer, Shape, Usage};

/// See the module's text.
#[derive(Debug)]
pub struct Pool<T, P: Layer> {
    arena: Arena<P>,
    free: Cell<*mut *mut u8>,
    align: Align,
    growable: bool,
    values: PhantomData<T>,
}

impl<T, P: Layer> Pool<T, P> {
    /// An empty pool that grows as needed.
    pub const fn new(parent: P) -> Self {
        Self::with(parent, Align::ONE, true)
    }

    /// An empty pool; places are aligned to `align` and to what `T` needs.
    pub const fn with(parent: P, align: Align, growable: bool) -> Self {
        let align = [align, Align::of::<T>(), Align::of::<*mut u8>()];
        let mut most = Align::ONE;
        let mut index = 0;
        while index < align.len() {
            if align[index].bytes() > most.bytes() {
                most = align[index];
            }
            index += 1;
        }
        Self {
            arena: Arena::new(parent),
            free: Cell::new(ptr::null_mut()),
            align: most,
            growable,
            values: PhantomData,
        }
    }

    /// Bytes and alignment of a place.
    pub const fn place(&self) -> Shape {
        let (value, link) = (size_of::<T>(), size_of::<*mut u8>());
        Shape::new(if value > link { value } else { link }, self.align)
    }

    /// Makes `count` more places; `false` when the parent refused one (those
    /// made before it stay).
    pub fn preheat(&self, count: usize) -> bool {
        for _ in 0..count {
            let Some(place) = self.arena.allocate(self.place(), Caller::NONE) else {
                return false;
            };
            self.list(place);
        }
        true
    }

    fn list(&self, place: NonNull<u8>) {
        let link = place.cast::<*mut u8>();
        // SAFETY: a place holds a pointer and is aligned for one; nobody uses it.
        unsafe { link.write(self.free.get().cast()) };
        self.free.set(link.as_ptr());
    }

    /// A place that holds `value`; the value is dropped when there is none.
    pub fn create(&self, value: T) -> Option<NonNull<T>> {
        let place = match NonNull::new(self.free.get()) {
            Some(link) => {
                // SAFETY: a listed place holds the link.
                self.free.set(unsafe { link.read() }.cast());
                link.cast::<T>()
            }
            None if self.growable => self.arena.allocate(self.place(), Caller::NONE)?.cast(),
            None => return None,
        };
        // SAFETY: a place of ours that nobody uses, of the type's shape.
        unsafe { place.write(value) };
        Some(place)
    }

    /// Drops the value and keeps its place for the next.
    ///
    /// # Safety
    /// `place` came from [`Pool::create`] of this pool and is not used again.
    pub unsafe fn destroy(&self, place: NonNull<T>) {
        // SAFETY: the caller's duty.
        unsafe { place.drop_in_place() };
        self.list(place.cast());
    }

    /// Takes all places back without dropping values, see [`Arena::reset`].
    pub fn reset(&mut self, mode: Reset) -> bool {
        self.free.set(ptr::null_mut());
        self.arena.reset(mode)
    }

    /// Where the memory is; free places count as requested here.
    pub fn usage(&self) -> Usage {
        self.arena.usage()
    }
}
