//! The page account by size class: `/sizes`.

use serde::{Deserialize, Serialize};

use super::header::{Class, Header};
use super::report::Amount;
use super::summary::Observed;
use super::threads::ThreadSums;

/// One size class. `requested + rounding + free_slot + tail == page bytes`, and over all classes
/// these are the parts of the page account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes of a slot; 0 for singletons, each of which has a page run of its own.
    pub slot_bytes: u64,
    /// Slots with a live block.
    pub live_slots: u64,
    /// Carved slots without one.
    pub free_slots: u64,
    /// Bytes of the class's page runs.
    pub page_bytes: u64,
    /// Live bytes as asked for.
    pub requested_bytes: u64,
    /// Slot bytes beyond them, in live blocks.
    pub rounding_bytes: u64,
    /// Bytes of the free slots.
    pub free_slot_bytes: u64,
    /// Page runs' ends and parts never carved.
    pub tail_bytes: u64,
}

/// A process and its classes, as `/sizes.json` has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Id, as in the report.
    pub process: String,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub name: String,
    /// `running`, `exited`, `killed`.
    pub state: String,
    /// Its mode: in `off` nobody counts blocks, in `sampled` they are estimates.
    pub mode: String,
    /// Classes with any page, smallest first, singletons last.
    pub classes: Vec<Size>,
}

impl Entry {
    /// Of a look at a process.
    pub fn of(observed: Observed) -> Self {
        let process = observed.process;
        Self {
            state: process.state.name().to_owned(),
            process: process.id,
            pid: process.pid,
            name: process.name,
            mode: process.mode,
            classes: observed.sizes,
        }
    }
}

/// `/sizes.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    /// Version of this document.
    pub schema_version: u32,
    /// Newest first.
    pub processes: Vec<Entry>,
}

/// All classes in the order of the header.
pub fn of(header: &Header, threads: &ThreadSums) -> Vec<Size> {
    let sampled = header.interval().is_some();
    let pairs = header.classes().into_iter().zip(&threads.classes);
    pairs
        .map(|(class, sums)| {
            let live = sums.live();
            size(&class, if sampled { within(&class, live) } else { live })
        })
        .collect()
}

/// An estimate of what is live, cut to the slots there are: the account is of
/// committed bytes, which are exact.
fn within(class: &Class, live: Amount) -> Amount {
    if class.slot_bytes == 0 {
        let bytes = live.bytes.min(class.capacity);
        return Amount { bytes, ..live };
    }
    let blocks = live.blocks.min(class.capacity);
    Amount {
        blocks,
        bytes: live.bytes.min(blocks.saturating_mul(class.slot_bytes)),
    }
}

fn size(class: &Class, live: Amount) -> Size {
    let (used, carved) = if class.slot_bytes == 0 {
        // Singletons: all carved bytes hold blocks.
        let carved = class.capacity.max(live.bytes);
        (carved, carved)
    } else {
        let used = live.blocks.saturating_mul(class.slot_bytes);
        (used, class.capacity.saturating_mul(class.slot_bytes))
    };
    Size {
        slot_bytes: class.slot_bytes,
        live_slots: live.blocks,
        free_slots: match class.slot_bytes {
            0 => 0,
            _ => class.capacity.saturating_sub(live.blocks),
        },
        page_bytes: class.page_bytes,
        requested_bytes: live.bytes,
        rounding_bytes: used.saturating_sub(live.bytes),
        free_slot_bytes: carved.saturating_sub(used),
        tail_bytes: class.page_bytes.saturating_sub(carved),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::super::pages;
    use super::*;
    use pageshim_wire::process::word;

    // Goal: a class's parts sum to its pages, all classes' to the page account. Method: two classes
    // and singletons by hand.
    #[test]
    fn classes_sum_to_the_account() {
        let mut state = State::new();
        state.class_table(&[
            [32, 65536, 1000],
            [48, 65536, 100],
            [0, 8_388_608, 8_000_000],
        ]);
        state.thread(0, 1, "t").class(0, 0, [15, 300, 5, 100]);
        state.class(0, 2, [1, 7_900_000, 0, 0]);
        state.set(word::HEAP_COMMITTED, 2 * 65536 + 8_388_608 + 131_072);
        let (header, threads) = (state.header(), state.threads());
        let sizes = of(&header, &threads);
        let sum = |of: fn(&Size) -> u64| sizes.iter().map(of).sum::<u64>();
        for size in &sizes {
            let parts =
                size.requested_bytes + size.rounding_bytes + size.free_slot_bytes + size.tail_bytes;
            assert_eq!(parts, size.page_bytes, "{size:?}");
        }
        assert_eq!((sizes[0].live_slots, sizes[0].free_slots), (10, 990));
        assert_eq!(
            (sizes[0].requested_bytes, sizes[0].rounding_bytes),
            (200, 120)
        );
        assert_eq!((sizes[1].live_slots, sizes[1].free_slot_bytes), (0, 4800));
        assert_eq!((sizes[2].slot_bytes, sizes[2].free_slots), (0, 0));
        let account = pages::account(&header, &threads);
        assert_eq!(sum(|s| s.requested_bytes), account.requested_bytes);
        assert_eq!(sum(|s| s.rounding_bytes), account.rounding_bytes);
        assert_eq!(sum(|s| s.free_slot_bytes), account.free_slot_bytes);
        assert_eq!(sum(|s| s.tail_bytes), account.tail_bytes);
    }
}
