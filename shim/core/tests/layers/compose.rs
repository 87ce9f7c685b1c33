//! Compositions: buffer first, pool, stats, and the face of a layer. X1 and X2.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::rc::Rc;

use pageshim_core::heap::arena::Reset;
use pageshim_core::heap::failing::Failing;
use pageshim_core::heap::first::First;
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Align, Caller, Front, Layer, Shape};
use pageshim_core::heap::pool::Pool;
use pageshim_core::heap::stats::Stats;

use crate::support::{HERE, buffer, byte, calls, free, gpa, pages, remap, resize, shape, take};

// Goal: the buffer serves first, the fallback after, frees find their way. Method: counts of the fallback.
#[test]
fn x1_the_buffer_serves_first_and_frees_find_their_owner() {
    let first = First::new(Fixed::<Cell<usize>>::new(buffer(100)), Stats::new(pages()));
    let inside = take(&first, shape(60, 1));
    assert_eq!(first.fallback().counts().allocations, 0);
    let outside = take(&first, shape(60, 1));
    assert_eq!(first.fallback().counts().allocations, 1);
    assert!(first.buffer().owns(inside) && !first.buffer().owns(outside));
    assert!(resize(&first, inside, shape(60, 1), 100));
    assert!(!resize(&first, inside, shape(100, 1), 101), "not across");
    assert!(remap(&first, inside, shape(100, 1), 200).is_none());
    let moved = remap(&first, outside, shape(60, 1), 100_000).expect("the fallback's mremap");
    // A reallocation crosses by copy.
    // SAFETY: live with this shape.
    let crossed = unsafe { Front(&first).reallocate(inside, shape(100, 1), 200) };
    let crossed = crossed.expect("the fallback");
    assert!(!first.buffer().owns(crossed));
    assert_eq!(byte(crossed, 59), 0x5A);
    assert_eq!(
        first.buffer().end_index(),
        0,
        "its place in the buffer came back"
    );
    free(&first, crossed, shape(200, 1));
    free(&first, moved, shape(100_000, 1));
    assert_eq!(first.fallback().counts().live_bytes(), 0);
}

// Goal: places are reused, last freed first. Method: addresses.
#[test]
fn x2_a_pool_reuses_places() {
    let pool = Pool::<u32, _>::new(pages());
    let places: Vec<_> = (0..3).map(|n| pool.create(n).expect("memory")).collect();
    // SAFETY: live places.
    unsafe {
        assert_eq!(places[1].read(), 1);
        pool.destroy(places[0]);
        pool.destroy(places[2]);
    }
    assert_eq!(pool.create(7), Some(places[2]));
    assert_eq!(pool.create(8), Some(places[0]));
    let counted = Rc::new(());
    let values = Pool::<Rc<()>, _>::new(gpa());
    let place = values.create(Rc::clone(&counted)).expect("memory");
    assert_eq!(Rc::strong_count(&counted), 2);
    // SAFETY: a live place.
    unsafe { values.destroy(place) };
    assert_eq!(Rc::strong_count(&counted), 1, "the value was dropped");
}

// Goal: a preheated pool serves without its parent; one that may not grow ends there. Method: a parent that refuses.
#[test]
fn x2_a_pool_is_preheated_and_may_be_closed() {
    let pool = Pool::<[u8; 40], _>::with(Failing::new(pages(), 1), Align::ONE, false);
    assert!(pool.create([0; 40]).is_none(), "closed and cold");
    assert!(pool.preheat(4));
    for _ in 0..4 {
        assert!(pool.create([1; 40]).is_some());
    }
    assert!(
        pool.create([1; 40]).is_none(),
        "four were made, four were served"
    );
    let poor = Pool::<[u8; 40], _>::new(Failing::new(pages(), 0));
    assert!(!poor.preheat(1));
    assert!(poor.create([0; 40]).is_none());
}

// Goal: places are aligned as asked and as the type needs. Method: every power to a page.
#[test]
fn x2_places_are_aligned() {
    for log2 in 0..=12 {
        let align = Align::new(1 << log2).expect("a power of two");
        let pool = Pool::<u8, _>::with(pages(), align, true);
        assert!(pool.place().requested >= 8 && pool.place().align.bytes() >= 8);
        for value in 0..20 {
            let place = pool.create(value).expect("memory");
            assert!(align.fits(place.addr().get()));
        }
    }
}

// Goal: a reset takes all places back and keeps what it says. Method: books and the parent's calls.
#[test]
fn x2_a_reset_takes_all_places_back() {
    let parent = pages();
    let mut pool = Pool::<[u64; 4], _>::new(&parent);
    for _ in 0..1000 {
        pool.create([0; 4]).expect("memory");
    }
    assert!(pool.reset(Reset::RetainCapacity));
    let before = calls(parent.pages().accounts()).3;
    for _ in 0..1000 {
        pool.create([0; 4]).expect("memory");
    }
    assert_eq!(calls(parent.pages().accounts()).3, before);
    assert!(pool.usage().adds_up());
    assert!(pool.reset(Reset::FreeAll));
    assert_eq!(parent.usage().committed, 0);
}

// Goal: a counter is a layer. Method: literal calls and their sums.
#[test]
fn stats_count_what_they_forward() {
    let stats = Stats::new(pages());
    let block = take(&stats, shape(100, 1));
    let other = take(&stats, shape(50, 1));
    assert!(resize(&stats, block, shape(100, 1), 30));
    free(&stats, other, shape(50, 1));
    let moved = remap(&stats, block, shape(30, 1), 1 << 20).expect("mremap");
    assert!(stats.allocate(shape(usize::MAX, 1), HERE).is_none());
    assert!(!resize(&stats, moved, shape(1 << 20, 1), usize::MAX));
    let counts = stats.counts();
    assert_eq!(
        (counts.allocations, counts.frees, counts.refused),
        (2, 1, 1)
    );
    assert_eq!((counts.resized + counts.moved, counts.declined), (2, 1));
    assert_eq!((counts.live_bytes(), counts.live_blocks()), (1 << 20, 1));
    assert_eq!(counts.peak_bytes, 1 << 20);
    free(&stats, moved, shape(1 << 20, 1));
    assert_eq!(stats.counts().live_bytes(), 0);
}

// Goal: a layer is a Rust global allocator. Method: the trait's calls on literal layouts.
#[test]
fn a_front_is_a_global_allocator() {
    let front = Front(gpa());
    let layout = Layout::from_size_align(100, 64).expect("a layout");
    // SAFETY: the trait's duties are kept: layouts repeat, sizes are not zero.
    unsafe {
        let block = GlobalAlloc::alloc_zeroed(&front, layout);
        assert!(!block.is_null() && block.addr().is_multiple_of(64));
        assert_eq!(block.add(99).read(), 0);
        block.write(9);
        let grown = front.realloc(block, layout, 100_000);
        assert_eq!(grown.read(), 9);
        let grown_layout = Layout::from_size_align(100_000, 64).expect("a layout");
        front.dealloc(grown, grown_layout);
    }
    assert_eq!(front.0.usage().requested, 0);
}

// Goal: the face's helpers and caller. Method: values, slices, text.
#[test]
fn a_front_serves_values_slices_and_text() {
    let stats = Stats::new(gpa());
    let front = Front(&stats);
    let value = front.create(String::from("kept")).expect("memory");
    // SAFETY: live until destroyed.
    unsafe {
        assert_eq!(value.as_ref(), "kept");
        front.destroy(value);
    }
    let copy = front.duplicate(&[1u32, 2, 3]).expect("memory");
    // SAFETY: a live slice.
    unsafe {
        assert_eq!(copy.as_ref(), [1, 2, 3]);
        front.free_slice(copy);
    }
    assert!(front.slice::<u32>(usize::MAX).is_none());
    assert_eq!(Shape::array::<u64>(usize::MAX), None);
    assert_eq!(stats.counts().live_blocks(), 0);
    assert_ne!(Caller::here(), Caller::NONE);
    // Another alignment: a new block, the content along.
    let block = take(&stats, shape(100, 1));
    // SAFETY: live with this shape.
    let moved = unsafe { front.reshape(block, shape(100, 1), shape(200, 4096), HERE) };
    let moved = moved.expect("memory");
    assert!(moved.addr().get().is_multiple_of(4096));
    assert_eq!(byte(moved, 99), 0x5A);
    free(&stats, moved, shape(200, 4096));
}
