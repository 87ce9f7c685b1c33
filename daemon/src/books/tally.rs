//! Counters of a process that only grow, flat, so that they can be summed over
//! processes and carried on after a process is gone.

use std::ops::Range;

use pageshim_wire::frame::KINDS;
use pageshim_wire::process::{DROPS, MISUSES, VERIFIES, word};
use pageshim_wire::thread::{APIS, LIFETIMES, SYSCALLS};

use super::header::Header;
use super::threads::{ThreadSums, more};

/// Bounds of the size histogram: powers of 4 from 16 bytes to 64 MiB.
pub const SIZE_BOUNDS: [u64; 12] = {
    let mut bounds = [16; 12];
    let mut index = 1;
    while index < 12 {
        bounds[index] = bounds[index - 1] * 4;
        index += 1;
    }
    bounds
};
/// Kinds of events: the frame kinds, then traced allocations and frees.
pub const EVENTS: usize = KINDS + 2;

/// Allocations by api.
pub const API: Range<usize> = 0..APIS;
/// Frees, allocated bytes, freed bytes, temporary allocations.
pub const PLAIN: Range<usize> = API.end..API.end + 4;
/// Reallocations in place, moved.
pub const REALLOCATIONS: Range<usize> = PLAIN.end..PLAIN.end + 2;
/// Blocks by size, the last past every bound.
pub const SIZES: Range<usize> = REALLOCATIONS.end..REALLOCATIONS.end + 13;
/// Freed blocks by lifetime.
pub const LIFETIME: Range<usize> = SIZES.end..SIZES.end + LIFETIMES;
/// Sum of lifetimes, ms.
pub const LIFETIME_MS: usize = LIFETIME.end;
/// System calls.
pub const CALLS: Range<usize> = LIFETIME_MS + 1..LIFETIME_MS + 1 + SYSCALLS;
/// Nanoseconds in them.
pub const CALL_NS: Range<usize> = CALLS.end..CALLS.end + SYSCALLS;
/// Misuse by kind.
pub const MISUSE: Range<usize> = CALL_NS.end..CALL_NS.end + MISUSES;
/// What was not recorded, by reason.
pub const DROPPED: Range<usize> = MISUSE.end..MISUSE.end + DROPS;
/// Events by kind.
pub const EVENT: Range<usize> = DROPPED.end..DROPPED.end + EVENTS;

/// Captured stacks by how they compared with full unwinds.
pub const VERIFIED: Range<usize> = EVENT.end..EVENT.end + VERIFIES;

/// The counters, by the ranges above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; VERIFIED.end]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; VERIFIED.end])
    }
}

impl Tally {
    /// The counters of one process.
    pub fn of(header: &Header, threads: &ThreadSums) -> Self {
        let mut tally = Self::default();
        let (allocated, freed) = (threads.allocated(), threads.freed());
        let plain = [
            freed.blocks,
            allocated.bytes,
            freed.bytes,
            threads.temporary,
        ];
        tally.fill(API, &threads.apis);
        tally.fill(PLAIN, &plain);
        tally.fill(REALLOCATIONS, &threads.reallocations);
        tally.fill(SIZES, &sizes(header, threads));
        tally.fill(LIFETIME, &threads.lifetimes);
        tally.0[LIFETIME_MS] = threads.lifetime_ms;
        tally.fill(CALLS, &threads.syscalls.map(|call| call.0));
        tally.fill(CALL_NS, &threads.syscalls.map(|call| call.1));
        for (range, first) in [
            (MISUSE, word::MISUSE),
            (DROPPED, word::DROPPED),
            (VERIFIED, word::VERIFIED),
        ] {
            for (offset, index) in range.enumerate() {
                tally.0[index] = header.word(first + offset);
            }
        }
        for kind in 0..KINDS {
            tally.0[EVENT.start + kind] = header.word(word::EVENTS + kind);
        }
        tally
    }

    fn fill(&mut self, range: Range<usize>, values: &[u64]) {
        self.0[range].copy_from_slice(values);
    }

    /// The counters of a range.
    pub fn part(&self, range: Range<usize>) -> &[u64] {
        &self.0[range]
    }

    /// One counter.
    pub fn at(&self, index: usize) -> u64 {
        self.0[index]
    }

    /// Lifts every counter to at least what `newer` says: a process that lies
    /// or a state made anew never takes a total back.
    pub fn raise(&mut self, newer: &Self) {
        for (old, new) in self.0.iter_mut().zip(&newer.0) {
            *old = (*old).max(*new);
        }
    }

    /// Adds another process's counters.
    pub fn add(&mut self, other: &Self) {
        for (sum, value) in self.0.iter_mut().zip(&other.0) {
            more(sum, *value);
        }
    }

    /// Lifts event counts to what arrived over the socket.
    pub fn raise_events(&mut self, seen: &[u64; EVENTS]) {
        for (old, new) in self.0[EVENT].iter_mut().zip(seen) {
            *old = (*old).max(*new);
        }
    }
}

/// Blocks by slot size. Singletons' own sizes are not counted apart, so they
/// are in the last bucket only.
fn sizes(header: &Header, threads: &ThreadSums) -> [u64; 13] {
    let mut sizes = [0; 13];
    for (class, sums) in header.classes().iter().zip(&threads.classes) {
        let bucket = match class.slot_bytes {
            0 => SIZE_BOUNDS.len(),
            bytes => SIZE_BOUNDS.partition_point(|bound| *bound < bytes),
        };
        more(&mut sizes[bucket], sums.allocated.blocks);
    }
    let known = sizes
        .iter()
        .fold(0u64, |sum, count| sum.saturating_add(*count));
    let rest = threads.allocated().blocks.saturating_sub(known);
    more(&mut sizes[SIZE_BOUNDS.len()], rest);
    sizes
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    // Goal: blocks fall into the bucket of their slot. Method: three classes and a singleton.
    #[test]
    fn sizes_fall_into_powers_of_four() {
        assert_eq!(SIZE_BOUNDS[11], 64 << 20);
        let mut state = State::new();
        state.class_table(&[[16, 0, 0], [32, 0, 0], [80, 0, 0], [0, 0, 0]]);
        state.thread(0, 1, "t");
        for class in 0..5 {
            state.class(0, class, [class as u64 + 1, 0, 0, 0]);
        }
        let tally = Tally::of(&state.header(), &state.threads());
        let sizes = tally.part(SIZES);
        assert_eq!((sizes[0], sizes[1], sizes[2], sizes[12]), (1, 2, 3, 4 + 5));
        assert_eq!(tally.at(API.start), 15);
    }

    // Goal: counters never go down. Method: raise by less, then by more; add past the end.
    #[test]
    fn tallies_only_grow() {
        let mut tally = Tally::default();
        let mut big = Tally::default();
        big.0[3] = 9;
        tally.raise(&big);
        tally.raise(&Tally::default());
        assert_eq!(tally.at(3), 9);
        big.0[3] = u64::MAX;
        tally.add(&big);
        assert_eq!(tally.at(3), u64::MAX);
    }
}
