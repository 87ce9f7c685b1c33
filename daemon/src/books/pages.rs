//! The page account: where each committed byte goes.

use super::header::Header;
use super::report::Pages;
use super::sizes;
use super::threads::{ThreadSums, more};
use pageshim_wire::process::word;

/// Slots of one class, for `size_class_slots`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSlots {
    /// Bytes of a slot; 0 for singletons.
    pub slot_bytes: u64,
    /// Slots with a live block.
    pub live: u64,
    /// Carved slots without one.
    pub free: u64,
}

/// The page account of a process. A torn read may make a part momentarily off,
/// never negative; the parts always sum to `committed_bytes`.
pub fn account(header: &Header, threads: &ThreadSums) -> Pages {
    let mut pages = Pages::default();
    let mut in_classes = 0;
    for size in sizes::of(header, threads) {
        more(&mut pages.requested_bytes, size.requested_bytes);
        more(&mut pages.rounding_bytes, size.rounding_bytes);
        more(&mut pages.free_slot_bytes, size.free_slot_bytes);
        more(&mut pages.tail_bytes, size.tail_bytes);
        more(&mut in_classes, size.page_bytes);
    }
    let committed = header.word(word::HEAP_COMMITTED);
    pages.retained_bytes = committed.saturating_sub(in_classes);
    pages.metadata_bytes = header.word(word::METADATA);
    pages.committed_bytes = [
        pages.requested_bytes,
        pages.rounding_bytes,
        pages.free_slot_bytes,
        pages.tail_bytes,
        pages.retained_bytes,
        pages.metadata_bytes,
    ]
    .into_iter()
    .fold(0, u64::saturating_add);
    pages
}

/// The classes that have any slot.
pub fn slots(header: &Header, threads: &ThreadSums) -> Vec<ClassSlots> {
    let classes = header.classes();
    let pairs = classes.iter().zip(&threads.classes);
    pairs
        .map(|(class, sums)| {
            let live = sums.live().blocks;
            let free = match class.slot_bytes {
                0 => 0,
                _ => class.capacity.saturating_sub(live),
            };
            ClassSlots {
                slot_bytes: class.slot_bytes,
                live,
                free,
            }
        })
        .filter(|slots| slots.live != 0 || slots.free != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    // Goal: every part is what design says. Method: one class, singletons, a retained slice, by hand.
    #[test]
    fn parts_add_up() {
        let mut state = State::new();
        state.class_table(&[[32, 65536, 1000], [0, 8_388_608, 8_000_000]]);
        state.thread(0, 1, "t").class(0, 0, [15, 300, 5, 100]);
        state.class(0, 1, [1, 7_900_000, 0, 0]);
        state.set(word::HEAP_COMMITTED, 65536 + 8_388_608 + 131_072);
        state.set(word::METADATA, 4096);
        let (header, threads) = (state.header(), state.threads());
        let pages = account(&header, &threads);
        assert_eq!(pages.requested_bytes, 200 + 7_900_000);
        assert_eq!(pages.rounding_bytes, 120 + 100_000);
        assert_eq!(pages.free_slot_bytes, 990 * 32);
        assert_eq!(pages.tail_bytes, 65536 - 32000 + 388_608);
        assert_eq!(pages.retained_bytes, 131_072);
        assert_eq!(pages.committed_bytes, 65536 + 8_388_608 + 131_072 + 4096);
        let slots = slots(&header, &threads);
        assert_eq!((slots[0].live, slots[0].free), (10, 990));
        assert_eq!((slots[1].live, slots[1].free), (1, 0));
    }

    // Goal: hostile numbers saturate. Method: all words at their maximum.
    #[test]
    fn hostile_numbers_saturate() {
        let mut state = State::new();
        state.class_table(&[[u64::MAX; 3], [0, 0, u64::MAX]]);
        state
            .thread(0, 1, "t")
            .class(0, 0, [u64::MAX, u64::MAX, 0, 0]);
        state.set(word::HEAP_COMMITTED, 0);
        let pages = account(&state.header(), &state.threads());
        assert_eq!((pages.committed_bytes, pages.retained_bytes), (u64::MAX, 0));
    }
}
