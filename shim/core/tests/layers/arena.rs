//! The arena, A1 to A7.

use std::collections::HashSet;
use std::thread;

use pageshim_core::heap::arena::{Arena, ArenaState, Reset, SharedArena};
use pageshim_core::heap::failing::Failing;
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Layer, Shape, Single};
use pageshim_core::heap::smp::Smp;
use pageshim_core::heap::stats::Stats;

use crate::support::{HERE, buffer, byte, calls, free, gpa, pages, resize, shape, take};

/// A parent that never resizes: nodes are seen as they are made.
fn stiff() -> Failing<Stats<pageshim_core::heap::page::PageLayer>> {
    let failing = Failing::new(Stats::new(pages()), usize::MAX);
    failing.fail_resizes_from(0);
    failing
}

// Goal: each node is half again what came before plus the request, header and slack. Method: the list against the formula.
#[test]
fn a1_nodes_grow_by_half() {
    let arena = <Arena<_>>::new(stiff());
    let (header, slack) = (32, 16);
    let mut previous = 0;
    for _ in 0..8 {
        let before = arena.node_bytes().count();
        while arena.node_bytes().count() == before {
            take(&arena, shape(100, 4));
        }
        let enough = previous + 100 + 4 + header + slack;
        let newest = arena.node_bytes().next().expect("a node");
        assert_eq!(newest, enough + enough / 2);
        previous = newest;
    }
    let counts = arena.parent().parent().counts();
    assert_eq!(
        counts.allocations, 8,
        "eight nodes, eight calls of the parent"
    );
}

// Goal: only the last block moves the end. Method: the last and another one, freed, grown, shrunk.
#[test]
fn a2_the_last_block_resizes_and_frees_others_do_not() {
    let arena = <Arena<_>>::new(stiff());
    let first = take(&arena, shape(100, 1));
    let last = take(&arena, shape(10, 1));
    assert!(resize(&arena, last, shape(10, 1), 20));
    assert!(
        !resize(&arena, last, shape(20, 1), 1 << 20),
        "past the node"
    );
    assert!(!resize(&arena, first, shape(100, 1), 101));
    assert!(
        resize(&arena, first, shape(100, 1), 50),
        "yes, but nothing comes back"
    );
    assert_eq!(arena.usage().retained, 50);
    free(&arena, first, shape(50, 1));
    assert_eq!(arena.usage().retained, 100);
    free(&arena, last, shape(20, 1));
    assert_eq!((arena.usage().requested, arena.usage().retained), (0, 100));
    let again = take(&arena, shape(10, 1));
    assert_eq!(again, last, "the last block's place is used again");
}

// Goal: what a reset keeps. Method: each mode; node list, capacity, and calls of the parent.
#[test]
fn a3_reset_frees_all_keeps_capacity_or_a_limit() {
    let mut arena = <Arena<_>>::new(stiff());
    for _ in 0..200 {
        take(&arena, shape(500, 1));
    }
    let capacity = arena.query_capacity();
    assert!(arena.node_bytes().count() > 2);
    assert!(arena.reset(Reset::RetainCapacity));
    assert_eq!(arena.node_bytes().collect::<Vec<_>>(), [capacity + 32]);
    assert_eq!(arena.usage().requested, 0);
    let made = arena.parent().allocations();
    for _ in 0..200 {
        take(&arena, shape(500, 1));
    }
    assert_eq!(
        arena.parent().allocations(),
        made,
        "preheated: no call of the parent"
    );
    assert!(arena.reset(Reset::RetainWithLimit(1000)));
    assert_eq!(arena.query_capacity(), 1000);
    assert!(arena.reset(Reset::RetainWithLimit(5000)));
    assert_eq!(arena.query_capacity(), 1000, "a limit never grows it");
    assert!(arena.reset(Reset::FreeAll));
    assert_eq!((arena.query_capacity(), arena.usage().committed), (0, 0));
    assert!(
        arena.reset(Reset::RetainCapacity),
        "nothing to keep is fine"
    );
    let parent = arena.parent();
    assert_eq!(parent.allocated_bytes(), parent.freed_bytes());
}

// Goal: a reset that cannot have the wanted node says so and leaves a valid arena. Method: a parent that refuses from then on.
#[test]
fn a3_a_refused_reset_leaves_the_arena_valid() {
    let failing = Failing::new(pages(), 3);
    failing.fail_resizes_from(0);
    let mut arena = <Arena<_>>::new(failing);
    while arena.node_bytes().count() < 3 {
        take(&arena, shape(300, 1));
    }
    assert!(!arena.reset(Reset::RetainCapacity));
    assert_eq!(arena.node_bytes().count(), 1, "the oldest stays");
    take(&arena, shape(300, 1));
    assert!(arena.usage().adds_up());
}

// Goal: capacity is what blocks can use. Method: the nodes' bytes less their headers.
#[test]
fn a4_capacity_leaves_headers_out() {
    let arena = <Arena<_>>::new(stiff());
    assert_eq!(arena.query_capacity(), 0);
    for _ in 0..100 {
        take(&arena, shape(200, 1));
    }
    let (nodes, bytes) = (
        arena.node_bytes().count(),
        arena.node_bytes().sum::<usize>(),
    );
    assert_eq!(arena.query_capacity(), bytes - nodes * 32);
}

// Goal: an arena stored without its parent goes on. Method: state out, promoted again; blocks and books stay.
#[test]
fn a5_a_state_is_promoted_with_its_parent() {
    let parent = pages();
    // SAFETY: a new state.
    let arena: Arena<_, Single> = unsafe { ArenaState::new().promote(&parent) };
    let block = take(&arena, shape(1000, 1));
    let before = arena.usage();
    let (state, same) = arena.into_state();
    assert_eq!(byte(block, 999), 0x5A);
    // SAFETY: the state of an arena over this parent.
    let arena: Arena<_, Single> = unsafe { state.promote(same) };
    assert_eq!(arena.usage(), before);
    take(&arena, shape(1000, 1));
    drop(arena);
    assert_eq!(parent.usage().committed, 0, "dropped with all its nodes");
}

// Goal: the parent enlarges a node before another is made. Method: over a fixed buffer, where the node is the last block.
#[test]
fn a6_a_node_grows_in_place_before_another_is_made() {
    let arena = <Arena<_>>::new(<Fixed<'_>>::new(buffer(100_000)));
    for _ in 0..150 {
        take(&arena, shape(500, 1));
    }
    assert_eq!(arena.node_bytes().count(), 1);
    assert_eq!(
        arena.parent().end_index(),
        arena.node_bytes().sum::<usize>()
    );
    let paged = <Arena<_>>::new(pages());
    take(&paged, shape(10, 1));
    let before = calls(paged.parent().pages().accounts()).3;
    for _ in 0..20 {
        take(&paged, shape(100, 1));
    }
    let asked = calls(paged.parent().pages().accounts()).3 - before;
    assert_eq!(asked, 0, "the first half of a page costs no call");
    for _ in 0..20_000 {
        take(&paged, shape(100, 1));
    }
    let asked = calls(paged.parent().pages().accounts()).3 - before;
    assert!(asked < 60, "two megabytes in {asked} calls");
}

// Goal: many threads bump one arena. Method: blocks of all threads never meet, over a parent that resizes and one that does not.
#[test]
fn a7_the_shared_kind_serves_many_threads() {
    many_threads(&SharedArena::new(pages()));
    many_threads(&SharedArena::new(Smp::<_, 4>::new(pages())));
    let locked = pageshim_core::heap::layer::Locked::<_>::new(gpa());
    many_threads(&SharedArena::new(locked));
}

fn many_threads<P: Layer + Sync>(arena: &SharedArena<P>) {
    let kept = thread::scope(|scope| {
        let workers: Vec<_> = (0..4u8)
            .map(|number| {
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for step in 0..1_500 {
                        let held = Shape::bytes(1 + (step * 7 + usize::from(number)) % 90);
                        let block = arena.allocate(held, HERE).expect("memory");
                        // SAFETY: a live block of this size.
                        unsafe { block.write_bytes(number, held.requested) };
                        if step % 4 == 0 {
                            free(arena, block, held);
                        } else {
                            kept.push((block.as_ptr().expose_provenance(), held.requested, number));
                        }
                    }
                    kept
                })
            })
            .collect();
        let joined = workers.into_iter().map(|w| w.join().expect("worker"));
        joined.flatten().collect::<Vec<_>>()
    });
    let mut taken = HashSet::new();
    for (address, bytes, number) in kept {
        for at in address..address + bytes {
            assert!(taken.insert(at), "no byte has two owners");
            // SAFETY: a byte of a live block.
            let found = unsafe { std::ptr::with_exposed_provenance::<u8>(at).read() };
            assert_eq!(found, number);
        }
    }
    let usage = arena.usage();
    assert!(usage.adds_up(), "{usage:?}");
    assert_eq!(usage.requested, taken.len());
}
