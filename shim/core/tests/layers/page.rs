//! The page layer: whole pages, a system call each, P1 to P12.

use std::ptr::NonNull;
use std::thread;

use pageshim_core::heap::layer::{Align, Layer, Shape};
use pageshim_core::heap::page::{Hint, PageLayer};

use crate::support::{
    HERE, PAGE, accounts, byte, calls, free, mapped_bytes, pages, remap, resize, shape, take,
};

fn at(block: NonNull<u8>) -> usize {
    block.addr().get()
}

// Goal: every size takes whole pages of the size the kernel says. Method: usage beside the kernel's map.
#[test]
fn p1_sizes_round_up_to_the_runtime_page_size() {
    let layer = pages();
    // SAFETY: asks for a number.
    let told = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    assert_eq!(layer.page_bytes() as i64, told);
    let page = layer.page_bytes();
    for (requested, count) in [(1, 1), (page, 1), (page + 1, 2), (5 * page - 1, 5)] {
        let block = take(&layer, Shape::bytes(requested));
        assert_eq!(layer.usage().committed, count * page, "{requested}");
        assert_eq!(layer.usage().rounding, count * page - requested);
        assert_eq!(mapped_bytes(at(block), count * page), count * page);
        free(&layer, block, Shape::bytes(requested));
    }
}

// Goal: no arithmetic wraps. Method: sizes and alignments at the end of the address space; no call is made.
#[test]
fn p2_sizes_near_the_end_of_numbers_are_refused() {
    let layer = pages();
    for requested in [
        usize::MAX,
        usize::MAX - PAGE + 1,
        usize::MAX - PAGE,
        1 << 63,
    ] {
        for align in [1, PAGE, 1 << 20, 1 << 62] {
            assert!(layer.allocate(shape(requested, align), HERE).is_none());
        }
    }
    assert_eq!(
        calls(layer.pages().accounts()).3,
        0,
        "refused without asking"
    );
    assert!(layer.allocate(shape(1, 1 << 62), HERE).is_none());
    assert_eq!(layer.usage().committed, 0);
}

// Goal: up to a page of alignment nothing special happens. Method: each alignment, one call.
#[test]
fn p3_alignment_up_to_a_page_is_a_plain_map() {
    let layer = pages();
    for log2 in 0..=12 {
        let before = calls(layer.pages().accounts()).3;
        let block = take(&layer, shape(100, 1 << log2));
        assert_eq!(calls(layer.pages().accounts()).3, before + 1);
        free(&layer, block, shape(100, 1 << log2));
    }
}

// Goal: exactly the block stays mapped. Method: alignments to 4 MiB; what is left and right of the block in the kernel's map
// is counted by the layer's own books: mapped minus unmapped.
#[test]
fn p4_alignment_above_a_page_trims_head_and_tail() {
    let layer = pages();
    for log2 in 13..=22 {
        let align = 1 << log2;
        let wanted = shape(3 * PAGE + 1, align);
        let block = take(&layer, wanted);
        assert_eq!(layer.usage().committed, 4 * PAGE, "{align}");
        assert_eq!(mapped_bytes(at(block), 4 * PAGE), 4 * PAGE);
        assert_eq!(byte(block, 3 * PAGE), 0x5A);
        free(&layer, block, wanted);
        assert_eq!(layer.usage().committed, 0, "{align}");
    }
}

// Goal: mappings are neighbours, either way. Method: pairs of blocks; other tests map, too, so one pair of several must do.
#[test]
fn p5_the_hint_puts_mappings_side_by_side() {
    let one = Shape::bytes(3 * PAGE);
    let hole = pages();
    let room = take(&hole, Shape::bytes(64 << 20));
    free(&hole, room, Shape::bytes(64 << 20));
    for (direction, start) in [(Hint::Down, 0), (Hint::Up, at(room))] {
        let layer = PageLayer::with_hint(accounts(), direction, start);
        let blocks: Vec<_> = (0..16).map(|_| take(&layer, one)).collect();
        let beside = |pair: &[NonNull<u8>]| match direction {
            Hint::Up => at(pair[0]) + 3 * PAGE == at(pair[1]),
            _ => at(pair[1]) + 3 * PAGE == at(pair[0]),
        };
        let pairs = blocks.windows(2).filter(|pair| beside(pair)).count();
        assert!(pairs > 0, "{direction:?}: none of 15 pairs");
        blocks
            .into_iter()
            .for_each(|block| free(&layer, block, one));
    }
    let off = PageLayer::with_hint(accounts(), Hint::Off, 0);
    let block = take(&off, one);
    free(&off, block, one);
}

// Goal: racing for the hint is harmless. Method: four threads map and unmap through one layer.
#[test]
fn p5_a_race_for_the_hint_harms_nobody() {
    let layer = pages();
    thread::scope(|scope| {
        for number in 0..4u8 {
            let layer = &layer;
            scope.spawn(move || {
                for _ in 0..200 {
                    let one = Shape::bytes(PAGE + 1);
                    let block = layer.allocate(one, HERE).expect("memory");
                    // SAFETY: a live block of two pages.
                    unsafe { block.write_bytes(number, PAGE + 1) };
                    assert_eq!((byte(block, 0), byte(block, PAGE)), (number, number));
                    free(layer, block, one);
                }
            });
        }
    });
    assert_eq!(layer.usage().committed, 0);
}

// Goal: within the same pages a resize asks nobody. Method: the counter of all calls stands still.
#[test]
fn p6_a_resize_within_the_same_pages_makes_no_call() {
    let layer = pages();
    let block = take(&layer, Shape::bytes(10));
    let before = calls(layer.pages().accounts()).3;
    assert!(resize(&layer, block, Shape::bytes(10), PAGE));
    assert_eq!(remap(&layer, block, Shape::bytes(PAGE), 1), Some(block));
    assert_eq!(calls(layer.pages().accounts()).3, before);
    assert_eq!(layer.usage().requested, 1);
    free(&layer, block, Shape::bytes(1));
}

// Goal: growth in place works with room behind, and says no without. Method: a hole made by an unmap (another test may move
// into it, so one hole of twenty must do); a neighbour in the way.
#[test]
fn p7_growth_in_place_needs_room_behind() {
    let layer = pages();
    let long = Shape::bytes(64 * PAGE);
    let (mut grown, mut stopped) = (false, false);
    for _ in 0..20 {
        let block = take(&layer, long);
        assert!(resize(&layer, block, long, 2 * PAGE), "shrinks");
        let mut held = Shape::bytes(2 * PAGE);
        if resize(&layer, block, held, 64 * PAGE) {
            assert_eq!((byte(block, 0), byte(block, 2 * PAGE)), (0x5A, 0));
            assert!(resize(&layer, block, long, 2 * PAGE));
            grown = true;
        }
        // Somebody moves in right behind.
        let near = PageLayer::with_hint(accounts(), Hint::Up, at(block) + 2 * PAGE);
        let neighbour = take(&near, Shape::bytes(PAGE));
        let done = resize(&layer, block, held, 3 * PAGE);
        if done {
            held = held.resized(3 * PAGE);
        }
        if at(neighbour) == at(block) + 2 * PAGE {
            assert!(!done);
            assert_eq!(layer.usage().requested, 2 * PAGE, "nothing changed");
            stopped = true;
        }
        free(&near, neighbour, Shape::bytes(PAGE));
        free(&layer, block, held);
    }
    assert!(grown && stopped, "grown {grown}, stopped {stopped}");
}

// Goal: a remap may move and keeps every byte. Method: 16 MiB and more with a neighbour in the way; over-aligned blocks say no.
#[test]
fn p8_a_remap_moves_pages_and_keeps_content() {
    let layer = pages();
    let big = Shape::bytes(16 << 20);
    let block = take(&layer, big);
    let before = calls(layer.pages().accounts());
    let moved = remap(&layer, block, big, 80 << 20).expect("address space");
    let after = calls(layer.pages().accounts());
    assert_eq!(
        (after.2 - before.2, after.3 - before.3),
        (1, 1),
        "one mremap, no copy"
    );
    for offset in (0..16 << 20).step_by(PAGE) {
        assert_eq!(byte(moved, offset), 0x5A);
    }
    assert_eq!(byte(moved, (80 << 20) - 1), 0);
    free(&layer, moved, Shape::bytes(80 << 20));
    let wide = shape(PAGE, 1 << 20);
    let block = take(&layer, wide);
    assert!(remap(&layer, block, wide, 10 * PAGE).is_none());
    free(&layer, block, wide);
}

// Goal: the tail goes back, the head stays. Method: the kernel's map before and after.
#[test]
fn p9_a_shrink_returns_the_tail_and_keeps_the_head() {
    let layer = pages();
    let ten = shape(10 * PAGE, 16 * PAGE);
    let block = take(&layer, ten);
    let before = calls(layer.pages().accounts());
    assert!(resize(&layer, block, ten, 2 * PAGE + 1));
    let after = calls(layer.pages().accounts());
    assert_eq!((after.1 - before.1, after.3 - before.3), (1, 1));
    assert_eq!(layer.usage().committed, 3 * PAGE);
    assert_eq!(byte(block, 2 * PAGE), 0x5A);
    free(&layer, block, shape(2 * PAGE + 1, 16 * PAGE));
}

// Goal: a free unmaps what was mapped. Method: a gigabyte of addresses, which nobody else takes at once, is gone from the map.
#[test]
fn p10_a_free_unmaps_the_rounded_length() {
    let layer = pages();
    let odd = Shape::bytes((1 << 30) + 1);
    let block = layer.allocate(odd, HERE).expect("address space");
    assert_eq!(mapped_bytes(at(block), (1 << 30) + PAGE), (1 << 30) + PAGE);
    free(&layer, block, odd);
    assert!(mapped_bytes(at(block), (1 << 30) + PAGE) < 1 << 30);
    assert_eq!(layer.usage(), Default::default());
}

// Goal: the pages are usable without the trait. Method: map, remap_pages, unmap.
#[test]
fn p11_map_remap_and_unmap_work_without_the_trait() {
    let layer = pages();
    let block = layer.map(shape(100, 1)).expect("a page");
    // SAFETY: the block is live with this shape at each call.
    unsafe {
        let same = layer.remap_pages(block, shape(100, 1), 4000, false);
        assert_eq!(same, Some(block));
        let moved = layer.remap_pages(block, shape(4000, 1), 3 * PAGE, true);
        layer.unmap(moved.expect("address space"), 3 * PAGE);
    }
    assert_eq!(layer.usage().committed, 0);
}

// Goal: what each operation costs in system calls, for good. Method: the counted calls of each.
#[test]
fn p12_each_operation_costs_the_calls_it_says() {
    let layer = pages();
    let books = layer.pages().accounts();
    let cost = |work: &mut dyn FnMut()| {
        let before = calls(books).3;
        work();
        calls(books).3 - before
    };
    let two = Shape::bytes(2);
    let mut block = NonNull::dangling();
    assert_eq!(cost(&mut || block = take(&layer, two)), 1);
    assert_eq!(cost(&mut || free(&layer, block, two)), 1);
    let wide = shape(2, 1 << 21);
    let most = (0..8)
        .map(|_| cost(&mut || block = take(&layer, wide)))
        .max();
    assert!((1..=3).contains(&most.expect("eight")), "{most:?}");
    assert_eq!(cost(&mut || free(&layer, block, wide)), 1);
    let timed = books.calls(pageshim_wire::thread::Syscall::Mmap);
    assert!(timed.1 > 0, "calls are timed: {timed:?}");
    assert_eq!(Align::new(3), None);
}
