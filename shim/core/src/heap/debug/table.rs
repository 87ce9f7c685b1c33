//! A hash table in the parent's memory: addresses to values.
//!
//! # Design
//! Open addressing, linear probing, at most half full; removal shifts back, so
//! there are no tombstones. Key 0 is an empty place. Only [`Table::reserve`]
//! takes memory, before the caller takes anything else.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::heap::layer::{Align, Caller, Layer, Shape};

const FIRST_PLACES: usize = 16;

#[derive(Debug)]
struct Place<V> {
    key: usize,
    value: V,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Table<V> {
    places: *mut Place<V>,
    count: usize,
    used: usize,
}

impl<V: Copy> Table<V> {
    pub(super) const fn new() -> Self {
        Self {
            places: ptr::null_mut(),
            count: 0,
            used: 0,
        }
    }

    /// Bytes taken from the parent.
    pub(super) const fn bytes(&self) -> usize {
        self.count * size_of::<Place<V>>()
    }

    /// Number of places, for walks with [`Table::at`].
    pub(super) const fn places(&self) -> usize {
        self.count
    }

    fn shape(count: usize) -> Option<Shape> {
        let bytes = size_of::<Place<V>>().checked_mul(count)?;
        Some(Shape::new(bytes, Align::of::<Place<V>>()))
    }

    fn place(&self, index: usize) -> NonNull<Place<V>> {
        debug_assert!(index < self.count);
        // SAFETY: `index < count` places are ours; the array is never null then.
        unsafe { NonNull::new_unchecked(self.places.wrapping_add(index)) }
    }

    fn key(&self, index: usize) -> usize {
        // SAFETY: each place was initialised in reserve().
        unsafe { (*self.place(index).as_ptr()).key }
    }

    fn home(&self, key: usize) -> usize {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 20) & (self.count - 1)
    }

    /// The place of `key`, or the empty one where it belongs.
    fn find(&self, key: usize) -> usize {
        let mut index = self.home(key);
        while self.key(index) != key && self.key(index) != 0 {
            index = (index + 1) & (self.count - 1);
        }
        index
    }

    /// Makes sure that one more [`Table::insert`] needs no memory.
    pub(super) fn reserve(&mut self, parent: &impl Layer) -> Option<()> {
        if (self.used + 1) * 2 <= self.count {
            return Some(());
        }
        let count = if self.count == 0 {
            FIRST_PLACES
        } else {
            self.count.checked_mul(2)?
        };
        let block = parent.allocate(Self::shape(count)?, Caller::NONE)?;
        let mut larger = Self {
            places: block.cast().as_ptr(),
            count,
            used: 0,
        };
        for index in 0..count {
            // SAFETY: fresh room for `count` places; a zero key makes one empty.
            unsafe { (&raw mut (*larger.place(index).as_ptr()).key).write(0) };
        }
        for index in 0..self.count {
            if let Some((key, value)) = self.at(index) {
                larger.insert(key, *value);
            }
        }
        self.release(parent);
        *self = larger;
        Some(())
    }

    /// Adds or replaces.
    pub(super) fn insert(&mut self, key: usize, value: V) {
        let index = self.find(key);
        self.used += usize::from(self.key(index) == 0);
        // SAFETY: a place of ours.
        unsafe { self.place(index).write(Place { key, value }) };
    }

    /// The value of `key`.
    pub(super) fn get(&mut self, key: usize) -> Option<&mut V> {
        if self.count == 0 || key == 0 {
            return None;
        }
        let index = self.find(key);
        // SAFETY: a place of ours that is in use when its key matches.
        (self.key(index) == key).then(|| unsafe { &mut (*self.place(index).as_ptr()).value })
    }

    /// Key and value of a place that is in use.
    pub(super) fn at(&self, index: usize) -> Option<(usize, &V)> {
        let key = self.key(index);
        // SAFETY: a place of ours that is in use.
        (key != 0).then(|| (key, unsafe { &(*self.place(index).as_ptr()).value }))
    }

    /// Takes `key` out.
    pub(super) fn remove(&mut self, key: usize) -> Option<V> {
        let value = *self.get(key)?;
        let mask = self.count - 1;
        let mut hole = self.find(key);
        let mut index = hole;
        loop {
            index = (index + 1) & mask;
            if self.key(index) == 0 {
                break;
            }
            // Move back what may live in the hole: its home is not behind it.
            let home = self.home(self.key(index));
            if (index.wrapping_sub(home) & mask) >= (index.wrapping_sub(hole) & mask) {
                // SAFETY: two different places of ours.
                unsafe {
                    self.place(hole)
                        .copy_from_nonoverlapping(self.place(index), 1);
                };
                hole = index;
            }
        }
        // SAFETY: a place of ours.
        unsafe { (*self.place(hole).as_ptr()).key = 0 };
        self.used -= 1;
        Some(value)
    }

    /// Gives the memory back; the table is empty afterwards.
    pub(super) fn release(&mut self, parent: &impl Layer) {
        if let (Some(places), Some(shape)) = (NonNull::new(self.places), Self::shape(self.count)) {
            // SAFETY: taken from this parent in reserve() with this shape.
            unsafe { parent.free(places.cast(), shape, Caller::NONE) };
        }
        *self = Self::new();
    }
}
