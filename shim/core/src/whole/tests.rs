//! Each heap of a whole process on literal cases; random work and wrong calls are
//! in `tests/layers` (suite, wild).
#![allow(unsafe_code)]

use std::boxed::Box;
use std::fs;
use std::vec::Vec;

use core::ptr;
use core::sync::atomic::Ordering;

use super::{Block, Bump, Debug, Family, Found, PageHeap, Stale};
use crate::heap::accounts::Accounts;
use crate::heap::page::Pages;
use crate::sys;

const PAGE: usize = crate::OS_PAGE_BYTES;

fn pages() -> Pages {
    Pages::new(Box::leak(Box::new(Accounts::new())))
}

/// Says that the block is live, as its owner does.
fn live(block: Option<Block>) -> usize {
    let block = block.expect("a block");
    block.record.store(1 << 22, Ordering::Relaxed);
    block.address
}

fn poke(address: usize, byte: u8) {
    // SAFETY: memory of the heap under test, mapped.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write(byte) };
}

fn page_heap(span: usize, mappings: usize) -> PageHeap {
    let heap = PageHeap::new(pages());
    assert!(heap.reserve(span, mappings), "{span} bytes of addresses");
    heap
}

/// True when the kernel lets nobody touch the page at `address`.
fn is_inaccessible(address: usize) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").expect("a proc file system");
    let holds = |line: &&str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let to = usize::from_str_radix(to, 16).ok()?;
        Some((from..to).contains(&address))
    };
    let line = maps.lines().find(|line| holds(line) == Some(true));
    line.is_some_and(|line| line.contains(" ---p "))
}

// Goal: a small reserve has a table of its own, whole steps: committing the first step once reached
// past it. Method: spans under a tight ulimit -v; what lies behind the tables stays as it is.
#[test]
fn a_small_page_heap_keeps_to_its_reserve() {
    for span in [4 << 20, 16 << 20, 64 << 20] {
        // SAFETY: a new mapping at an address of the kernel's choice: right above what comes next.
        let behind = unsafe { sys::map_anonymous(0, 1 << 20, sys::PROT_NONE, false) };
        let behind = behind.expect("addresses");
        let heap = page_heap(span, 1000);
        let address = live(heap.take(3 * PAGE, 16));
        poke(address + 3 * PAGE - 1, 1);
        assert!(matches!(heap.find(address), Found::Live(_)));
        assert!(is_inaccessible(behind), "{span}: somebody else's pages");
    }
}

// Goal: the page heap gives up before the kernel would. Method: room for ten mappings.
#[test]
fn the_page_heap_counts_mappings() {
    let heap = page_heap(64 << 20, 10);
    let held: Vec<_> = (0..20).map_while(|_| heap.take(1, 16)).collect();
    assert!((5..10).contains(&held.len()), "{}", held.len());
    for block in &held {
        heap.give(block.address);
    }
    assert!(heap.take(1, 16).is_some(), "what was freed serves again");
}

// Goal: a bump heap ends exactly at its limit, takes back the last block only, and grows it in place.
#[test]
fn a_bump_heap_ends_at_its_limit() {
    let heap = Bump::new(pages());
    assert!(heap.reserve(10 * PAGE));
    let first = live(heap.take(16, 16));
    let last = live(heap.take(100, 16));
    assert!(heap.resize(first, 17).is_none(), "not the last");
    let room = 10 * PAGE - (last - first) - 16;
    assert!(heap.resize(last, room + 1).is_none(), "one byte too many");
    let grown = heap.resize(last, room).expect("exactly to the end");
    assert_eq!((grown.address, grown.usable), (last, room));
    assert!(heap.take(1, 16).is_none());
    grown.record.store(0, Ordering::Relaxed);
    heap.give(last);
    assert!(matches!(heap.find(last), Found::Freed));
    assert_eq!(live(heap.take(5, 16)), last, "the last one's place");
    assert!(matches!(heap.find(last + 16), Found::Nothing));
}

struct Checked(Debug);

impl Checked {
    fn new() -> Self {
        let heap = Debug::new(pages());
        assert!(heap.reserve(256 << 20));
        Self(heap)
    }

    fn take(&self, bytes: usize) -> usize {
        let mut stale = Stale::default();
        live(self.0.take(bytes, 16, Family::New, &mut stale))
    }

    /// Frees and answers what was found written after its free.
    fn free(&self, address: usize) -> Vec<usize> {
        let Found::Live(block) = self.0.find(address) else {
            panic!("live");
        };
        block.record.store(0, Ordering::Relaxed);
        let mut stale = Stale::default();
        self.0.give(address, 7, 8, &mut stale);
        stale.iter().map(|past| past.address).collect()
    }
}

// Goal: no address twice, and a block's past is told for ever. Method: far more than the quarantine.
#[test]
fn debug_remembers_what_it_freed() {
    let heap = Checked::new();
    let first = heap.take(1000);
    assert!(heap.free(first).is_empty());
    let mut highest = first;
    for _ in 0..3000 {
        let address = heap.take(10_000);
        assert!(address > highest, "never used before");
        highest = address;
        assert!(heap.free(address).is_empty());
    }
    let past = heap.0.past(first).expect("remembered");
    assert_eq!((past.born, past.freed, past.requested), (7, 8, 1000));
    assert_eq!(past.family, Family::New as u8);
    assert!(matches!(heap.0.find(first), Found::Freed));
    assert!(matches!(heap.0.find(first + 16), Found::Nothing));
}

// Goal: a byte in front of or behind a block, or in it after its free, shows. Method: one byte each.
#[test]
fn debug_sees_single_bytes() {
    let heap = Checked::new();
    for (offset, intact) in [(0, true), (99, true), (100, false), (107, false)] {
        let address = heap.take(100);
        poke(address + offset, 1);
        assert_eq!(heap.0.is_intact(address), intact, "byte {offset}");
    }
    let address = heap.take(100);
    poke(address - 1, 1);
    assert!(!heap.0.is_intact(address), "in front");
    let freed = heap.take(50);
    assert!(heap.free(freed).is_empty());
    poke(freed + 49, 1);
    let mut stale = Stale::default();
    heap.0.check_all(&mut stale);
    heap.0.check_all(&mut stale);
    let found: Vec<_> = stale.iter().map(|past| past.address).collect();
    assert_eq!(found, [freed], "told once");
}
