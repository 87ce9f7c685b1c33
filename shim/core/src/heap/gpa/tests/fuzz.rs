//! Random work on heaps against a model, and a walk over everything after it.
//!
//! Deterministic: the seed is printed, and PAGESHIM_FUZZ_SEED runs that one again.
//! One thread plays all owners, so each step is whole; races are the models' work.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{env, println};

use super::super::page::{Block, FULL, Kind, NOTIFY, Page};
use super::super::runs::Structs;
use super::super::space::Space;
use super::{Random, World, world};
use crate::heap::gpa::classes::{SLOT_CLASSES, SLOT_MAX, aligned_class};
use crate::heap::gpa::{Heap, HeapState};
use core::ptr;
use core::sync::atomic::Ordering;
use pageshim_wire::process::{CLASS_WORDS, class, word};

const SECONDS: u64 = 10;
const HEAPS: usize = 5;

struct Live {
    address: usize,
    bytes: usize,
    mark: u8,
}

struct Driver {
    world: World,
    heaps: Vec<&'static Heap>,
    live: Vec<Live>,
    random: Random,
    mark: u8,
}

fn bytes_of(address: usize, bytes: usize) -> &'static mut [u8] {
    // SAFETY: a live block of the driver's, which holds no other borrow.
    unsafe { core::slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(address), bytes) }
}

/// Offsets whose content is checked: both ends and one in each OS page.
fn places(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes)
        .step_by(4096)
        .chain([bytes - 1, bytes.min(16) - 1])
}

impl Driver {
    fn new(seed: u64) -> Self {
        // Small, so that further spaces are used too.
        let world = world(16 << 20);
        let heaps = (0..HEAPS).map(|_| world.recording_heap()).collect();
        Self {
            world,
            heaps,
            live: Vec::new(),
            random: Random(seed),
            mark: 0,
        }
    }

    fn running(&mut self) -> &'static Heap {
        let mut at = self.random.next(HEAPS);
        loop {
            let heap = self.heaps[at];
            // One that was parked is adopted by the thread we play now.
            if heap.state() == HeapState::Running as u32 || heap.adopt() {
                return heap;
            }
            at = (at + 1) % HEAPS;
        }
    }

    fn page(&self, address: usize) -> &'static Page {
        let page = self.world.spaces.page_of(address).expect("ours");
        self.world.spaces.head_of(page, address)
    }

    fn allocate(&mut self, bytes: usize, align: usize) {
        let heap = self.running();
        let found = match aligned_class(bytes, align) {
            Some(_) if align <= 16 => heap.take(bytes).map(|(b, p)| (b, p, false)),
            Some(class) => heap.take_class(class).map(|(b, p)| (b, p, false)),
            None => heap.take_single(bytes, align),
        };
        let Some((block, page, zeroed)) = found else {
            return;
        };
        let address = block.address();
        assert!(address.is_multiple_of(align) && page.usable() >= bytes);
        if zeroed {
            assert!(
                places(bytes).all(|at| bytes_of(address, bytes)[at] == 0),
                "said to be zero"
            );
        }
        let slot = page.slot_at(address).expect("a slot begins here");
        let record = page.record(slot).expect("the heap records");
        assert_eq!(
            record.swap(1, Ordering::Relaxed),
            0,
            "P3: the slot was free"
        );
        self.mark = self.mark.wrapping_add(1);
        self.fill(address, bytes, self.mark);
        let mark = self.mark;
        self.live.push(Live {
            address,
            bytes,
            mark,
        });
    }

    fn fill(&self, address: usize, bytes: usize, mark: u8) {
        places(bytes).for_each(|at| bytes_of(address, bytes)[at] = mark);
    }

    fn check(&self, block: &Live) {
        let content = bytes_of(block.address, block.bytes);
        assert!(
            places(block.bytes).all(|at| content[at] == block.mark),
            "content"
        );
    }

    /// Local, remote or into a parked heap, as the heap we play comes.
    fn free(&mut self, index: usize) {
        let block = self.live.swap_remove(index);
        self.check(&block);
        let heap = self.running();
        let page = self.page(block.address);
        let slot = page.slot_at(block.address).expect("a slot begins here");
        let record = page.record(slot).expect("the heap records");
        assert_eq!(
            record.swap(0, Ordering::Relaxed),
            1,
            "P3: the slot was live"
        );
        heap.give(page, Block::from_address(block.address).expect("not null"));
    }

    fn resize(&mut self, index: usize) {
        let bytes = SLOT_MAX + 1 + self.random.next(1 << 20);
        let heap = self.running();
        let (address, old, mark) = {
            let block = &self.live[index];
            (block.address, block.bytes, block.mark)
        };
        self.check(&self.live[index]);
        let page = self.page(address);
        if page.is_single() && heap.resize_single(page, bytes) {
            let kept = bytes_of(address, old.min(bytes));
            assert!(
                places(kept.len()).take(1).all(|at| kept[at] == mark),
                "content kept"
            );
            self.fill(address, bytes, mark);
            self.live[index].bytes = bytes;
        }
    }

    fn step(&mut self) {
        let full = self.live.len() > 3000;
        let some = self.live.len().max(1);
        let index = self.random.next(some);
        match self.random.next(1000) {
            0..2 => _ = self.running().trim(),
            2..4 => self.running().park(),
            4..6 => _ = self.running().upkeep(),
            // Phases: everything of a stretch goes, so that pages empty and runs merge.
            6..8 => (0..some / 2).for_each(|_| {
                if !self.live.is_empty() {
                    self.free(0);
                }
            }),
            8..30 if !self.live.is_empty() => self.resize(index),
            30..100 => {
                let align = 1 << self.random.next(20);
                let bytes = 1 + self.random.next(30_000);
                self.allocate(bytes, align);
            }
            draw if (draw < 480 || full) && !self.live.is_empty() => self.free(index),
            _ => {
                let bytes = self.random.size();
                self.allocate(bytes, 16);
            }
        }
    }
}

fn page_at(at: *const Page) -> Option<&'static Page> {
    // SAFETY: list links name page structs, which live for ever.
    unsafe { at.as_ref() }
}

/// Pages of a chain, each pointing back at the one before it.
fn chain(first: *const Page, into: &mut Vec<*const Page>) -> *const Page {
    let (mut last, mut next) = (ptr::null(), first);
    while let Some(page) = page_at(next) {
        assert_eq!(page.prev.get(), last, "links back");
        into.push(page);
        (last, next) = (page, page.next.get());
    }
    last
}

fn list_length(mut next: usize, bound: usize) -> usize {
    let mut count = 0;
    while let Some(block) = Block::from_address(next) {
        count += 1;
        assert!(count <= bound, "a list goes in circles");
        next = block.next().addr();
    }
    count
}

impl Driver {
    /// Every page in exactly one list of the heap that owns it, with the flags that go with it.
    fn listed_pages(&self) -> Vec<*const Page> {
        let mut all = Vec::new();
        for heap in &self.heaps {
            for class in 0..SLOT_CLASSES {
                let (mut queue, mut full) = (Vec::new(), Vec::new());
                let (first, last, full_first) = heap.lists(class);
                assert_eq!(chain(first, &mut queue), last, "the queue's end");
                chain(full_first, &mut full);
                for (list, is_full) in [(&queue, true), (&full, false)].map(|(l, q)| (l, !q)) {
                    for page in list.iter().filter_map(|at| page_at(*at)) {
                        assert_eq!(page.owner_heap(), ptr::from_ref(*heap).addr(), "owner");
                        assert_eq!(page.flags() & FULL != 0, is_full, "FULL");
                        assert_eq!(page.class(), class);
                        let notify = page.remote.load(Ordering::Relaxed) & NOTIFY != 0;
                        assert!(is_full || !notify, "only a full page asks");
                    }
                }
                all.append(&mut queue);
                all.append(&mut full);
            }
        }
        all.sort_unstable();
        all
    }

    /// `used` is what is not free, records say what is live.
    fn walk_page(&self, page: &Page) -> usize {
        let capacity = page.carved();
        let free = list_length(page.free.get().addr(), capacity);
        assert_eq!(page.used.get() as usize, capacity - free, "P2");
        let live = |index: &usize| {
            let record = page.record(*index).expect("the heap records");
            record.load(Ordering::Relaxed) != 0
        };
        let live = (0..capacity).filter(live).count();
        assert!(live <= page.used.get() as usize, "live slots are used");
        live
    }

    /// Runs in address order: no gap, no two free neighbours, sums that agree.
    fn walk_space(&self, space: &Space, in_lists: &mut Vec<*const Page>) -> usize {
        let (mut slice, mut live, mut after_free, mut waiting) = (1, 0, false, 0);
        while slice < space.slices() {
            let page = Structs::page(space, slice);
            let slices = page.slices.get();
            assert!(slices > 0, "slice {slice} belongs to a run");
            match page.kind() {
                Kind::Free => {
                    assert!(!after_free, "free neighbours are one run");
                    let tail = Structs::page(space, slice + slices - 1);
                    assert_eq!((tail.kind(), tail.head.get()), (Kind::Free, slice));
                    if page.freed_at_ms.get() != u64::MAX {
                        waiting += slices as usize;
                    }
                }
                Kind::Head if page.is_single() => live += 1,
                Kind::Head => {
                    live += self.walk_page(page);
                    in_lists.push(page);
                }
                kind => panic!("slice {slice} is {kind:?} where a run begins"),
            }
            after_free = page.kind() == Kind::Free;
            slice += slices;
        }
        assert_eq!(slice, space.slices(), "the last run ends at the end");
        assert_eq!(waiting << 16, space.dirty_bytes(), "what waits is counted");
        live
    }

    fn walk(&self) {
        let mut found = Vec::new();
        let spaces = self.world.spaces.iter();
        let live: usize = spaces.map(|space| self.walk_space(space, &mut found)).sum();
        assert_eq!(live, self.live.len(), "records say what is live");
        found.sort_unstable();
        assert_eq!(
            found,
            self.listed_pages(),
            "each page is in exactly one list"
        );
        for index in 0..SLOT_CLASSES {
            let at = |field| {
                let index = word::CLASSES + index * CLASS_WORDS + field;
                self.world.accounts.word(index).load(Ordering::Relaxed)
            };
            let of_class = || found.iter().filter_map(|at| page_at(*at));
            let mine = || of_class().filter(|page| page.class() == index);
            let capacity: u64 = mine().map(|page| page.carved() as u64).sum();
            let bytes: u64 = mine().map(|page| u64::from(page.slices.get()) << 16).sum();
            assert_eq!(at(class::CAPACITY), capacity, "class {index}");
            assert_eq!(at(class::PAGES), mine().count() as u64, "class {index}");
            assert_eq!(at(class::PAGE_BYTES), bytes, "class {index}");
        }
    }
}

// Goal: no action in any order breaks content, records, lists, runs or sums. Method: random actions of
// several owners for ten seconds, a new seed each 20,000 steps, the walk every 500; at the end all goes.
#[test]
fn random_owners_keep_everything_whole() {
    let given = env::var("PAGESHIM_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let start = Instant::now();
    let mut seed = given.unwrap_or(0x9e37_79b9_7f4a_7c15);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        println!("PAGESHIM_FUZZ_SEED={seed}");
        let mut driver = Driver::new(seed);
        for step in 0..20_000 {
            driver.step();
            if step % 500 == 0 {
                driver.walk();
            }
        }
        while !driver.live.is_empty() {
            driver.free(0);
        }
        for _ in 0..2 {
            for heap in driver.heaps.clone() {
                if heap.state() == HeapState::Running as u32 || heap.adopt() {
                    heap.trim();
                }
            }
        }
        driver.walk();
        assert!(driver.listed_pages().is_empty(), "no page is kept");
        if given.is_some() {
            break;
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
    }
}
