//! The bill of system calls: which call site had the layers ask the kernel for what.
//!
//! # Design
//! One section of the shared state, [`ROWS`] rows of [`ROW_BYTES`]. A row is claimed once,
//! by the first call of its key, at the first free place from [`home`] on; a reader takes
//! every row whose [`row::KEY`] is not zero. Row 0 belongs to nobody: it takes what finds
//! no place, so that the sum over all rows is what the process's own words say
//! ([`crate::thread::word::SYSCALLS`]). That holds for [`Party::Layers`]; what the program
//! itself maps ([`Party::Program`]) is in no other counter.
//!
//! # Concurrency
//! A key is written by one compare-and-swap, all else by atomic additions: any thread of
//! the process may add to any row.

use crate::layout::SITE_CAPACITY_MAX;
use crate::thread::SYSCALLS;

/// Rows of the section, the one for what has no other included.
pub const ROWS: u64 = 4096;
/// Words of a row.
pub const ROW_WORDS: usize = 24;
/// Bytes of a row.
pub const ROW_BYTES: u64 = ROW_WORDS as u64 * 8;
/// Bytes of the section.
pub const CALLS_BYTES: u64 = ROWS * ROW_BYTES;
/// Places looked at for a key before row 0 takes its calls.
pub const PROBES: u64 = 64;

/// Site of calls no request caused: giving back what waited, our own books.
pub const UPKEEP: u32 = SITE_CAPACITY_MAX as u32;

/// Two calls this close, one that gets a range and one that gives the same range back,
/// are a pair that could have been spared.
pub const PAIR_NS: u64 = 1_000_000;

/// Words of a row.
pub mod row {
    /// [`super::key`], or 0 for a row nobody has claimed.
    pub const KEY: usize = 0;
    /// First of [`super::BILLED`] triples: calls, ns, bytes.
    pub const CALLS: usize = 1;
    /// Ranges that were given back within [`super::PAIR_NS`] of being got.
    pub const PAIRS: usize = 16;
    /// Their bytes.
    pub const PAIR_BYTES: usize = 17;
    /// What both calls of those pairs took.
    pub const PAIR_NS: usize = 18;
    /// Bytes the program has mapped here and not unmapped.
    pub const LIVE_BYTES: usize = 19;
    /// Ranges of them.
    pub const LIVE_RANGES: usize = 20;
    /// Ranges got from the kernel.
    pub const GOT: usize = 21;
    /// Their bytes.
    pub const GOT_BYTES: usize = 22;
}

/// System calls that are billed: all kinds but the last, which no layer makes.
pub const BILLED: usize = SYSCALLS - 1;

/// Who made the calls of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Party {
    /// The layers of the heap.
    Layers = 0,
    /// The program itself (PAGESHIM_MMAP).
    Program = 1,
}

/// The key of a row; never zero.
pub const fn key(site: u32, party: Party) -> u64 {
    1 << 63 | (site as u64) << 1 | party as u64
}

/// Site and party of a key; `None` for a row nobody has claimed, and for nonsense.
pub const fn parties(key: u64) -> Option<(u32, Party)> {
    let (site, rest) = ((key & !(1 << 63)) >> 1, key & 1);
    if key >> 63 == 0 || site > SITE_CAPACITY_MAX {
        return None;
    }
    let party = if rest == 0 {
        Party::Layers
    } else {
        Party::Program
    };
    Some((site as u32, party))
}

/// The first place to look for a key: any row but the first.
pub const fn home(key: u64) -> u64 {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    1 + mixed % (ROWS - 1)
}

/// The place after another.
pub const fn next(place: u64) -> u64 {
    if place + 1 == ROWS { 1 } else { place + 1 }
}

const _: () = assert!(row::CALLS + 3 * BILLED == row::PAIRS);
const _: () = assert!(row::GOT_BYTES < ROW_WORDS && CALLS_BYTES.is_multiple_of(4096));

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a key says again what it was made of, and never looks free. Method: edges.
    #[test]
    fn keys_come_back_and_are_never_zero() {
        for site in [0, 1, 77, (1 << 22) - 1, UPKEEP] {
            for party in [Party::Layers, Party::Program] {
                assert_eq!(parties(key(site, party)), Some((site, party)));
            }
        }
        assert_eq!(parties(0), None);
        assert_eq!(parties(u64::MAX), None, "no such site");
    }

    // Goal: no walk ever lands on row 0 or outside. Method: many keys, a walk round.
    #[test]
    fn places_stay_within_the_rows() {
        for site in 0..10_000 {
            let place = home(key(site, Party::Layers));
            assert!((1..ROWS).contains(&place) && (1..ROWS).contains(&next(place)));
        }
        assert_eq!(next(ROWS - 1), 1);
    }
}
