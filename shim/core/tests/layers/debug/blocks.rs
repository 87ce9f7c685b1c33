//! Blocks and buckets: reuse, growth between kinds, the order of frees.

use std::cell::Cell;
use std::ptr::NonNull;

use pageshim_core::heap::debug::{Config, DebugLayer, Ended, FILL_FRESH};
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Front, Layer, NoMutex, Shape};
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::stats::Stats;

use super::{Debug, LARGE, SMALL, config, end, plain};
use crate::support::{HERE, Memory, buffer, byte, free, pages, poke, remap, resize, shape, take};

// Goal: a parent whose memory is not zero serves as well. Method: a buffer full of 0xFF; books hold and leaks are right.
#[test]
fn d12_a_parent_that_does_not_zero_is_written_over() {
    let sink = Memory::leaked();
    let config = Config {
        parent_zeroes: false,
        bucket_bytes: 4096,
        ..config(sink)
    };
    let parent = Fixed::<Cell<usize>>::new(buffer(256 * 1024));
    let debug: DebugLayer<'_, _, NoMutex, 1> = DebugLayer::new(parent, config);
    let blocks: Vec<_> = (0..100).map(|_| take(&debug, SMALL)).collect();
    assert_eq!(debug.detect_leaks(), 100);
    blocks
        .into_iter()
        .for_each(|block| free(&debug, block, SMALL));
    assert_eq!(sink.heard().len(), 100);
    assert_eq!((debug.detect_leaks(), debug.usage().adds_up()), (0, true));
}

// Goal: a slot is used once while its bucket lives. Method: free and take with one block held.
#[test]
fn d17_a_freed_slot_is_not_handed_out_again() {
    let (debug, _) = plain();
    let anchor = take(&debug, SMALL);
    let mut seen = std::collections::HashSet::from([anchor]);
    for _ in 0..300 {
        let block = take(&debug, SMALL);
        assert!(seen.insert(block), "{block:?} came back");
        free(&debug, block, SMALL);
    }
    free(&debug, anchor, SMALL);
}

// Goal: a bucket without live blocks goes back. Method: the parent's counts; the last free decides.
#[test]
fn d18_a_bucket_goes_back_when_all_its_slots_are_free() {
    let debug: Debug<Stats<PageLayer>> =
        DebugLayer::new(Stats::new(pages()), config(Memory::leaked()));
    let blocks: Vec<_> = (0..10).map(|_| take(&debug, SMALL)).collect();
    let (last, others) = blocks.split_last().expect("ten");
    others.iter().for_each(|block| free(&debug, *block, SMALL));
    let held = debug.parent().counts().live_blocks();
    free(&debug, *last, SMALL);
    assert_eq!(debug.parent().counts().live_blocks(), held - 1);
    // The table of buckets is all that is left.
    assert_eq!(debug.usage().committed, debug.usage().metadata);
    // SAFETY: no block is left.
    unsafe { debug.deinit() };
}

fn reallocate(debug: &Debug, block: NonNull<u8>, from: Shape, to: usize) -> NonNull<u8> {
    // SAFETY: live with this shape.
    unsafe { Front(debug).reallocate(block, from, to) }.expect("memory")
}

// Goal: small to large copies into another kind of block. Method: content and who serves.
#[test]
fn d19_a_small_block_grows_into_a_large_one() {
    let (debug, sink) = plain();
    let block = take(&debug, SMALL);
    assert!(!resize(&debug, block, SMALL, LARGE.requested));
    assert!(!resize(&debug, block, SMALL, 300), "nor into a larger slot");
    assert!(resize(&debug, block, SMALL, 70) && resize(&debug, block, SMALL.resized(70), 100));
    let moved = reallocate(&debug, block, SMALL, LARGE.requested);
    assert_eq!(
        (byte(moved, 0), byte(moved, 69), byte(moved, 100)),
        (0x5A, 0x5A, FILL_FRESH)
    );
    free(&debug, moved, LARGE);
    assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: large to small never happens in place. Method: resize and remap say no, reallocation copies.
#[test]
fn d20_a_large_block_refuses_to_shrink_into_a_small_one() {
    let (debug, sink) = plain();
    let block = take(&debug, LARGE);
    assert!(!resize(&debug, block, LARGE, 100));
    assert!(remap(&debug, block, LARGE, 100).is_none());
    assert!(resize(&debug, block, LARGE, 60_000));
    let moved = reallocate(&debug, block, LARGE.resized(60_000), 19);
    assert_ne!(moved, block);
    assert_eq!(byte(moved, 18), 0x5A);
    free(&debug, moved, Shape::bytes(19));
    assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: another alignment keeps the data. Method: growing and shrinking large blocks to larger alignments.
#[test]
fn d21_a_larger_alignment_keeps_the_data() {
    let (debug, sink) = plain();
    for (from, to) in [(131_089, 131_089 + 10), (131_089 * 2, 131_089), (40, 80)] {
        for align in [32, 4096, 64 * 1024] {
            let (held, wanted) = (shape(from, 16), shape(to, align));
            let block = take(&debug, held);
            poke(block, 0, 0x12);
            poke(block, 16, 0x34);
            // SAFETY: live with this shape.
            let moved = unsafe { Front(&debug).reshape(block, held, wanted, HERE) };
            let moved = moved.expect("memory");
            assert!(wanted.align.fits(moved.addr().get()));
            assert_eq!((byte(moved, 0), byte(moved, 16)), (0x12, 0x34));
            free(&debug, moved, wanted);
        }
    }
    assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: impossible sizes are an error, not a crash. Method: the largest numbers, alone and as growth.
#[test]
fn d22_very_large_requests_are_refused() {
    let (debug, _) = plain();
    for requested in [
        usize::MAX,
        usize::MAX - 8,
        isize::MAX.cast_unsigned(),
        1 << 60,
    ] {
        assert!(debug.allocate(Shape::bytes(requested), HERE).is_none());
    }
    for held in [SMALL, LARGE] {
        let block = take(&debug, held);
        assert!(!resize(&debug, block, held, usize::MAX));
        assert!(remap(&debug, block, held, 1 << 60).is_none());
        free(&debug, block, held);
    }
    assert!(debug.usage().adds_up());
    assert_eq!(end(debug), Ended::Clean);
}

// Goal: the order of frees does not matter. Method: same, reverse and shuffled, sizes of several classes.
#[test]
fn d23_frees_in_any_order_leave_nothing() {
    for order in 0..3 {
        let (debug, sink) = plain();
        let shape = |number: usize| Shape::bytes(1 + number * 13 % 500);
        let mut blocks: Vec<_> = (0..513)
            .map(|n| (take(&debug, shape(n)), shape(n)))
            .collect();
        match order {
            0 => {}
            1 => blocks.reverse(),
            _ => blocks.sort_by_key(|(block, _)| block.addr().get().wrapping_mul(0x9e37_79b9)),
        }
        for (block, shape) in blocks {
            free(&debug, block, shape);
        }
        assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
    }
}
