//! Where a gpa's books lie in its own process, for a reader outside it.
//!
//! The header's words HEAP_BASE, HEAP_STRUCTS and HEAP_RECORDS give the addresses
//! of the slices, of the page structs and of the records; HEAP_COMMITTED how far
//! the slices are in use. The structs are read while their process runs, so every
//! field may be torn or stale: check before use.

/// log2 of the bytes of a slice.
pub const SLICE_SHIFT: u32 = 16;
/// Bytes of a slice.
pub const SLICE_BYTES: u64 = 1 << SLICE_SHIFT;

/// Byte offsets in the struct of a slice; all values are little endian.
pub mod page {
    /// Bytes of a struct.
    pub const BYTES: usize = 128;
    /// u32: slots in use (freed by others and not yet taken back included).
    pub const USED: usize = 16;
    /// u32: bytes of a slot; 0 for a page that is one block.
    pub const SLOT_BYTES: usize = 20;
    /// u64: address of the first slot.
    pub const START: usize = 24;
    /// u64: address of the records, 8 bytes a slot; 0 when there are none.
    pub const RECORDS: usize = 40;
    /// u8: size class.
    pub const CLASS: usize = 60;
    /// u8: [`super::Kind`].
    pub const KIND: usize = 61;
    /// u32: slots carved so far.
    pub const CAPACITY: usize = 80;
    /// u32: slots there is room for.
    pub const SLOTS: usize = 84;
    /// u64: bytes the one block may use.
    pub const SINGLE_BYTES: usize = 88;
    /// u64: the record of the one block.
    pub const SINGLE_RECORD: usize = 96;
    /// u32: slices of the run.
    pub const SLICES: usize = 108;
}

/// What a slice's struct describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Never used.
    Untouched = 0,
    /// First slice of a run in use.
    Head = 1,
    /// Later slice of a run in use.
    Interior = 2,
    /// First or last slice of a free run.
    Free = 3,
}

impl Kind {
    /// The kind of a struct's byte.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Untouched,
            1 => Self::Head,
            2 => Self::Interior,
            3 => Self::Free,
            _ => return None,
        })
    }
}

/// Who first carved the OS pages of a run of slots: one u32 site each, behind the records
/// (see [`origins_at`]); 0 is nobody, or nobody known.
pub const ORIGIN_BYTES: u64 = 4;
/// log2 of the bytes one origin stands for.
pub const ORIGIN_SHIFT: u32 = 12;
/// Bytes of the origins of one slice.
pub const ORIGINS_BYTES: u64 = (SLICE_BYTES >> ORIGIN_SHIFT) * ORIGIN_BYTES;

/// How far behind a run's first record its origins begin, for a run of so many slots.
pub const fn origins_at(slots: u64) -> u64 {
    (slots * 8).next_multiple_of(64)
}

/// A block's record: bits 0-21 site, 22-47 birth tick, 48-63 slack (usable minus
/// requested bytes). Birth 0 means that the slot holds no live block.
pub mod record {
    /// Bits of the site.
    pub const SITE_BITS: u32 = 22;
    /// Bits of the birth tick.
    pub const TICK_BITS: u32 = 26;
}
