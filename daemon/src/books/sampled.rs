//! Estimates of a process in mode sampled, from the words of [`pageshim_wire::sampled`].
//!
//! Counters are summed in their parts of blocks and bytes, and made whole once, at
//! the end: rounding each summand would add up. Errors are standard errors: of an
//! estimate two of them to either side hold the truth in about 95 of 100 cases,
//! where a site has more than a few samples.

use pageshim_wire::sampled::{
    BLOCKS_VARIANCE_UNIT, BYTES_VARIANCE_UNIT, INTERVAL_MAX, INTERVAL_MIN, blocks, bytes, site_word,
};
use pageshim_wire::word_at;

use super::report::Amount;
use super::threads::{ThreadSums, more};

/// Sums of the variances of what was allocated, and of the part that was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variance {
    allocated: Amount,
    freed: Amount,
}

impl Variance {
    /// Adds a site's words of one thread.
    pub fn read(&mut self, words: &[u8]) {
        let at = |word| word_at(words, word);
        more(
            &mut self.allocated.blocks,
            at(site_word::ALLOCATIONS_VARIANCE),
        );
        more(
            &mut self.allocated.bytes,
            at(site_word::ALLOCATED_BYTES_VARIANCE),
        );
        more(&mut self.freed.blocks, at(site_word::FREES_VARIANCE));
        more(&mut self.freed.bytes, at(site_word::FREED_BYTES_VARIANCE));
    }

    /// Adds another site's: samples are independent, so variances add up.
    pub fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.allocated, other.allocated),
            (&mut self.freed, other.freed),
        ] {
            *sum = super::threads::plus(*sum, part);
        }
    }

    /// Standard errors of what was allocated.
    pub fn of_total(&self, interval: u64) -> Amount {
        error(self.allocated, interval)
    }

    /// Standard errors of what is live.
    pub fn of_live(&self, interval: u64) -> Amount {
        let live = Amount {
            bytes: self.allocated.bytes.saturating_sub(self.freed.bytes),
            blocks: self.allocated.blocks.saturating_sub(self.freed.blocks),
        };
        error(live, interval)
    }
}

fn error(variance: Amount, interval: u64) -> Amount {
    let of = |sum: u64, unit: f64| (interval as f64 * (sum as f64 / unit).sqrt()).round() as u64;
    Amount {
        bytes: of(variance.bytes, BYTES_VARIANCE_UNIT),
        blocks: of(variance.blocks, BLOCKS_VARIANCE_UNIT),
    }
}

/// The interval a header says, within what a shim may choose.
pub fn interval(word: u64) -> u64 {
    word.clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// An amount in whole blocks and bytes.
pub fn whole(parts: Amount) -> Amount {
    Amount {
        bytes: bytes(parts.bytes),
        blocks: blocks(parts.blocks),
    }
}

impl ThreadSums {
    /// Turns parts into whole blocks and bytes.
    pub fn make_whole(&mut self) {
        for class in &mut self.classes {
            class.allocated = whole(class.allocated);
            class.freed = whole(class.freed);
        }
        let named = self.apis[1..].iter_mut().chain(&mut self.lifetimes);
        for count in named {
            *count = blocks(*count);
        }
        // Each was rounded; together they may not pass the whole.
        self.apis[0] = 0;
        let mut room = self.allocated().blocks;
        for api in &mut self.apis[1..] {
            *api = (*api).min(room);
            room -= *api;
        }
        self.apis[0] = room;
    }
}

#[cfg(test)]
mod tests {
    use pageshim_wire::process::{Mode, word};
    use pageshim_wire::thread::word as thread_word;

    use super::super::book::Book;
    use super::super::fake::State;
    use super::*;

    const INTERVAL: u64 = 1 << 19;

    /// A state with one site: 3 samples of 1 KiB, of which one was freed.
    fn state() -> State {
        let mut state = State::new();
        state
            .set(word::MODE, Mode::Sampled as u64)
            .set(word::SAMPLE_INTERVAL, INTERVAL);
        let (count, size) = (512u64 << 12, 524_800u64 << 4);
        state.thread(0, 1, "main");
        state.class_table(&[[1024, 65_536, 64]]);
        state.set(word::HEAP_COMMITTED, 131_072);
        state.class(0, 0, [3 * count, 3 * size, count, size]);
        state.thread_word(0, thread_word::API + 1, count);
        state.stack(2, &[0x10], (0, 0));
        state.site_counters(0, 2, [3 * count, 3 * size, count, size, 3 << 26]);
        let of_bytes = [(5, 3 << 24), (6, 1 << 26), (7, 1 << 24)];
        for (word, value) in of_bytes {
            let at = state.layout.counters(0, 2) + word * 8;
            state.put(at, value);
        }
        state
    }

    // Goal: parts become blocks and bytes, variances errors, and the page account still sums to
    // what the kernel gave. Method: the state above, by hand.
    #[test]
    fn estimates_are_whole_and_carry_their_errors() {
        let state = state();
        let view = state.view();
        let mut book = Book::new(state.layout);
        let process = book.look(&view).expect("whole").process;
        assert_eq!(
            (process.total.blocks, process.total.bytes),
            (1536, 3 * 524_800)
        );
        assert_eq!(
            (process.live.blocks, process.live.bytes),
            (1024, 2 * 524_800)
        );
        assert_eq!(
            (process.apis["malloc"], process.apis["calloc"]),
            (1024, 512)
        );
        let sampling = process.sampling.expect("sampled");
        let live = 2f64.sqrt() * INTERVAL as f64;
        assert_eq!(sampling.interval_bytes, INTERVAL);
        assert_eq!(sampling.live_error.bytes, live.round() as u64);
        assert_eq!(sampling.live_error.blocks, (live / 512.0).round() as u64);
        let total = (3f64.sqrt() * INTERVAL as f64).round() as u64;
        assert_eq!(sampling.total_error.bytes, total);
        assert_eq!(process.temporary, 0, "not known in this mode");
        let pages = process.pages;
        assert_eq!(
            pages.committed_bytes, 131_072,
            "exact, though more seems live"
        );
        assert!(pages.requested_bytes <= 65_536);
        let lead = book.live(&view, 0, 9)[0];
        assert_eq!((lead.sums.live().blocks, lead.sums.temporary), (1024, 0));
        assert_eq!(lead.sums.variance.of_live(INTERVAL), sampling.live_error);
    }

    // Goal: the same words of an exact process are none of this. Method: change the mode.
    #[test]
    fn exact_processes_have_no_errors() {
        let mut state = state();
        state.set(word::MODE, Mode::Exact as u64);
        let mut book = Book::new(state.layout);
        let process = book.look(&state.view()).expect("whole").process;
        assert!(process.sampling.is_none());
        assert_eq!(process.total.blocks, 1536 << 12);
        let lead = book.live(&state.view(), 0, 9)[0];
        assert_eq!(lead.sums.variance, Variance::default());
        assert_eq!(lead.sums.temporary, 3 << 26);
    }
}
