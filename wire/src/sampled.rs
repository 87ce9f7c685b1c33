//! The counters of a process in mode `sampled`: what its samples stand for.
//!
//! # Design
//! The words are those of [`crate::thread`] and [`crate::process`]; what differs
//! is the unit. Whatever counts blocks (classes, sites, apis, lifetimes, pending,
//! published and peak) is in parts of a block, [`BLOCKS_SHIFT`] bits behind the
//! point, and what counts their bytes in [`BYTES_SHIFT`]. Counters stay monotone
//! and additive, so everything said there holds. Numbers the heap knows without
//! its blocks (committed bytes, slots carved, calls to the kernel, reallocations)
//! are exact and in their usual units.
//!
//! A site's last four words hold the sums that give its standard errors. A sample's
//! part of them is its variance over `interval²`, which is at most 1 for bytes.

/// Bits behind the point of a count of blocks.
pub const BLOCKS_SHIFT: u32 = 12;
/// Bits behind the point of a count of bytes.
pub const BYTES_SHIFT: u32 = 4;
/// Counts of a variance of blocks that make `interval²`.
pub const BLOCKS_VARIANCE_UNIT: f64 = (1u64 << 44) as f64;
/// Counts of a variance of bytes that make `interval²`.
pub const BYTES_VARIANCE_UNIT: f64 = (1u64 << 24) as f64;

/// Smallest interval: under it, roundings would show.
pub const INTERVAL_MIN: u64 = 1 << 10;
/// Largest interval.
pub const INTERVAL_MAX: u64 = 1 << 32;
/// The interval nobody chose.
pub const INTERVAL_DEFAULT: u64 = 512 << 10;

/// Words of a site's counters that differ from [`crate::thread::site_word`].
pub mod site_word {
    /// Variance of the blocks allocated.
    pub const ALLOCATIONS_VARIANCE: usize = 4;
    /// Variance of the bytes allocated.
    pub const ALLOCATED_BYTES_VARIANCE: usize = 5;
    /// The part of ALLOCATIONS_VARIANCE whose blocks were freed.
    pub const FREES_VARIANCE: usize = 6;
    /// The part of ALLOCATED_BYTES_VARIANCE whose blocks were freed.
    pub const FREED_BYTES_VARIANCE: usize = 7;
}

/// Blocks, rounded, of a count in parts of a block.
pub const fn blocks(parts: u64) -> u64 {
    round(parts, BLOCKS_SHIFT)
}

/// Bytes, rounded, of a count in parts of a byte.
pub const fn bytes(parts: u64) -> u64 {
    round(parts, BYTES_SHIFT)
}

const fn round(parts: u64, shift: u32) -> u64 {
    (parts >> shift) + (parts >> (shift - 1) & 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: units convert and round without overflow. Method: around a half, and the extremes.
    #[test]
    fn parts_round_to_the_nearest() {
        assert_eq!(
            (blocks(0), blocks(2047), blocks(2048), blocks(4096)),
            (0, 0, 1, 1)
        );
        assert_eq!((bytes(7), bytes(8), bytes(24)), (0, 1, 2));
        assert_eq!(bytes(u64::MAX), 1 << 60);
    }
}
