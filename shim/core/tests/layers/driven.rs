//! Any layer driven by bytes: what the fuzz target `layers` runs, and its finds.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::choices::{Bytes, Choices};
use pageshim_core::heap::conformance;
use pageshim_core::heap::gpa::Spaces;
use pageshim_core::heap::layer::{GpaLayer, Layer, Usage};
use pageshim_core::heap::page::{PageLayer, Pages};

use crate::adapters::{Whole, WholeHeap};
use crate::every::{self, KEEPERS, Supply, Work};

const STEPS: usize = 2_000;
const SPAN: usize = 64 << 20;

/// Memory of one run. Under a fuzzer all of it goes when the run ends.
#[derive(Default)]
struct Lent {
    ends: RefCell<Vec<Box<dyn FnOnce()>>>,
}

impl Lent {
    /// Notes how to take something back, which only a fuzzer's million runs need.
    fn until_end(&self, end: impl FnOnce() + 'static) {
        if cfg!(fuzzing) {
            self.ends.borrow_mut().push(Box::new(end));
        }
    }

    fn leak<T: 'static>(&self, value: T) -> &'static T {
        let place = Box::into_raw(Box::new(value));
        // SAFETY: just boxed; dropped when the run is over, by nobody else.
        self.until_end(move || drop(unsafe { Box::from_raw(place) }));
        // SAFETY: as above.
        unsafe { &*place }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // What was lent last may stand on what was lent first.
        for end in self.ends.take().into_iter().rev() {
            end();
        }
    }
}

impl Supply for Lent {
    fn pages(&self) -> PageLayer {
        PageLayer::new(self.leak(Accounts::new()))
    }

    fn gpa(&self) -> GpaLayer {
        let pages = Pages::new(self.leak(Accounts::new()));
        let spaces = self.leak(Spaces::new(pages));
        let layer = GpaLayer::open(spaces, pages, SPAN).expect("address space for a test");
        #[cfg(fuzzing)]
        {
            let heap = layer.heap();
            // SAFETY: at the end of the run nobody uses the layer any more.
            self.until_end(move || unsafe { GpaLayer::unmap(heap, pages) });
        }
        layer
    }

    fn buffer(&self, bytes: usize) -> &'static mut [MaybeUninit<u8>] {
        let place = Box::into_raw(vec![MaybeUninit::<u8>::uninit(); bytes].into_boxed_slice());
        // SAFETY: just boxed; dropped when the run is over, by nobody else.
        self.until_end(move || drop(unsafe { Box::from_raw(place) }));
        // SAFETY: as above, and this is the only reference.
        unsafe { &mut *place }
    }

    fn whole<H: WholeHeap>(&self, make: fn(Pages) -> H) -> Whole<H> {
        let accounts = self.leak(Accounts::new());
        let heap = self.leak(make(Pages::new(accounts)));
        assert!(heap.open(SPAN), "address space for a test");
        #[cfg(fuzzing)]
        // SAFETY: at the end of the run nobody uses the heap any more.
        self.until_end(move || unsafe { heap.unmap() });
        Whole { heap, accounts }
    }
}

/// The model: patterns in blocks (the suite's driver), books that add up.
struct Driven<'a>(&'a [u8]);

impl Work for Driven<'_> {
    fn on<L: Layer>(&self, name: &str, layer: &L, usage: &dyn Fn() -> Usage) {
        let mut choices = Bytes::new(self.0);
        let mut step = 0;
        conformance::driven(layer, &mut choices, STEPS, |live| {
            step += 1;
            let usage = usage();
            assert!(usage.adds_up(), "{name}, step {step}: {usage:?}");
            assert!(
                usage.requested <= live || name == "pool",
                "{name}: {usage:?}"
            );
        });
    }
}

/// Runs the layer that the first byte picks by the choices in the rest.
pub(crate) fn run(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    let number = choices.below(KEEPERS);
    let rest = bytes.get(1..).unwrap_or(&[]);
    every::on_one(number, &Lent::default(), &Driven(rest));
}

#[cfg(test)]
mod tests {
    use crate::support::each_seed;

    // Goal: what the fuzzer kept, as rare or once wrong, stays right. Method: its inputs, from the tree.
    #[test]
    fn what_the_fuzzer_found_stays_right() {
        each_seed("layers", super::run);
    }
}
