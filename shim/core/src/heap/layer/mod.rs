//! What every layer can do: allocate, resize in place, remap, free.
//!
//! # Design
//! Four calls, shaped after Zig's allocator interface. A layer is given its
//! parent as a value, so layers stack in any order:
//! ```text
//! Stats<Arena<PageLayer>>     counts over bumps over whole pages of the kernel
//! First<Fixed, Smp<..>>       a buffer of the caller's first, then a heap
//! ```
//! A free brings the block's [`Shape`] back, so a layer need not store sizes.
//! [`Front`] adds what people want on top: typed values, slices, zero sizes,
//! reallocation, and Rust's own allocator traits.
//!
//! # Invariants
//! L1. `requested` is at least 1 in every call of [`Layer`]; [`Front`] answers
//!     empty requests itself.
//! L2. A refused call changes nothing: the block stays as it was.
//!
//! # Failure
//! `None` or `false`: no memory, a limit, or a size past the address space.
#![allow(unsafe_code)]

#[cfg(feature = "allocator-api2")]
mod api2;
mod front;
mod gpa;
mod threads;
mod usage;

use core::alloc::Layout;
use core::ptr::NonNull;

pub use front::Front;
pub use gpa::GpaLayer;
pub use threads::{Held, Locked, Mutex, NoMutex, Number, Shared, Single, SpinMutex, Threading};
pub use usage::Usage;

/// An alignment: a power of two, kept as its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Align(u8);

impl Align {
    /// Any address will do.
    pub const ONE: Self = Self(0);
    /// 16 bytes, what `malloc` promises.
    pub const MALLOC: Self = Self(4);

    /// `bytes` as an alignment; `None` unless it is a power of two.
    pub const fn new(bytes: usize) -> Option<Self> {
        if !bytes.is_power_of_two() {
            return None;
        }
        Some(Self(bytes.trailing_zeros().to_le_bytes()[0]))
    }

    /// The alignment of a type.
    pub const fn of<T>() -> Self {
        Self(align_of::<T>().trailing_zeros().to_le_bytes()[0])
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        1 << self.0
    }

    /// Its logarithm to base 2.
    pub const fn log2(self) -> u32 {
        self.0 as u32
    }

    /// The next multiple at or after `number`; `None` past the last address.
    pub const fn up(self, number: usize) -> Option<usize> {
        let mask = self.bytes() - 1;
        match number.checked_add(mask) {
            Some(sum) => Some(sum & !mask),
            None => None,
        }
    }

    /// True when `address` is a multiple.
    pub const fn fits(self, address: usize) -> bool {
        address & (self.bytes() - 1) == 0
    }
}

/// Requested bytes and alignment of a block, the two things a free must repeat.
///
/// Unlike [`Layout`] it can hold any number of bytes, so that a layer can be
/// asked for too much and refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes the caller asked for.
    pub requested: usize,
    /// Alignment the caller asked for.
    pub align: Align,
}

impl Shape {
    /// `requested` bytes at multiples of `align`.
    pub const fn new(requested: usize, align: Align) -> Self {
        Self { requested, align }
    }

    /// `requested` bytes anywhere.
    pub const fn bytes(requested: usize) -> Self {
        Self::new(requested, Align::ONE)
    }

    /// Room for one value.
    pub const fn of<T>() -> Self {
        Self::new(size_of::<T>(), Align::of::<T>())
    }

    /// Room for `count` values; `None` when the bytes do not fit a `usize`.
    pub const fn array<T>(count: usize) -> Option<Self> {
        match size_of::<T>().checked_mul(count) {
            Some(bytes) => Some(Self::new(bytes, Align::of::<T>())),
            None => None,
        }
    }

    /// The same alignment with other requested bytes.
    pub const fn resized(self, requested: usize) -> Self {
        Self::new(requested, self.align)
    }
}

impl From<Layout> for Shape {
    fn from(layout: Layout) -> Self {
        let align = Align::new(layout.align()).unwrap_or(Align::ONE);
        Self::new(layout.size(), align)
    }
}

/// The code address a request came from, first frame of traces; may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Caller(usize);

impl Caller {
    /// Not known.
    pub const NONE: Self = Self(0);

    /// A return address the caller already has.
    pub const fn at(address: usize) -> Self {
        Self(address)
    }

    /// An address inside the function this is called from.
    #[inline(always)]
    pub fn here() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let address: usize;
            // SAFETY: reads the instruction pointer, touches nothing else.
            unsafe {
                core::arch::asm!("lea {}, [rip]", out(reg) address,
                    options(nomem, nostack, preserves_flags));
            }
            Self(address)
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        Self::NONE
    }

    /// The address, 0 when unknown.
    pub const fn address(self) -> usize {
        self.0
    }
}

/// A source of memory; see the module's text.
///
/// # Safety
/// A block answered by `allocate` or `remap` is not null, aligned as asked,
/// holds `requested` bytes, overlaps no other live block, and stays valid until
/// it is freed or remapped, or the layer is reset or dropped.
pub unsafe trait Layer {
    /// A block of `shape`, content unspecified.
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>>;

    /// Makes the block hold `requested` bytes where it is; `false` leaves it as
    /// it was. A layer that can only serve in place what it has may say no.
    ///
    /// # Safety
    /// `block` is a live block of this layer with exactly this `shape`, and
    /// `requested` is at least 1.
    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        requested: usize,
        caller: Caller,
    ) -> bool {
        let _ = (block, shape, requested, caller);
        false
    }

    /// Like [`Layer::resize`], but may move the block when that costs less than
    /// a copy. `None` means "allocate, copy and free yourself", not "no memory".
    ///
    /// # Safety
    /// As [`Layer::resize`].
    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        requested: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's duty, passed on.
        unsafe { self.resize(block, shape, requested, caller) }.then_some(block)
    }

    /// Takes the block back.
    ///
    /// # Safety
    /// `block` is a live block of this layer with exactly this `shape`; nobody
    /// uses it any more.
    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller);
}

// SAFETY: forwards to a layer.
unsafe impl<L: Layer + ?Sized> Layer for &L {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        (**self).allocate(shape, caller)
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        // SAFETY: the caller's duty, passed on.
        unsafe { (**self).resize(block, shape, to, caller) }
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's duty, passed on.
        unsafe { (**self).remap(block, shape, to, caller) }
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        // SAFETY: the caller's duty, passed on.
        unsafe { (**self).free(block, shape, caller) }
    }
}
