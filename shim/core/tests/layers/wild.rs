//! The heaps of whole processes as programs treat them: blocks freed twice, inside
//! pointers, wild addresses. What the fuzz target `whole` runs, and its finds.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::atomic::Ordering;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::choices::{Bytes, Choices};
use pageshim_core::heap::page::Pages;
use pageshim_core::whole::{Block, Bump, Debug, Found, PageHeap};

use crate::adapters::{Whole, WholeHeap};

const STEPS: usize = 2_000;
const CHECK_EVERY: usize = 16;
const SPAN: usize = 64 << 20;

struct Held {
    requested: usize,
    mark: u8,
}

struct Model<H: WholeHeap> {
    whole: Whole<H>,
    live: BTreeMap<usize, Held>,
    freed: BTreeSet<usize>,
    /// No address is used twice, so that a second free always shows.
    remembers: bool,
    mark: u8,
}

/// Offsets whose content is written and checked: the first and last 2 KiB.
fn places(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes.min(2048)).chain(bytes.saturating_sub(2048)..bytes)
}

impl<H: WholeHeap> Model<H> {
    fn heap(&self) -> &'static H {
        self.whole.heap
    }

    /// A block the heap answered: apart from all others, filled, in the model.
    fn keep(&mut self, block: &Block, requested: usize) {
        assert!(block.requested == requested && block.usable >= requested);
        self.whole.note(block);
        let below = self.live.range(..=block.address).next_back();
        assert!(below.is_none_or(|(at, held)| at + held.requested.max(1) <= block.address));
        let above = self.live.range(block.address..).next();
        assert!(above.is_none_or(|(at, _)| block.address + block.usable <= *at));
        self.mark = self.mark.wrapping_add(1);
        let at = ptr::with_exposed_provenance_mut::<u8>(block.address);
        // SAFETY: a fresh block of this many bytes.
        places(requested).for_each(|offset| unsafe { at.add(offset).write(self.mark) });
        let mark = self.mark;
        self.live.insert(block.address, Held { requested, mark });
        self.freed.remove(&block.address);
        // What began here before begins here no more.
        for old in self
            .freed
            .range(block.address..block.address + block.usable)
        {
            assert!(matches!(self.heap().find(*old), Found::Nothing), "{old:#x}");
        }
    }

    fn intact(address: usize, held: &Held, bytes: usize) {
        let at = ptr::with_exposed_provenance::<u8>(address);
        let kept = places(held.requested).filter(|offset| *offset < bytes);
        for offset in kept {
            // SAFETY: a live block of at least so many bytes.
            let found = unsafe { at.add(offset).read() };
            assert_eq!(found, held.mark, "byte {offset} was lost");
        }
    }

    fn take(&mut self, choices: &mut impl Choices) {
        let mut shape = choices.shape();
        if choices.below(16) == 0 {
            shape.requested = choices.below(3) << choices.below(22);
        }
        if let Some(block) = self.heap().take(shape.requested, shape.align.bytes()) {
            assert!(shape.align.fits(block.address));
            assert!(!block.zeroed || self.is_zero(&block), "said to be zero");
            self.keep(&block, shape.requested);
        }
    }

    fn is_zero(&self, block: &Block) -> bool {
        let at = ptr::with_exposed_provenance::<u8>(block.address);
        // SAFETY: a fresh block of this many bytes.
        places(block.usable).all(|offset| unsafe { at.add(offset).read() } == 0)
    }

    /// A live block, and its record taken.
    fn seize(&mut self, choices: &mut impl Choices) -> Option<(usize, Held, Block, u64)> {
        let number = choices.below(self.live.len().max(1));
        let address = *self.live.keys().nth(number)?;
        let held = self.live.remove(&address)?;
        let Found::Live(block) = self.heap().find(address) else {
            panic!("{address:#x} is live");
        };
        assert_eq!(block.requested, held.requested);
        Self::intact(address, &held, held.requested);
        let word = block.record.swap(0, Ordering::Relaxed);
        Some((address, held, block, word))
    }

    fn free(&mut self, choices: &mut impl Choices) {
        if let Some((address, ..)) = self.seize(choices) {
            self.heap().give(address);
            self.freed.insert(address);
        }
    }

    fn resize(&mut self, choices: &mut impl Choices) {
        let requested = choices.shape().requested << choices.below(7);
        let Some((address, held, old, word)) = self.seize(choices) else {
            return;
        };
        match self.heap().resize(address, requested, 16) {
            Some(block) => {
                Self::intact(block.address, &held, requested);
                if block.address != address {
                    self.freed.insert(address);
                }
                self.keep(&block, requested);
            }
            None => {
                old.record.store(word, Ordering::Relaxed);
                self.live.insert(address, held);
            }
        }
    }

    /// A second free, a pointer into a block, or any number.
    fn wrong(&mut self, choices: &mut impl Choices) {
        let pick = choices.below(256);
        let far = choices.below(1 << 16);
        let address = match choices.below(3) {
            0 => self.freed.iter().nth(pick % self.freed.len().max(1)),
            1 => self.live.keys().nth(pick % self.live.len().max(1)),
            _ => None,
        };
        let address = address.map_or(far << 12 | pick, |address| {
            address + (far & !15) * (pick & 1)
        });
        let found = self.heap().find(address);
        let is_live = matches!(found, Found::Live(_));
        assert_eq!(is_live, self.live.contains_key(&address), "{address:#x}");
        let below = self.live.range(..address).next_back();
        if below.is_some_and(|(at, held)| address < at + held.requested) {
            assert!(
                matches!(found, Found::Nothing),
                "{address:#x} is inside a block"
            );
        }
        if self.remembers && self.freed.contains(&address) {
            assert!(matches!(found, Found::Freed), "{address:#x} is remembered");
        }
    }

    fn check(&self) {
        let usage = self.whole.usage();
        let live: usize = self.live.values().map(|held| held.requested).sum();
        assert_eq!(usage.requested, live);
        assert!(usage.adds_up(), "{usage:?}");
    }

    fn run(mut self, choices: &mut impl Choices) {
        for step in 0..STEPS {
            if choices.are_over() {
                break;
            }
            match choices.below(8) {
                0..4 => self.take(choices),
                4..6 => self.free(choices),
                6 => self.resize(choices),
                _ => self.wrong(choices),
            }
            if step % CHECK_EVERY == 0 {
                self.check();
            }
        }
        while !self.live.is_empty() {
            self.free(choices);
        }
        self.check();
    }
}

fn on<H: WholeHeap>(make: fn(Pages) -> H, remembers: bool, choices: &mut impl Choices) {
    let accounts = Box::into_raw(Box::new(Accounts::new()));
    // SAFETY: just boxed; taken back below at the earliest.
    let accounts = unsafe { &*accounts };
    let heap: &'static H = Box::leak(Box::new(make(Pages::new(accounts))));
    // Small at times, so that its end is met.
    assert!(heap.open(SPAN >> (choices.below(3) * 2)), "address space");
    let model = Model {
        whole: Whole { heap, accounts },
        live: BTreeMap::new(),
        freed: BTreeSet::new(),
        remembers,
        mark: 0,
    };
    model.run(choices);
    #[cfg(fuzzing)]
    // SAFETY: the run is over, and nobody else knows them.
    unsafe {
        heap.unmap();
        drop(Box::from_raw(ptr::from_ref(heap).cast_mut()));
        drop(Box::from_raw(ptr::from_ref(accounts).cast_mut()));
    }
}

/// Runs the heap that the first byte picks by the choices in the rest.
pub(crate) fn run(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    match choices.below(3) {
        0 => on(PageHeap::new, false, &mut choices),
        1 => on(Bump::new, false, &mut choices),
        _ => on(Debug::new, true, &mut choices),
    }
}

#[cfg(test)]
mod tests {
    use crate::support::each_seed;

    // Goal: what the fuzzer kept, as rare or once wrong, stays right. Method: its inputs, from the tree.
    #[test]
    fn what_the_fuzzer_found_stays_right() {
        each_seed("whole", super::run);
    }
}
