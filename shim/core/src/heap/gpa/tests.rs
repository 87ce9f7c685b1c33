//! The gpa as a whole: content, accounts, threads.
#![allow(unsafe_code)]

use std::boxed::Box;
use std::sync::mpsc;
use std::vec::Vec;
use std::{ptr, thread};

use core::sync::atomic::Ordering;

use pageshim_wire::process::{CLASS_WORDS, Misuse, class, word};

use super::classes::{CLASSES, SINGLETON, SLOT_MAX, slot_bytes};
use super::{Block, Heap, Spaces};
use crate::heap::accounts::Accounts;
use crate::heap::page::Pages;

mod fuzz;
mod resident;

struct World {
    spaces: &'static Spaces,
    accounts: &'static Accounts,
}

fn world(span: usize) -> World {
    let accounts: &'static Accounts = Box::leak(Box::new(Accounts::new()));
    let spaces: &'static Spaces = Box::leak(Box::new(Spaces::new(Pages::new(accounts))));
    assert!(spaces.reserve(span), "address space for a test");
    World { spaces, accounts }
}

impl World {
    fn heap(&self) -> &'static Heap {
        let place = Box::leak(Box::new(core::mem::MaybeUninit::<Heap>::uninit()));
        // SAFETY: leaked memory of the right size and alignment.
        unsafe { Heap::place(place.as_mut_ptr(), self.spaces, self.accounts, false) }
    }

    // Committed = what classes hold + what no class holds; each part is never negative.
    fn check(&self, live: &[(usize, usize, usize)]) {
        let word_at = |index| self.accounts.word(index).load(Ordering::Relaxed);
        let mut pages = 0;
        for class_index in 0..CLASSES {
            let at = |field| word_at(word::CLASSES + class_index * CLASS_WORDS + field);
            let used = live.iter().filter(|block| block.2 == class_index);
            if class_index == SINGLETON {
                let bytes: usize = used.map(|block| block.1.next_multiple_of(4096)).sum();
                assert_eq!(at(class::CAPACITY), bytes as u64);
            } else {
                assert!(
                    at(class::CAPACITY) >= used.count() as u64,
                    "class {class_index}"
                );
                assert!(
                    at(class::PAGE_BYTES) >= at(class::CAPACITY) * slot_bytes(class_index) as u64
                );
            }
            pages += at(class::PAGE_BYTES);
        }
        assert!(word_at(word::HEAP_COMMITTED) >= pages);
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn size(&mut self) -> usize {
        match self.next(20) {
            0 => SLOT_MAX + self.next(400_000),
            1..3 => 1 + self.next(SLOT_MAX),
            _ => 1 + self.next(900),
        }
    }
}

fn allocate(heap: &Heap, bytes: usize) -> (usize, usize, usize) {
    let (block, page) = if bytes <= SLOT_MAX {
        heap.take(bytes).expect("memory")
    } else {
        let (block, page, _) = heap.take_single(bytes, 1).expect("memory");
        (block, page)
    };
    assert!(page.usable() >= bytes && block.address().is_multiple_of(16));
    assert_eq!(
        page.slot_at(block.address()).map(|i| page.slot_address(i)),
        Some(block.address())
    );
    fill(block.address(), bytes);
    (block.address(), bytes, page.class())
}

fn fill(address: usize, bytes: usize) {
    let at = ptr::with_exposed_provenance_mut::<u8>(address);
    let mark = (address >> 4) as u8;
    // SAFETY: a live block of at least `bytes`.
    unsafe {
        at.write_bytes(mark, bytes.min(64));
        at.add(bytes - 1).write(mark);
    }
}

fn free(heap: &Heap, spaces: &'static Spaces, (address, bytes, _): (usize, usize, usize)) {
    let at = ptr::with_exposed_provenance::<u8>(address);
    let mark = (address >> 4) as u8;
    // SAFETY: a live block of at least `bytes`.
    let intact = unsafe { at.read() == mark && at.add(bytes - 1).read() == mark };
    assert!(
        intact,
        "block {address:#x} of {bytes} bytes was overwritten"
    );
    let page = spaces.page_of(address).expect("ours");
    let page = spaces.head_of(page, address);
    heap.give(page, Block::from_address(address).expect("not null"));
}

// Goal: a request gets the slot of its size freed last, wherever that is: it is still in the cache.
// Method: blocks of several pages, of which some from the middle are freed; pages that were full count.
#[test]
fn what_was_freed_last_is_taken_next() {
    let world = world(64 << 20);
    let heap = world.heap();
    for bytes in [16, 64, 256, 512, 1024] {
        let live: Vec<_> = (0..200_000 / bytes)
            .map(|_| allocate(heap, bytes))
            .collect();
        for at in [1, live.len() / 2, live.len() - 2, live.len() / 3] {
            free(heap, world.spaces, live[at]);
            assert_eq!(allocate(heap, bytes).0, live[at].0, "{bytes} bytes");
        }
        let (one, other) = (live[5], live[live.len() - 5]);
        free(heap, world.spaces, one);
        free(heap, world.spaces, other);
        assert_eq!(allocate(heap, bytes).0, other.0);
        let next = allocate(heap, bytes);
        assert!(
            live.iter()
                .all(|block| block.0 != next.0 || block.0 == one.0)
        );
        for block in live.iter().filter(|block| block.0 != one.0) {
            free(heap, world.spaces, *block);
        }
        free(heap, world.spaces, next);
    }
}

// Goal: blocks never overlap, accounts hold at every step. Method: random work, one thread.
#[test]
fn random_work_keeps_content_and_accounts() {
    let world = world(1 << 30);
    let heap = world.heap();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut live = Vec::new();
    for step in 0..60_000 {
        if live.len() > 2_000 || (!live.is_empty() && random.next(5) < 2) {
            let index = random.next(live.len());
            free(heap, world.spaces, live.swap_remove(index));
        } else {
            live.push(allocate(heap, random.size()));
        }
        if step % 500 == 0 {
            world.check(&live);
        }
    }
    for block in live.drain(..) {
        free(heap, world.spaces, block);
    }
    heap.trim();
    world.check(&live);
    assert_eq!(
        world.spaces.first().dirty_bytes(),
        0,
        "all free memory went back"
    );
    let classes = word::CLASSES..word::CLASSES + CLASSES * CLASS_WORDS;
    for index in classes.filter(|index| index % CLASS_WORDS != class::SLOT_BYTES) {
        assert_eq!(
            world.accounts.word(index).load(Ordering::Relaxed),
            0,
            "word {index}"
        );
    }
}

// Goal: blocks freed by other threads come back, also those of dead threads.
// Method: a ring of threads that hand blocks on; heaps are parked and adopted.
#[test]
fn blocks_cross_threads_and_outlive_them() {
    let world = world(1 << 30);
    let (spaces, accounts) = (world.spaces, world.accounts);
    for round in 0..6 {
        let handles: Vec<_> = (0..4)
            .map(|index| {
                let heap = super::all_heaps()
                    .find(|heap| ptr::eq(heap.spaces(), spaces) && heap.adopt())
                    .unwrap_or_else(|| World { spaces, accounts }.heap());
                thread::spawn(move || {
                    let mut random = Random(77 + index + round * 10);
                    let mut kept = Vec::new();
                    let (sender, receiver) = mpsc::channel();
                    for _ in 0..20_000 {
                        let block = allocate(heap, random.size().min(20_000));
                        if random.next(2) == 0 {
                            sender.send(block).expect("open");
                        } else {
                            kept.push(block);
                        }
                        if kept.len() > 300 {
                            let index = random.next(kept.len());
                            free(heap, spaces, kept.swap_remove(index));
                        }
                    }
                    kept.into_iter().for_each(|block| free(heap, spaces, block));
                    heap.park();
                    drop(sender);
                    receiver
                })
            })
            .collect();
        let receivers: Vec<_> = handles
            .into_iter()
            .map(|h| h.join().expect("thread"))
            .collect();
        let freeers: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                let heap = World { spaces, accounts }.heap();
                thread::spawn(move || {
                    receiver.iter().for_each(|block| free(heap, spaces, block));
                    heap.trim();
                    heap.park();
                })
            })
            .collect();
        freeers.into_iter().for_each(|h| h.join().expect("thread"));
    }
    // All threads are gone: this one may be every heap's. A block handed to a heap
    // whose pages had moved on needs a second round.
    let heaps: Vec<_> = super::all_heaps()
        .filter(|heap| ptr::eq(heap.spaces(), spaces))
        .collect();
    heaps.iter().for_each(|heap| _ = heap.adopt());
    for _ in 0..3 {
        heaps.iter().for_each(|heap| _ = heap.trim());
    }
    for index in 0..CLASSES {
        let at = word::CLASSES + index * CLASS_WORDS + class::PAGES;
        assert_eq!(
            accounts.word(at).load(Ordering::Relaxed),
            0,
            "class {index} kept pages"
        );
    }
}

// Goal: exhaustion answers None and leaves the heap usable; further spaces serve.
#[test]
fn a_small_reserve_is_followed_by_others() {
    let world = world(4 << 20);
    let heap = world.heap();
    let mut live: Vec<_> = (0..200).map(|_| allocate(heap, 100_000)).collect();
    live.extend((0..5_000).map(|_| allocate(heap, 2_000)));
    assert!(world.spaces.iter().count() > 1, "more than the first space");
    assert!(heap.take_single(usize::MAX - 5, 1).is_none());
    assert!(heap.take_single(1 << 46, 1).is_none());
    for block in live {
        free(heap, world.spaces, block);
    }
}

// Goal: large records can have huge pages: each is usable as a whole before any of it is touched, and
// a reserve's last records need no whole one. Method: areas until there is no more room.
#[test]
fn large_records_are_made_usable_by_huge_pages() {
    const HUGE: u64 = 2 << 20;
    let world = world((32 << 20) + (64 << 10));
    let space = world.spaces.iter().next().expect("reserved");
    let metadata = || world.accounts.word(word::METADATA).load(Ordering::Relaxed);
    let (mut before, mut large) = (metadata(), 0);
    let mut steps = Vec::new();
    while let Some(area) = space.take_records(0) {
        // SAFETY: the space's records, taken for this test.
        unsafe { ptr::write_bytes(area, 0xff, 1) };
        if metadata() != before {
            steps.push(metadata() - before);
            large += metadata() - before;
            before = metadata();
        }
    }
    let small = steps.iter().take_while(|step| **step != HUGE).count();
    assert!(steps[..small].iter().sum::<u64>() == 4 << 20, "{steps:?}");
    let (last, whole) = steps[small..].split_last().expect("more than 4 MiB");
    assert!(whole.iter().all(|step| *step == HUGE), "{steps:?}");
    assert!(whole.len() > 2 && *last < HUGE, "{steps:?}");
    assert!(large >= 16 << 20);
}

// Goal: a singleton grows into free neighbours and shrinks in place.
#[test]
fn a_singleton_resizes_in_place() {
    let world = world(1 << 30);
    let heap = world.heap();
    let (block, page, zeroed) = heap.take_single(100_000, 1).expect("memory");
    assert!(zeroed);
    assert!(
        heap.resize_single(page, 1_000_000),
        "the end of the space is free"
    );
    assert!(page.usable() >= 1_000_000);
    fill(block.address(), 1_000_000);
    let (other, other_page, _) = heap.take_single(70_000, 1).expect("memory");
    assert!(
        !heap.resize_single(page, 2_000_000),
        "the neighbour is in the way"
    );
    assert!(heap.resize_single(page, 70_000));
    heap.give(other_page, other);
    heap.give(page, block);
    let (_, aligned, _) = heap.take_single(10, 8 << 20).expect("memory");
    assert!(aligned.slot_address(0).is_multiple_of(8 << 20));
}

// Goal: a block freed twice on the fast path is never handed out twice, and its
// page is not given back below a live neighbour. Method: both orders of events.
#[test]
fn a_double_free_shows_late_and_is_survived() {
    let world = world(64 << 20);
    let heap = world.heap();
    let misuse = || {
        let index = word::MISUSE + Misuse::DoubleFree as usize;
        world.accounts.word(index).load(Ordering::Relaxed)
    };
    let (kept, page) = heap.take(64).expect("a block");
    let (twice, _) = heap.take(64).expect("a block");
    assert!(heap.give_fast(page, twice));
    assert!(heap.give_fast(page, twice));
    let mut seen = std::collections::BTreeSet::from([kept.address()]);
    for _ in 0..3000 {
        let (block, _) = heap.take(64).expect("a block");
        assert!(seen.insert(block.address()), "handed out twice");
    }
    assert_eq!(misuse(), 1);

    let (kept, page) = heap.take(128).expect("a block");
    let (twice, _) = heap.take(128).expect("a block");
    assert!(heap.give_fast(page, twice));
    assert!(heap.give_fast(page, twice));
    heap.trim();
    assert_eq!(misuse(), 2);
    assert!(core::ptr::eq(
        world.spaces.page_of(kept.address()).expect("ours"),
        page
    ));
    assert_eq!(page.usable(), 128, "the page still serves its class");
    assert!(heap.give_fast(page, kept));
}

// Goal: a run's next class finds no words of the last one's freed blocks (P3). Method: fill and free
// runs of one class, leaving words behind, then blocks of that and of another class.
#[test]
fn records_of_a_run_given_back_are_zero() {
    let world = world(64 << 20);
    let place = Box::leak(Box::new(core::mem::MaybeUninit::<Heap>::uninit()));
    // SAFETY: leaked memory of the right size and alignment.
    let heap = unsafe { Heap::place(place.as_mut_ptr(), world.spaces, world.accounts, true) };
    let take = |bytes| {
        let block = heap.take(bytes).expect("memory").0;
        let page = world.spaces.page_of(block.address()).expect("ours");
        let slot = page.slot_at(block.address()).expect("its start");
        (block, page, page.record(slot).expect("the heap records"))
    };
    let mut blocks: Vec<_> = (0..5000).map(|_| take(64)).collect();
    for (block, page, record) in blocks.drain(..) {
        record.store(77, Ordering::Relaxed);
        heap.give(page, block);
    }
    heap.trim();
    let seen = |bytes| take(bytes).2.load(Ordering::Relaxed);
    let left = (0..10_000).filter(|_| seen(64) != 0).count();
    // Spare pages keep theirs: their slots did hold those blocks.
    assert!(left < 5000, "{left} of 5000 words were left");
    assert_eq!((0..10_000).filter(|_| seen(96) != 0).count(), 0);
}

// Goal: each OS page knows who carved it first, clean pages are counted once, and a run given back
// leaves no origin (A1, P7). Method: two sites fill pages of one class in turn; then all goes back.
#[test]
fn pages_know_who_carved_them_first() {
    let world = world(64 << 20);
    let place = Box::leak(Box::new(core::mem::MaybeUninit::<Heap>::uninit()));
    // SAFETY: leaked memory of the right size and alignment.
    let heap = unsafe { Heap::place(place.as_mut_ptr(), world.spaces, world.accounts, true) };
    let origins = |page: &super::Page| -> Vec<u32> {
        let at = pageshim_wire::heap::origins_at(u64::from(page.slots.get()));
        let first = page
            .records
            .get()
            .wrapping_byte_add(usize::try_from(at).expect("fits"));
        let word = |index: usize| {
            // SAFETY: P7: sixteen for a slice.
            unsafe { first.cast::<u32>().add(index).read() }
        };
        (0..16).map(word).collect()
    };
    let mut blocks = Vec::new();
    for site in [7, 9] {
        heap.set_cause(site);
        // Six OS pages of 64 slots.
        blocks.extend((0..384).map(|_| heap.take(64).expect("memory")));
        assert_eq!(heap.take_touched(), 6, "site {site}");
    }
    let page = blocks[0].1;
    assert_eq!(origins(page)[..6], [7; 6]);
    assert_eq!(origins(page)[6..], [9, 9, 9, 9, 9, 9, 0, 0, 0, 0]);
    let kept = blocks.split_off(767);
    for (block, page) in blocks {
        heap.give(page, block);
    }
    heap.set_cause(3);
    drop((0..700).map(|_| heap.take(64)).collect::<Vec<_>>());
    assert_eq!(origins(page)[0], 7, "the first, not the last");
    assert_eq!(heap.take_touched(), 0, "nothing was carved");
    drop(kept);
    assert!(page.carved() > 0);
    page.forget_records();
    assert_eq!(origins(page), [0; 16]);
}
