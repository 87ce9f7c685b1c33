//! Site counters, summed over thread slots, a chunk of sites at a time.
//!
//! # Design
//! A state may hold a million sites times hundreds of thread slots; nearly all
//! of it is holes. The walk keeps one cursor per slot, the next populated
//! range, so a hole costs nothing and the sums of one chunk (256 KiB) are the
//! only buffer.

use pageshim_wire::layout::{COUNTERS_BYTES, Layout};
use pageshim_wire::thread::site_word;
use pageshim_wire::word_at;

use super::report::Amount;
use super::sampled::{Variance, whole};
use super::threads::more;
use super::view::View;

/// Sites summed at once.
const CHUNK: u64 = 4096;

/// One site's counters over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteSums {
    /// Blocks and requested bytes allocated.
    pub allocated: Amount,
    /// Blocks and requested bytes freed.
    pub freed: Amount,
    /// Blocks freed before their thread's next allocation.
    pub temporary: u64,
    /// OS pages it was the first to carve.
    pub touched: u64,
    /// Sum of the lifetimes of blocks freed, ms.
    pub lifetime_ms: u64,
    /// Slot bytes beyond the requests, over all blocks.
    pub rounding: u64,
    /// Of a sampled process: how far off the others may be.
    pub variance: Variance,
}

impl SiteSums {
    /// What is live; a block seen freed only (see `ClassSums::live`) reads as none.
    pub fn live(&self) -> Amount {
        Amount {
            bytes: self.allocated.bytes.saturating_sub(self.freed.bytes),
            blocks: self.allocated.blocks.saturating_sub(self.freed.blocks),
        }
    }

    fn add(&mut self, bytes: &[u8], sampled: bool) {
        let at = |word| word_at(bytes, word);
        more(&mut self.allocated.blocks, at(site_word::ALLOCATIONS));
        more(&mut self.allocated.bytes, at(site_word::ALLOCATED_BYTES));
        more(&mut self.freed.blocks, at(site_word::FREES));
        more(&mut self.freed.bytes, at(site_word::FREED_BYTES));
        if sampled {
            self.variance.read(bytes);
        } else {
            more(&mut self.temporary, at(site_word::TEMPORARY));
            more(&mut self.touched, at(site_word::FIRST_TOUCHES));
            more(&mut self.lifetime_ms, at(site_word::LIFETIME_MS));
            more(&mut self.rounding, at(site_word::ROUNDING_BYTES));
        }
    }

    /// As reported: in whole blocks and bytes.
    fn finish(&self, sampled: bool) -> Self {
        if !sampled {
            return *self;
        }
        Self {
            allocated: whole(self.allocated),
            freed: whole(self.freed),
            ..*self
        }
    }
}

/// The populated ranges of one slot's counters, one after the other.
struct Cursor {
    slot: u64,
    next: Option<(u64, u64)>,
}

/// Which counters there are, and in which units.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Sites are below this.
    pub sites: u64,
    /// Thread slots are below this.
    pub threads: u64,
    /// They are estimates, see [`super::sampled`].
    pub sampled: bool,
}

/// Calls `each` with every site that any thread slot of `counted` has counted, in order of site id.
pub fn each_site(
    view: &dyn View,
    layout: &Layout,
    counted: Counted,
    mut each: impl FnMut(u32, &SiteSums),
) {
    let sites = counted.sites.min(layout.site_capacity);
    let mut cursors: Vec<Cursor> = (0..counted.threads.min(layout.thread_capacity))
        .map(|slot| Cursor {
            slot,
            next: view.data(layout.counters(slot, 0), layout.counters(slot, sites)),
        })
        .filter(|cursor| cursor.next.is_some())
        .collect();
    let mut bytes = vec![0; (CHUNK * COUNTERS_BYTES) as usize];
    let mut first = 0;
    while first < sites && !cursors.is_empty() {
        let last = (first + CHUNK).min(sites);
        let mut sums = vec![SiteSums::default(); (last - first) as usize];
        for cursor in &mut cursors {
            sum_chunk(
                view,
                layout,
                cursor,
                (first, last, sites, counted.sampled),
                &mut bytes,
                &mut sums,
            );
        }
        for (site, sum) in (first..last).zip(&sums) {
            if sum.allocated.blocks != 0 || sum.freed.blocks != 0 {
                each(site as u32, &sum.finish(counted.sampled));
            }
        }
        cursors.retain(|cursor| cursor.next.is_some());
        first = last;
    }
}

/// Adds one slot's counters of sites `first..last`, moving its cursor past them.
fn sum_chunk(
    view: &dyn View,
    layout: &Layout,
    cursor: &mut Cursor,
    (first, last, sites, sampled): (u64, u64, u64, bool),
    bytes: &mut [u8],
    sums: &mut [SiteSums],
) {
    let base = layout.counters(cursor.slot, 0);
    let (from, to) = (
        layout.counters(cursor.slot, first),
        layout.counters(cursor.slot, last),
    );
    while let Some((start, end)) = cursor.next.filter(|(start, _)| *start < to) {
        let site = (start.max(from) - base) / COUNTERS_BYTES;
        let past = (end.min(to) - base).div_ceil(COUNTERS_BYTES).min(last);
        if past > site {
            let part = &mut bytes[..((past - site) * COUNTERS_BYTES) as usize];
            if view.read(layout.counters(cursor.slot, site), part) {
                let lines = part.chunks_exact(COUNTERS_BYTES as usize);
                let into = &mut sums[(site - first) as usize..];
                into.iter_mut()
                    .zip(lines)
                    .for_each(|(sum, line)| sum.add(line, sampled));
            }
        }
        if end > to {
            return;
        }
        cursor.next = view.data(end.max(start + 1), layout.counters(cursor.slot, sites));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use pageshim_wire::Memory;

    use super::super::fake::State;
    use super::super::view::Bytes;
    use super::*;

    fn counted(sites: u64, threads: u64) -> Counted {
        Counted {
            sites,
            threads,
            sampled: false,
        }
    }

    /// Bytes that pretend every page of zeros is a hole and count what is read.
    struct Sparse(Bytes, RefCell<u64>);

    impl Memory for Sparse {
        fn read(&self, offset: u64, into: &mut [u8]) -> bool {
            *self.1.borrow_mut() += into.len() as u64;
            self.0.read(offset, into)
        }
    }

    impl View for Sparse {
        fn data(&self, from: u64, to: u64) -> Option<(u64, u64)> {
            let full = |page: &u64| {
                let at = (*page * 4096) as usize;
                self.0.0[at..at + 4096].iter().any(|byte| *byte != 0)
            };
            let page = (from / 4096..to.div_ceil(4096)).find(full)?;
            Some(((page * 4096).max(from), ((page + 1) * 4096).min(to)))
        }
    }

    // Goal: holes are not read and nothing is missed or counted twice.
    // Method: the same state as plain bytes and as a sparse file, two slots, sites on several pages.
    #[test]
    fn holes_are_skipped() {
        let mut state = State::new();
        for (slot, site, blocks) in [(0, 2, 5), (0, 200, 7), (3, 2, 1), (3, 255, 9)] {
            state.thread(slot, 1, "t");
            state.site_counters(slot, site, [blocks, blocks * 10, 1, 10, 0]);
        }
        let list = |view: &dyn View| {
            let mut seen = Vec::new();
            each_site(view, &state.layout, counted(256, 4), |site, sums| {
                seen.push((site, sums.live().blocks));
            });
            seen
        };
        let sparse = Sparse(state.view(), RefCell::new(0));
        assert_eq!(list(&sparse), [(2, 4), (200, 6), (255, 8)]);
        assert_eq!(list(&state.view()), list(&sparse));
        assert!(
            *sparse.1.borrow() <= 8 * 4096,
            "{} bytes read",
            sparse.1.borrow()
        );
    }

    // Goal: hostile counts are cut to the layout. Method: ask for more than there is.
    #[test]
    fn counts_past_capacity_end_at_it() {
        let mut state = State::new();
        state
            .thread(0, 1, "t")
            .site_counters(0, 255, [1, 1, 0, 0, 0]);
        let mut seen = 0;
        each_site(
            &state.view(),
            &state.layout,
            counted(u64::MAX, u64::MAX),
            |_, _| seen += 1,
        );
        assert_eq!(seen, 1);
    }
}
