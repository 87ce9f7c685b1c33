//! Thread headers, summed over slots.

use pageshim_wire::layout::{Layout, THREAD_HEADER_BYTES};
use pageshim_wire::process::CLASSES_MAX;
use pageshim_wire::thread::{APIS, CLASS_COUNTER_WORDS, LIFETIMES, SYSCALLS, class_word, word};
use pageshim_wire::word_at;

use super::report::{Amount, Threads};
use super::view::{View, each_range};

/// Counters of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSums {
    /// Blocks and requested bytes allocated.
    pub allocated: Amount,
    /// Blocks and requested bytes freed.
    pub freed: Amount,
}

impl ClassSums {
    /// What is live. Slots are read one after the other, so a block freed by
    /// another thread in between may be seen freed only: that reads as zero.
    pub fn live(&self) -> Amount {
        Amount {
            bytes: self.allocated.bytes.saturating_sub(self.freed.bytes),
            blocks: self.allocated.blocks.saturating_sub(self.freed.blocks),
        }
    }
}

/// The sum of all thread slots.
#[derive(Clone, Debug)]
pub struct ThreadSums {
    /// Running now and ever.
    pub threads: Threads,
    /// By size class.
    pub classes: Vec<ClassSums>,
    /// Allocations by api; index 0 (malloc) is filled in from the total.
    pub apis: [u64; APIS],
    /// Calls and nanoseconds.
    pub syscalls: [(u64, u64); SYSCALLS],
    /// Freed blocks by lifetime.
    pub lifetimes: [u64; LIFETIMES],
    /// Sum of their lifetimes, ms.
    pub lifetime_ms: u64,
    /// Blocks freed before their thread's next allocation.
    pub temporary: u64,
    /// Reallocations in place and moved.
    pub reallocations: [u64; 2],
    /// Used slots.
    pub used: u64,
    /// Pending bytes and blocks of the one used slot at their highest (meaningless for more).
    pub pending_high: (i64, i64),
    /// What other layers would have made of the requests.
    pub layers: Layers,
    /// Name of each slot's present or last owner.
    pub names: Vec<String>,
}

/// The counters of [`crate::whatif`]. Each thread's words are its own view of blocks that others
/// may free, so sums are signed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layers {
    /// OS pages beyond the first of live singletons.
    pub further: i64,
    /// See the thread word PAGE_CALLS.
    pub page_calls: i64,
    /// Bytes an arena would be filled to.
    pub filled: i64,
    /// How much more that was at most, in the thread where it was most.
    pub filled_more: i64,
    /// Blocks of 128 KiB and more: allocated, freed.
    pub large: (u64, u64),
    /// Of the last slot: the high of live blocks not yet published, with their further pages.
    pub pending_blocks_high: i64,
}

impl Layers {
    fn add(&mut self, bytes: &[u8]) {
        let at = |index: usize| word_at(bytes, index).cast_signed();
        let singles = at(word::SINGLE_PAGES).saturating_sub(at(word::SINGLE_PAGES_FREED));
        let filled = at(word::PACKED).saturating_sub(at(word::PACKED_BACK));
        self.further = self.further.saturating_add(singles);
        self.page_calls = self.page_calls.saturating_add(at(word::PAGE_CALLS));
        self.filled = self.filled.saturating_add(filled);
        let beyond = at(word::PACKED_HIGH).saturating_sub(filled);
        self.filled_more = self.filled_more.max(beyond);
        more(&mut self.large.0, word_at(bytes, word::LARGE));
        more(&mut self.large.1, word_at(bytes, word::LARGE_FREES));
        self.pending_blocks_high = at(word::BLOCKS_HIGH);
    }
}

impl ThreadSums {
    /// Reads the headers of the first `count` slots, holes skipped.
    pub fn read(view: &dyn View, layout: &Layout, count: u64) -> Self {
        let mut sums = Self {
            threads: Threads::default(),
            classes: vec![ClassSums::default(); CLASSES_MAX],
            apis: [0; APIS],
            syscalls: [(0, 0); SYSCALLS],
            lifetimes: [0; LIFETIMES],
            lifetime_ms: 0,
            temporary: 0,
            reallocations: [0; 2],
            used: 0,
            pending_high: (0, 0),
            layers: Layers::default(),
            names: Vec::new(),
        };
        let mut bytes = vec![0; THREAD_HEADER_BYTES as usize];
        for slot in 0..count {
            let start = layout.thread(slot);
            let mut populated = false;
            each_range(view, start, start + THREAD_HEADER_BYTES, |_, _| {
                populated = true;
            });
            if populated && view.read(start, &mut bytes) && word_at(&bytes, word::STATE) != 0 {
                sums.add(slot, &bytes);
            }
        }
        sums.finish();
        sums
    }

    /// Everything allocated.
    pub fn allocated(&self) -> Amount {
        self.total(|class| class.allocated)
    }

    /// Everything freed.
    pub fn freed(&self) -> Amount {
        self.total(|class| class.freed)
    }

    fn total(&self, of: impl Fn(&ClassSums) -> Amount) -> Amount {
        self.classes
            .iter()
            .fold(Amount::default(), |sum, class| plus(sum, of(class)))
    }

    fn add(&mut self, slot: u64, bytes: &[u8]) {
        let at = |index: usize| word_at(bytes, index);
        self.used += 1;
        self.threads.live += u64::from(at(word::STATE) == 1);
        more(&mut self.threads.total, at(word::GENERATION).max(1));
        for (index, class) in self.classes.iter_mut().enumerate() {
            let of = |what| at(word::CLASSES + index * CLASS_COUNTER_WORDS + what);
            more(&mut class.allocated.blocks, of(class_word::ALLOCATIONS));
            more(&mut class.allocated.bytes, of(class_word::ALLOCATED_BYTES));
            more(&mut class.freed.blocks, of(class_word::FREES));
            more(&mut class.freed.bytes, of(class_word::FREED_BYTES));
        }
        for (index, api) in self.apis.iter_mut().enumerate() {
            more(api, at(word::API + index));
        }
        for (index, (count, ns)) in self.syscalls.iter_mut().enumerate() {
            more(count, at(word::SYSCALLS + 2 * index));
            more(ns, at(word::SYSCALLS + 2 * index + 1));
        }
        for (index, bucket) in self.lifetimes.iter_mut().enumerate() {
            more(bucket, at(word::LIFETIME + index));
        }
        more(&mut self.lifetime_ms, at(word::LIFETIME_SUM_MS));
        more(&mut self.temporary, at(word::TEMPORARY));
        more(&mut self.reallocations[0], at(word::REALLOC_IN_PLACE));
        more(&mut self.reallocations[1], at(word::REALLOC_MOVED));
        self.pending_high = (
            at(word::PENDING_HIGH).cast_signed(),
            at(word::PENDING_HIGH_BLOCKS).cast_signed(),
        );
        self.layers.add(bytes);
        self.name(slot, bytes);
    }

    fn name(&mut self, slot: u64, bytes: &[u8]) {
        let text = bytes
            .get(word::NAME * 8..word::NAME * 8 + 16)
            .unwrap_or_default();
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let slot = slot as usize;
        if self.names.len() <= slot {
            self.names.resize(slot + 1, String::new());
        }
        self.names[slot] = super::header::printable(&String::from_utf8_lossy(text));
    }

    /// Malloc is what no other api counted, a life within a tick what no other bucket did.
    fn finish(&mut self) {
        let named = self.apis[1..]
            .iter()
            .fold(0u64, |a, b| a.saturating_add(*b));
        self.apis[0] = self.allocated().blocks.saturating_sub(named);
        let later = self.lifetimes[1..]
            .iter()
            .fold(0u64, |a, b| a.saturating_add(*b));
        self.lifetimes[0] = self.freed().blocks.saturating_sub(later);
    }

    /// Forgets what count mode does not keep: how long blocks lived, and which were
    /// freed before the next allocation.
    pub fn only_counted(&mut self) {
        self.lifetimes = [0; LIFETIMES];
        (self.lifetime_ms, self.temporary) = (0, 0);
    }
}

/// Adds without ever wrapping: a hostile counter may be anything.
pub fn more(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}

/// The sum of two amounts.
pub fn plus(a: Amount, b: Amount) -> Amount {
    Amount {
        bytes: a.bytes.saturating_add(b.bytes),
        blocks: a.blocks.saturating_add(b.blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    // Goal: sums go over slots, a free in another slot counts. Method: two slots, one class.
    #[test]
    fn slots_are_summed_and_live_never_wraps() {
        let mut state = State::new();
        state.thread(0, 1, "main").class(0, 0, [10, 160, 2, 32]);
        state.thread(1, 2, "worker").class(1, 0, [0, 0, 3, 48]);
        state.thread_word(1, word::API + 1, 4);
        let sums = state.threads();
        assert_eq!(
            sums.classes[0].live(),
            Amount {
                bytes: 80,
                blocks: 5
            }
        );
        assert_eq!(
            (sums.threads.live, sums.threads.total, sums.used),
            (1, 2, 2)
        );
        assert_eq!((sums.apis[0], sums.apis[1]), (6, 4));
        assert_eq!(sums.names, ["main", "worker"]);
        state.thread_word(1, word::LIFETIME + 3, 2);
        state.thread_word(1, word::TEMPORARY, 1);
        let mut sums = state.threads();
        assert_eq!((sums.lifetimes[0], sums.lifetimes[3]), (3, 2));
        sums.only_counted();
        assert_eq!((sums.lifetimes, sums.temporary), ([0; LIFETIMES], 0));
        state.class(1, 0, [0, 0, u64::MAX, u64::MAX]);
        assert_eq!(state.threads().classes[0].live(), Amount::default());
    }
}
