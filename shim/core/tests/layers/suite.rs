//! The one conformance suite on every layer, and the check that refuses each
//! allocation once.

use std::cell::Cell;
use std::mem::MaybeUninit;

use pageshim_core::heap::arena::{Arena, SharedArena};
use pageshim_core::heap::conformance;
use pageshim_core::heap::debug::{Config, DebugLayer};
use pageshim_core::heap::failing::{Failing, Flaw, OutOfMemory, check_all_allocation_failures};
use pageshim_core::heap::first::First;
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Front, GpaLayer, Layer, NoMutex, Shape, Usage};
use pageshim_core::heap::page::{PageLayer, Pages};
use pageshim_core::heap::pool::Pool;
use pageshim_core::heap::stats::Stats;

use crate::adapters::{Whole, WholeHeap};
use crate::every::{self, Supply, Work};
use crate::support::{HERE, Memory, accounts, buffer, calls, free, gpa, pages, shape, take};

/// The layers of a test live as long as its process.
struct Leaking;

impl Supply for Leaking {
    fn pages(&self) -> PageLayer {
        pages()
    }
    fn gpa(&self) -> GpaLayer {
        gpa()
    }
    fn buffer(&self, bytes: usize) -> &'static mut [MaybeUninit<u8>] {
        buffer(bytes)
    }
    fn whole<H: WholeHeap>(&self, make: fn(Pages) -> H) -> Whole<H> {
        let accounts = accounts();
        let heap: &'static H = Box::leak(Box::new(make(Pages::new(accounts))));
        assert!(heap.open(1 << 30), "address space for a test");
        Whole { heap, accounts }
    }
}

macro_rules! on_every_layer {
    ($test:ident, $function:path) => {
        // Goal: the row holds on every layer. Method: the suite's part, fresh layers.
        #[test]
        fn $test() {
            struct Part;
            impl Work for Part {
                fn on<L: Layer>(&self, name: &str, layer: &L, _: &dyn Fn() -> Usage) {
                    println!("{name}");
                    $function(layer);
                }
            }
            every::on_all(&Leaking, &Part);
        }
    };
}

on_every_layer!(
    t1_blocks_are_taken_freed_grown_and_shrunk_to_nothing,
    conformance::blocks
);
on_every_layer!(
    t2_every_alignment_to_64_grows_and_shrinks,
    conformance::aligned
);
on_every_layer!(
    t3_half_a_page_of_alignment_survives_resizing,
    conformance::large_alignment
);
on_every_layer!(
    t4_an_aligned_block_shrinks_and_keeps_its_content,
    conformance::aligned_shrink
);
on_every_layer!(blocks_lie_apart, conformance::apart);
on_every_layer!(sizes_no_machine_has_are_refused, conformance::refusals);

fn random_work<L: Layer>(layer: &L) {
    for seed in [3, 0xdead_beef, 0x1357_9bdf_0246] {
        conformance::random(layer, seed, 600);
    }
}
on_every_layer!(random_work_keeps_every_pattern, random_work);

/// Whether the kernel can grow a mapping in place is chance: here it never does.
fn stiff<P: Layer>(failing: &Failing<P>) -> &Failing<P> {
    failing.fail_resizes_from(0);
    failing
}

/// A bit of work that takes from several layers' parents and gives all back,
/// whatever is refused on the way.
fn work(layer: &impl Layer) -> Result<(), OutOfMemory> {
    let front = Front(layer);
    let shapes = [
        shape(10, 1),
        shape(100, 64),
        shape(50_000, 16),
        shape(200_000, 16),
        shape(10, 8192),
    ];
    let mut held = Vec::new();
    for shape in shapes {
        let Some(block) = front.allocate(shape) else {
            break;
        };
        held.push((block, shape));
    }
    let mut enough = held.len() == shapes.len();
    if let Some((block, shape)) = held.pop() {
        // SAFETY: live with this shape.
        match unsafe { front.reallocate(block, shape, 300_000) } {
            Some(moved) => held.push((moved, shape.resized(300_000))),
            None => {
                enough = false;
                held.push((block, shape));
            }
        }
    }
    for (block, shape) in held {
        free(layer, block, shape);
    }
    if enough { Ok(()) } else { Err(OutOfMemory) }
}

// Goal: every allocation a layer makes of its parent may fail, and nothing leaks then.
// Method: run the work once for each, over a parent that refuses from that one on.
#[test]
fn t5_every_allocation_fails_once_and_nothing_leaks() {
    let parent = pages();
    let sink = Memory::leaked();
    let counted = [
        check_all_allocation_failures(&parent, |failing| work(failing)),
        check_all_allocation_failures(&parent, |failing| work(&<Arena<_>>::new(stiff(failing)))),
        check_all_allocation_failures(&parent, |failing| work(&SharedArena::new(stiff(failing)))),
        check_all_allocation_failures(&parent, |failing| {
            let small = Fixed::<Cell<usize>>::new(buffer(200));
            work(&First::new(small, failing))
        }),
        check_all_allocation_failures(&parent, |failing| work(&Stats::new(failing))),
        check_all_allocation_failures(&parent, |failing| {
            work(&<DebugLayer<'_, _, NoMutex, 3>>::new(
                failing,
                Config::new(sink),
            ))
        }),
        check_all_allocation_failures(&parent, |failing| {
            let config = Config {
                retain_metadata: true,
                never_unmap: true,
                ..Config::new(sink)
            };
            // Tables grow, too: many large blocks.
            let debug = <DebugLayer<'_, _, NoMutex, 3>>::new(failing, config);
            let big = shape(40_000, 1);
            let held: Vec<_> = (0..20).map_while(|_| debug.allocate(big, HERE)).collect();
            let all = held.len() == 20;
            held.into_iter().for_each(|block| free(&debug, block, big));
            if all { Ok(()) } else { Err(OutOfMemory) }
        }),
        check_all_allocation_failures(&parent, |failing| {
            let pool = Pool::<[u64; 9], _>::new(stiff(failing));
            let held: Vec<_> = (0..500).map_while(|_| pool.create([1; 9])).collect();
            if held.len() == 500 {
                Ok(())
            } else {
                Err(OutOfMemory)
            }
        }),
    ];
    for (number, answer) in counted.iter().enumerate() {
        assert!(answer.is_ok_and(|count| count > 1), "{number}: {answer:?}");
    }
    assert_eq!(sink.findings(), [], "nothing was misused on the way");
    assert_eq!(parent.usage().committed, 0);
}

// Goal: the check itself sees each flaw. Method: code with exactly that flaw.
#[test]
fn t5_the_check_sees_what_is_wrong() {
    let parent = pages();
    let one = Shape::bytes(100);
    let swallows = check_all_allocation_failures(&parent, |failing| {
        if let Some(block) = failing.allocate(one, HERE) {
            free(failing, block, one);
        }
        Ok(())
    });
    assert_eq!(swallows, Err(Flaw::Swallowed { fail_index: 0 }));
    let leaks = check_all_allocation_failures(&parent, |failing| {
        let first = failing.allocate(one, HERE).ok_or(OutOfMemory)?;
        let second = failing.allocate(one, HERE).ok_or(OutOfMemory)?;
        free(failing, first, one);
        free(failing, second, one);
        Ok(())
    });
    let flaw = Flaw::Leaked {
        fail_index: Some(1),
        bytes: 100,
    };
    assert_eq!(leaks, Err(flaw));
    let mut runs = 0;
    let changes = check_all_allocation_failures(&parent, |failing| {
        runs += 1;
        for _ in runs..3 {
            let block = failing.allocate(one, HERE).ok_or(OutOfMemory)?;
            free(failing, block, one);
        }
        Ok(())
    });
    assert_eq!(changes, Err(Flaw::NotRepeatable { fail_index: 1 }));
    let never = check_all_allocation_failures(&parent, |_| Err(OutOfMemory));
    assert_eq!(never, Err(Flaw::Starved));
}

// Goal: the failing layer counts and remembers who was refused. Method: literal calls.
#[test]
fn t5_a_failing_layer_counts_and_names_the_caller() {
    let failing = Failing::new(pages(), 2);
    failing.fail_resizes_from(1);
    let (first, second) = (take(&failing, shape(10, 1)), take(&failing, shape(20, 1)));
    assert!(failing.allocate(shape(5, 1), HERE).is_none());
    assert_eq!(failing.failed_caller(), Some(HERE));
    assert!(crate::support::resize(&failing, first, shape(10, 1), 30));
    assert!(!crate::support::resize(&failing, first, shape(30, 1), 40));
    assert!(crate::support::remap(&failing, first, shape(30, 1), 40).is_none());
    free(&failing, first, shape(30, 1));
    free(&failing, second, shape(20, 1));
    assert_eq!((failing.allocations(), failing.frees()), (2, 2));
    assert_eq!((failing.allocated_bytes(), failing.freed_bytes()), (50, 50));
    assert_eq!(calls(failing.parent().pages().accounts()).3, 4);
}
