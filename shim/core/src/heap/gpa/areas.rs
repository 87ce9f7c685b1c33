//! Room for the records of pages: areas as long as their class needs, cut from
//! one growing range and given back to the kernel when nobody needs them.
//!
//! # Design
//! ```text
//! base | area | area | free area | area ... | next ... committed ... | end
//! ```
//! A free area holds a link and its length in its first two words; all its other
//! words are zero. It waits in its class's list until [`Areas::drain`] takes all
//! free areas away, [`join`] sorts them by address and makes one of neighbours, the
//! whole OS pages inside go back, and [`Areas::refill`] lists them as ranges. The
//! lists need no memory of their own that way.
//!
//! # Invariants
//! A1. A free area is zero but for its first two words.
//! A2. Lengths are multiples of 64 bytes, so every area holds its two words.
//!
//! # Concurrency
//! Under the space's lock, but for `join`, whose chain nobody else knows.
#![allow(unsafe_code)]

use core::ptr;

use pageshim_wire::heap::{ORIGINS_BYTES, origins_at};

use super::classes::{CLASSES, page_slices, page_slots};
use crate::OS_PAGE_BYTES;

/// Ranges looked at before a new area is cut instead.
const TRIES: usize = 64;
/// Free bytes worth sorting for.
const LOOSE_BYTES: usize = 256 << 10;
/// Flag in a length: the whole pages inside are with the kernel.
const PURGED: usize = 1;

/// The lists, and how far the range is used and committed.
#[derive(Debug)]
pub(super) struct Areas {
    pub(super) next: usize,
    pub(super) committed: usize,
    free: [usize; CLASSES],
    ranges: usize,
    loose: usize,
}

/// Bytes of the records of a page of `class`, and of the origins behind them.
pub(super) const fn area_bytes(class: usize) -> usize {
    let origins = page_slices(class) * ORIGINS_BYTES as usize;
    origins_at(page_slots(class) as u64) as usize + origins
}

const _: () = assert!((ORIGINS_BYTES as usize).is_multiple_of(64));

/// A free area's two words.
#[derive(Clone, Copy)]
struct Free {
    next: usize,
    length: usize,
}

impl Free {
    fn bytes(self) -> usize {
        self.length & !PURGED
    }
}

fn read(at: usize) -> Free {
    let words = ptr::with_exposed_provenance::<usize>(at);
    // SAFETY: A2: a free area of ours holds two words.
    let (next, length) = unsafe { (words.read(), words.add(1).read()) };
    Free { next, length }
}

fn write(at: usize, free: Free) {
    let words = ptr::with_exposed_provenance_mut::<usize>(at);
    // SAFETY: as in read(); nobody else uses a free area.
    unsafe {
        words.write(free.next);
        words.add(1).write(free.length);
    }
}

/// Makes an area all zero again (A1).
fn clear(at: usize) -> usize {
    write(at, Free { next: 0, length: 0 });
    at
}

impl Areas {
    pub(super) const fn new() -> Self {
        Self {
            next: 0,
            committed: 0,
            free: [0; CLASSES],
            ranges: 0,
            loose: 0,
        }
    }

    /// A listed area for a page of `class`, zeroed; `hard` looks at every range.
    pub(super) fn take(&mut self, class: usize, hard: bool) -> Option<usize> {
        let listed = self.free[class];
        if listed != 0 {
            self.free[class] = read(listed).next;
            self.loose = self.loose.saturating_sub(area_bytes(class));
            return Some(clear(listed));
        }
        let want = area_bytes(class);
        let (mut before, mut at) = (0, self.ranges);
        for _ in 0..if hard { usize::MAX } else { TRIES } {
            if at == 0 {
                break;
            }
            let range = read(at);
            if range.bytes() >= want {
                return Some(self.cut(before, at, range, want));
            }
            (before, at) = (at, range.next);
        }
        None
    }

    /// Cuts from the end, so that the first words stay where they are.
    fn cut(&mut self, before: usize, at: usize, range: Free, want: usize) -> usize {
        let left = range.bytes() - want;
        if left > 0 {
            let length = left | range.length & PURGED;
            write(at, Free { length, ..range });
            return at + left;
        }
        if before == 0 {
            self.ranges = range.next;
        } else {
            let next = range.next;
            write(
                before,
                Free {
                    next,
                    ..read(before)
                },
            );
        }
        clear(at)
    }

    /// Takes the area of a page of `class` back; it is all zero.
    pub(super) fn give(&mut self, class: usize, at: usize) {
        let (next, length) = (self.free[class], area_bytes(class));
        write(at, Free { next, length });
        self.free[class] = at;
        self.loose += length;
    }

    /// Takes all free areas away as one chain, when there are enough to be worth it.
    pub(super) fn drain(&mut self) -> usize {
        if self.loose < LOOSE_BYTES {
            return 0;
        }
        self.loose = 0;
        let mut chain = core::mem::take(&mut self.ranges);
        for list in &mut self.free {
            let mut at = core::mem::take(list);
            while at != 0 {
                let area = read(at);
                write(
                    at,
                    Free {
                        next: chain,
                        ..area
                    },
                );
                chain = at;
                at = area.next;
            }
        }
        chain
    }

    /// Lists the ranges of a joined chain; the last one may be where unused room begins.
    pub(super) fn refill(&mut self, base: usize, chain: usize) {
        let mut at = chain;
        while at != 0 {
            let range = read(at);
            if at + range.bytes() == base + self.next {
                self.next = clear(at) - base;
            } else {
                let next = self.ranges;
                write(at, Free { next, ..range });
                self.ranges = at;
            }
            at = range.next;
        }
    }
}

/// Sorts a chain by address: lists of doubling length, merged like a binary counter.
fn sort(chain: usize) -> usize {
    let mut bins = [0; 48];
    let mut at = chain;
    while at != 0 {
        let area = read(at);
        write(at, Free { next: 0, ..area });
        let mut carry = at;
        for bin in &mut bins {
            if *bin == 0 {
                *bin = carry;
                break;
            }
            carry = merge(core::mem::take(bin), carry);
        }
        at = area.next;
    }
    bins.into_iter().fold(0, merge)
}

fn merge(mut left: usize, mut right: usize) -> usize {
    let (mut first, mut last) = (0, 0);
    while left != 0 || right != 0 {
        let from_left = right == 0 || (left != 0 && left < right);
        let side = if from_left { &mut left } else { &mut right };
        let at = *side;
        *side = read(at).next;
        if last == 0 {
            first = at;
        } else {
            write(
                last,
                Free {
                    next: at,
                    ..read(last)
                },
            );
        }
        last = at;
    }
    if last != 0 {
        write(
            last,
            Free {
                next: 0,
                ..read(last)
            },
        );
    }
    first
}

/// Sorts a chain, makes one of neighbours, and gives the whole pages inside each to
/// `purge` (address, bytes; true when it worked). Answers the chain and the bytes purged.
pub(super) fn join(chain: usize, purge: impl Fn(usize, usize) -> bool) -> (usize, usize) {
    let chain = sort(chain);
    let (mut at, mut purged) = (chain, 0);
    while at != 0 {
        let mut range = read(at);
        while range.next != 0 && at + range.bytes() == range.next {
            let behind = read(range.next);
            clear(range.next);
            range = Free {
                next: behind.next,
                length: range.bytes() + behind.bytes(),
            };
        }
        // The first page stays: it holds the two words.
        let from = (at + 16).next_multiple_of(OS_PAGE_BYTES);
        let to = (at + range.bytes()) & !(OS_PAGE_BYTES - 1);
        if range.length & PURGED == 0 && from < to && purge(from, to - from) {
            range.length |= PURGED;
            purged += to - from;
        }
        write(at, range);
        at = range.next;
    }
    (chain, purged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    // Goal: areas given back in any order join to the whole, and are handed out zeroed. Method: a
    // buffer as range, a hundred areas of several classes.
    #[test]
    fn neighbours_join_and_come_back_zeroed() {
        let mut memory = vec![0u64; 1 << 18];
        let base = memory.as_mut_ptr().expose_provenance().next_multiple_of(64);
        let mut areas = Areas::new();
        let mut given = vec![];
        for round in 0..100 {
            let class = [0, 1, 3, 5, 20, 40][round * 7 % 6];
            given.push((class, base + areas.next));
            areas.next += area_bytes(class);
        }
        let kept = given.remove(50);
        let total = areas.next - area_bytes(kept.0);
        for step in 0..given.len() {
            let (class, at) = given[step * 37 % given.len()];
            areas.give(class, at);
        }
        let (chain, purged) = join(areas.drain(), |_, _| true);
        assert!(purged > total * 8 / 10, "{purged} of {total} go back");
        areas.refill(base, chain);
        assert_eq!(
            base + areas.next,
            kept.1 + area_bytes(kept.0),
            "the end is unused again"
        );
        let mut taken = 0;
        while let Some(at) = areas.take(3, true) {
            let area = ptr::with_exposed_provenance::<u64>(at);
            // SAFETY: an area of the buffer.
            let words = unsafe { core::slice::from_raw_parts(area, area_bytes(3) / 8) };
            assert!(words.iter().all(|word| *word == 0), "A1");
            assert!(at + area_bytes(3) <= kept.1);
            taken += 1;
        }
        assert_eq!(taken, (kept.1 - base) / area_bytes(3));
    }
}
