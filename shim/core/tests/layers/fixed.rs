//! The fixed buffer, F1 to F5.

use std::cell::Cell;
use std::collections::HashSet;
use std::thread;

use pageshim_core::heap::fixed::{Fixed, SharedFixed};
use pageshim_core::heap::layer::{Front, Layer, Shape};

use crate::support::{HERE, buffer, byte, free, poke, resize, shape, take};

fn fixed(bytes: usize) -> Fixed<'static, Cell<usize>> {
    Fixed::new(buffer(bytes))
}

// Goal: a buffer is all there is. Method: end index and books after each step.
#[test]
fn f1_the_end_index_moves_and_resets() {
    let mut fixed = fixed(1000);
    assert_eq!((fixed.end_index(), fixed.capacity()), (0, 1000));
    take(&fixed, shape(100, 1));
    take(&fixed, shape(200, 1));
    assert_eq!(fixed.end_index(), 300);
    assert_eq!((fixed.usage().requested, fixed.usage().tails), (300, 700));
    fixed.reset();
    assert_eq!(fixed.end_index(), 0);
    let whole = take(&fixed, shape(1000, 1));
    free(&fixed, whole, shape(1000, 1));
    assert!(fixed.usage().adds_up());
}

// Goal: the last block's space is used again. Method: free, grow, shrink the last; grow and shrink another.
#[test]
fn f2_the_last_block_gives_its_space_back() {
    let fixed = fixed(1000);
    let first = take(&fixed, shape(10, 1));
    let last = take(&fixed, shape(10, 1));
    assert!(resize(&fixed, last, shape(10, 1), 500));
    assert!(resize(&fixed, last, shape(500, 1), 5));
    assert_eq!(fixed.end_index(), 15);
    assert!(!resize(&fixed, first, shape(10, 1), 11), "not the last");
    assert!(
        resize(&fixed, first, shape(10, 1), 4),
        "shrinks, gives nothing"
    );
    assert_eq!(fixed.end_index(), 15);
    free(&fixed, last, shape(5, 1));
    assert_eq!(fixed.end_index(), 10);
    free(&fixed, first, shape(4, 1));
    assert_eq!(fixed.end_index(), 10, "its end is not the buffer's");
    assert_eq!(fixed.usage().retained, 10);
}

// Goal: growth through a reallocation reuses the same place. Method: addresses.
#[test]
fn f2_memory_is_reused_on_reallocation() {
    let fixed = fixed(10);
    let front = Front(&fixed);
    let block = take(&fixed, shape(5, 1));
    // SAFETY: live with these shapes.
    let grown = unsafe { front.reallocate(block, shape(5, 1), 10) };
    assert_eq!(grown, Some(block));
    // SAFETY: as above.
    assert!(unsafe { front.reallocate(block, shape(10, 1), 11) }.is_none());
    let other = Fixed::<Cell<usize>>::new(buffer(10));
    let first = take(&other, shape(2, 1));
    poke(first, 0, 1);
    take(&other, shape(2, 1));
    // SAFETY: live with this shape.
    let moved = unsafe { Front(&other).reallocate(first, shape(2, 1), 4) }.expect("room");
    assert_ne!(moved, first);
    assert_eq!((byte(moved, 0), byte(moved, 1)), (1, 0x5A));
}

// Goal: ownership is half open. Method: the first, the last byte and the one behind.
#[test]
fn f3_ownership_ends_before_the_end() {
    let fixed = fixed(64);
    let first = take(&fixed, shape(16, 1));
    let end = first.map_addr(|at| at.checked_add(64).expect("an address"));
    let last = first.map_addr(|at| at.checked_add(63).expect("an address"));
    assert!(fixed.owns(first) && fixed.owns(last) && !fixed.owns(end));
    assert!(fixed.owns_block(first, 64) && !fixed.owns_block(first, 65));
    assert!(fixed.owns_block(last, 1) && !fixed.owns_block(last, 2));
    assert!(fixed.is_last(first, 16) && !fixed.is_last(first, 15));
    let second = take(&fixed, shape(1, 1));
    assert!(!fixed.is_last(first, 16));
    free(&fixed, second, shape(1, 1));
    // The documented false no: a gap in front of a freed block stays.
    let wide = take(&fixed, shape(1, 32));
    free(&fixed, wide, shape(1, 32));
    assert_eq!(
        fixed.is_last(first, 16),
        wide.addr().get() == first.addr().get() + 16
    );
}

// Goal: many threads share one buffer. Method: each takes, grows and frees; live blocks never meet, books add up.
#[test]
fn f4_the_shared_kind_serves_many_threads() {
    const EACH: usize = 2_000;
    let fixed = SharedFixed::new(buffer(1 << 20));
    let kept = thread::scope(|scope| {
        let workers: Vec<_> = (0..4u8)
            .map(|number| {
                let fixed = &fixed;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for step in 0..EACH {
                        let mut held = Shape::bytes(8 + step % 32);
                        let block = fixed.allocate(held, HERE).expect("room");
                        if resize(fixed, block, held, 16) {
                            held = Shape::bytes(16);
                        }
                        // SAFETY: a live block of this size.
                        unsafe { block.write_bytes(number, held.requested) };
                        if step % 3 == 0 {
                            kept.push((block.addr().get(), held.requested, number));
                        } else {
                            assert_eq!(byte(block, held.requested - 1), number);
                            free(fixed, block, held);
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
    for (address, bytes, number) in &kept {
        let block = std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(*address));
        for offset in 0..*bytes {
            assert_eq!(byte(block.expect("not null"), offset), *number);
            assert!(taken.insert(address + offset), "no byte has two owners");
        }
    }
    let usage = fixed.usage();
    assert!(usage.adds_up(), "{usage:?}");
    assert_eq!(usage.requested, taken.len());
}

// Goal: a full buffer refuses and is as it was. Method: books before and after.
#[test]
fn f5_a_full_buffer_refuses_and_changes_nothing() {
    let fixed = fixed(100);
    let block = take(&fixed, shape(60, 1));
    let before = (fixed.end_index(), fixed.usage());
    for refused in [shape(41, 1), shape(1, 1 << 40), shape(usize::MAX, 1)] {
        assert!(fixed.allocate(refused, HERE).is_none());
    }
    assert!(!resize(&fixed, block, shape(60, 1), 101));
    assert!(!resize(&fixed, block, shape(60, 1), usize::MAX));
    assert_eq!((fixed.end_index(), fixed.usage()), before);
    take(&fixed, shape(40, 1));
}
