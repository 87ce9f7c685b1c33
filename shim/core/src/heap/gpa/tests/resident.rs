//! What stays resident, and what is used before more becomes so.

use pageshim_wire::thread::Syscall;

use super::{World, world};
use crate::heap::gpa::{Block, Heap, Page};

fn madvises(world: &World) -> u64 {
    world.accounts.calls(Syscall::Madvise).0
}

fn once(heap: &Heap, bytes: usize) -> usize {
    let (block, page, _) = heap.take_single(bytes, 1).expect("memory");
    heap.give(page, block);
    block.address()
}

fn start(page: &Page) -> usize {
    page.slot_address(0)
}

// Goal: a block larger than any freed before goes back at once, another of its size
// waits. Method: what waits, and how often the kernel was asked.
#[test]
fn a_record_size_goes_back_at_once() {
    let world = world(64 << 20);
    let heap = world.heap();
    once(heap, 128 << 10);
    assert_eq!(
        (world.spaces.dirty_bytes(), madvises(&world)),
        (128 << 10, 0)
    );
    once(heap, 4 << 20);
    assert_eq!(madvises(&world), 1);
    once(heap, 4 << 20);
    assert_eq!(madvises(&world), 1, "the second of a size waits");
    assert!(world.spaces.dirty_bytes() >= 4 << 20);
}

// Goal: a class's first page leaves resident memory to those who use it up.
// Method: addresses, with one free run that is resident.
#[test]
fn a_first_page_is_clean_and_the_next_is_warm() {
    let world = world(64 << 20);
    let heap = world.heap();
    let warm = once(heap, 100 << 10);
    let (_, first) = heap.take(64).expect("a block");
    let resident = |page| (warm..warm + (100 << 10)).contains(&start(page));
    assert!(!resident(first), "one block would hold a whole page");
    let next = loop {
        let (_, page) = heap.take(64).expect("a block");
        if !core::ptr::eq(page, first) {
            break page;
        }
    };
    assert!(resident(next), "a class that grows uses what is there");
}

// Goal: a page kept empty for one class serves another before memory grows.
// Method: addresses.
#[test]
fn an_idle_page_is_used_before_the_heap_grows() {
    let world = world(64 << 20);
    let heap = world.heap();
    let (block, idle) = heap.take(64).expect("a block");
    let kept = start(idle);
    heap.give(idle, block);
    let (_, first) = heap.take(128).expect("a block");
    assert_ne!(start(first), kept);
    let next = loop {
        let (_, page) = heap.take(128).expect("a block");
        if !core::ptr::eq(page, first) {
            break page;
        }
    };
    assert_eq!(start(next), kept);
}

// Goal: the plain path of realloc takes live blocks of the own heap and nothing else.
// Method: one block in each state.
#[test]
fn only_own_live_blocks_are_resized_plainly() {
    let world = world(64 << 20);
    let (heap, other) = (world.heap(), world.heap());
    let (block, page) = heap.take(100).expect("a block");
    assert_eq!(heap.usable_fast(page, block), Some(112));
    assert_eq!(other.usable_fast(page, block), None);
    let inside = Block::from_address(block.address() + 16).expect("an address");
    assert_eq!(heap.usable_fast(page, inside), None);
    let beyond = Block::from_address(start(page) + 112 * page.carved()).expect("an address");
    assert_eq!(heap.usable_fast(page, beyond), None, "never handed out");
    heap.give(page, block);
    assert_eq!(heap.usable_fast(page, block), None, "free");
    let (single, page, _) = heap.take_single(100_000, 1).expect("memory");
    assert_eq!(heap.usable_fast(page, single), None);
}
