//! Every layer there is, by number: for the suite, and for a fuzzer that picks one.

use std::cell::Cell;
use std::mem::MaybeUninit;

use pageshim_core::heap::arena::{Arena, SharedArena};
use pageshim_core::heap::conformance::NEEDED_BYTES;
use pageshim_core::heap::debug::{Config, DebugLayer, Report, Sink};
use pageshim_core::heap::failing::Failing;
use pageshim_core::heap::first::First;
use pageshim_core::heap::fixed::{Fixed, SharedFixed};
use pageshim_core::heap::layer::{GpaLayer, Layer, Locked, NoMutex, SpinMutex, Usage};
use pageshim_core::heap::page::{PageLayer, Pages};
use pageshim_core::heap::smp::Smp;
use pageshim_core::heap::stats::Stats;

use crate::adapters::{Places, Whole, WholeHeap};

/// Where the layers of a run get their memory, and who takes it back.
pub(crate) trait Supply {
    fn pages(&self) -> PageLayer;
    fn gpa(&self) -> GpaLayer;
    fn buffer(&self, bytes: usize) -> &'static mut [MaybeUninit<u8>];
    /// A heap for a whole process with addresses for the suite.
    fn whole<H: WholeHeap>(&self, make: fn(Pages) -> H) -> Whole<H>;
}

pub(crate) trait Work {
    /// Called with a fresh layer; the function says where its memory is.
    fn on<L: Layer>(&self, name: &str, layer: &L, usage: &dyn Fn() -> Usage);
}

/// Misuse is none of the suite's: what a debug layer reports is a failure.
struct Severe;

impl Sink for Severe {
    fn report(&self, report: &Report<'_>) {
        panic!("{report}");
    }
}

const CONFIG: Config<'static> = Config::new(&Severe);
/// The first number whose layer keeps its parent's memory for ever.
pub(crate) const KEEPERS: usize = 20;

pub(crate) fn on_all(supply: &impl Supply, work: &impl Work) {
    let ran = (0..).take_while(|number| on_one(*number, supply, work));
    assert_eq!(ran.count(), KEEPERS + 1, "no layer was left out");
}

/// Runs `work` on layer `number`; false when there is none.
pub(crate) fn on_one(number: usize, supply: &impl Supply, work: &impl Work) -> bool {
    if number < 12 {
        on_stacks(number, supply, work);
    } else {
        return on_others(number, supply, work);
    }
    true
}

macro_rules! on {
    ($work:ident, $name:literal, $layer:expr) => {{
        let layer = $layer;
        $work.on($name, &layer, &|| layer.usage());
    }};
    ($work:ident, $name:literal, $layer:expr, $usage:expr) => {{
        let layer = $layer;
        $work.on($name, &layer, &|| $usage(&layer));
    }};
}

fn on_stacks(number: usize, supply: &impl Supply, work: &impl Work) {
    let room = NEEDED_BYTES;
    match number {
        0 => on!(work, "page", supply.pages()),
        1 => on!(work, "gpa", supply.gpa()),
        2 => on!(work, "fixed", <Fixed<'_>>::new(supply.buffer(room))),
        3 => on!(work, "shared fixed", SharedFixed::new(supply.buffer(room))),
        4 => on!(work, "arena over page", <Arena<_>>::new(supply.pages())),
        5 => on!(work, "shared arena", SharedArena::new(supply.pages())),
        6 => {
            let inner = Fixed::<Cell<usize>>::new(supply.buffer(4 * room));
            on!(work, "arena over fixed", <Arena<_>>::new(inner));
        }
        7 => on!(work, "arena over gpa", <Arena<_>>::new(supply.gpa())),
        8 => {
            type Checked<P> = DebugLayer<'static, P, SpinMutex, 8>;
            on!(work, "debug", Checked::new(supply.pages(), CONFIG));
        }
        9 => {
            type Keeping<P> = DebugLayer<'static, P, NoMutex, 0>;
            let config = Config {
                never_unmap: true,
                retain_metadata: true,
                resize_traces: true,
                canary: 0x1111_2222_3333_4444,
                ..CONFIG
            };
            let layer = Keeping::new(supply.pages(), config);
            on!(work, "debug keeping all", layer);
        }
        10 => {
            type Dirty<P> = DebugLayer<'static, P, SpinMutex, 2>;
            let config = Config {
                parent_zeroes: false,
                bucket_bytes: 8192,
                ..CONFIG
            };
            on!(work, "debug over gpa", Dirty::new(supply.gpa(), config));
        }
        _ => {
            let parent = SharedArena::new(supply.pages());
            on!(work, "smp over arena", Smp::<_, 4>::new(parent));
        }
    }
}

/// For layers whose parent keeps the books.
fn unknown<L>(_: &L) -> Usage {
    Usage::default()
}

fn on_others(number: usize, supply: &impl Supply, work: &impl Work) -> bool {
    use pageshim_core::whole::{Bump, Debug, PageHeap};
    match number {
        12 => on!(work, "locked gpa", <Locked<_>>::new(supply.gpa()), unknown),
        13 => {
            let small = Fixed::<Cell<usize>>::new(supply.buffer(5_000));
            on!(work, "first", First::new(small, supply.pages()), unknown);
        }
        14 => on!(work, "stats", Stats::new(supply.gpa()), unknown),
        15 => {
            let layer = Failing::new(supply.pages(), usize::MAX);
            on!(work, "failing, never", layer, unknown);
        }
        16 => on!(work, "pool", Places::new(supply.pages())),
        17 => on!(work, "whole page", supply.whole(PageHeap::new)),
        18 => on!(work, "whole arena", supply.whole(Bump::new)),
        19 => on!(work, "whole debug", supply.whole(Debug::new)),
        KEEPERS => on!(work, "smp", Smp::<_, 4>::new(supply.pages())),
        _ => return false,
    }
    true
}
