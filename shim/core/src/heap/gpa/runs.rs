//! Free runs of slices, by length.
//!
//! # Design
//! A free run's first and last page structs are marked [`Kind::Free`]; the first
//! holds the length, the last its way back (`head`). Neighbours merge on release
//! in constant time. Lists 1 to 31 hold runs of exactly that many slices, the
//! lists above one doubling each.
//!
//! # Concurrency
//! Everything here happens under the space's lock.

use super::page::{Kind, Page};

const EXACT: u32 = 32;
const LISTS: usize = 64;

/// The free lists; links are slice numbers in the page structs, 0 = none.
#[derive(Debug)]
pub(super) struct Runs {
    first: [u32; LISTS],
    filled: u64,
}

/// Finds the page struct of a slice.
pub(super) trait Structs {
    fn page(&self, slice: u32) -> &'static Page;
}

fn list_of(slices: u32) -> usize {
    if slices < EXACT {
        slices as usize
    } else {
        (EXACT + slices.ilog2() - 5) as usize
    }
}

impl Runs {
    pub(super) const fn new() -> Self {
        Self {
            first: [0; LISTS],
            filled: 0,
        }
    }

    /// Adds a run that touches no other free run.
    pub(super) fn insert(&mut self, at: &impl Structs, slice: u32, slices: u32) {
        let (head, tail) = (at.page(slice), at.page(slice + slices - 1));
        tail.kind.set(Kind::Free);
        tail.head.set(slice);
        head.kind.set(Kind::Free);
        head.head.set(slice);
        head.slices.set(slices);
        let list = list_of(slices);
        let next = self.first[list];
        head.next_run.set(next);
        head.prev_run.set(0);
        if next != 0 {
            at.page(next).prev_run.set(slice);
        }
        self.first[list] = slice;
        self.filled |= 1 << list;
    }

    /// Takes a run off its list.
    pub(super) fn remove(&mut self, at: &impl Structs, slice: u32) -> u32 {
        let head = at.page(slice);
        let (slices, next, prev) = (head.slices.get(), head.next_run.get(), head.prev_run.get());
        let list = list_of(slices);
        if prev == 0 {
            self.first[list] = next;
            if next == 0 {
                self.filled &= !(1 << list);
            }
        } else {
            at.page(prev).next_run.set(next);
        }
        if next != 0 {
            at.page(next).prev_run.set(prev);
        }
        head.kind.set(Kind::Untouched);
        at.page(slice + slices - 1).kind.set(Kind::Untouched);
        slices
    }

    /// A free run of at least `slices`, the tightest list first; stays listed.
    pub(super) fn find(&self, at: &impl Structs, slices: u32) -> Option<u32> {
        let mut list = list_of(slices);
        if slices >= EXACT {
            let mut run = self.first[list];
            for _ in 0..64 {
                if run == 0 {
                    break;
                }
                if at.page(run).slices.get() >= slices {
                    return Some(run);
                }
                run = at.page(run).next_run.get();
            }
            list += 1;
        }
        let mask = self.filled & (u64::MAX.checked_shl(u32::try_from(list).ok()?)?);
        (mask != 0).then(|| self.first[mask.trailing_zeros() as usize])
    }

    /// Takes runs that are `due` off the lists until `into` is full, looking at no
    /// more than `bound`; answers how many. Each is its first slice and its length.
    pub(super) fn drain(
        &mut self,
        at: &impl Structs,
        bound: usize,
        due: impl Fn(&Page) -> bool,
        into: &mut [(u32, u32)],
    ) -> usize {
        let (mut left, mut count) = (bound, 0);
        let mut lists = self.filled;
        while lists != 0 {
            let mut run = self.first[lists.trailing_zeros() as usize];
            lists &= lists - 1;
            while run != 0 {
                let page = at.page(run);
                let next = page.next_run.get();
                if count == into.len() || left == 0 {
                    return count;
                }
                left -= 1;
                if due(page) {
                    into[count] = (run, self.remove(at, run));
                    count += 1;
                }
                run = next;
            }
        }
        count
    }
}
