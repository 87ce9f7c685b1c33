//! Owners of heaps played by one thread, against a model of what is live.
//!
//! # Design
//! One [`Driver`] has spaces of its own, small, so that further ones are used
//! too. Each step is whole; races are the models' work. [`Driver::walk`] looks at
//! everything: lists, runs, records, sums.
//!
//! # Failure
//! Panics with what was broken. For tests and fuzzers only.
#![allow(unsafe_code)]

use std::boxed::Box;
use std::vec::Vec;

use core::ptr;
use core::sync::atomic::Ordering;

use super::block::Block;
use super::classes::{SLOT_MAX, aligned_class};
use super::page::Page;
use super::spaces::Spaces;
use super::{Heap, HeapState};
use crate::heap::accounts::Accounts;
use crate::heap::choices::{Bytes, Choices};
use crate::heap::page::Pages;

mod walk;

const HEAPS: usize = 5;
const SPAN: usize = 16 << 20;
/// Steps of one run over a fuzzer's bytes, and between two walks.
const STEPS: usize = 4000;
const WALK_EVERY: usize = 64;
/// Records of a live and of a freed block, as [`crate::records`] packs them.
const FREED: u64 = 5;
const LIVE: u64 = FREED | 1 << 22;

#[derive(Debug)]
struct Live {
    address: usize,
    bytes: usize,
    mark: u8,
}

/// See the module's text.
#[derive(Debug)]
pub struct Driver {
    spaces: &'static Spaces,
    accounts: &'static Accounts,
    heaps: Vec<&'static Heap>,
    live: Vec<Live>,
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

fn size(choices: &mut impl Choices) -> usize {
    match choices.below(20) {
        0 => SLOT_MAX + choices.below(400_000),
        1..3 => 1 + choices.below(SLOT_MAX),
        _ => 1 + choices.below(900),
    }
}

fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

impl Default for Driver {
    fn default() -> Self {
        let accounts = leaked(Accounts::new());
        let spaces = leaked(Spaces::new(Pages::new(accounts)));
        assert!(spaces.reserve(SPAN), "address space for a test");
        let place = |_| {
            let place = Box::leak(Box::new(core::mem::MaybeUninit::<Heap>::uninit()));
            // SAFETY: leaked memory of the right size and alignment.
            unsafe { Heap::place(place.as_mut_ptr(), spaces, accounts, true) }
        };
        Self {
            spaces,
            accounts,
            heaps: (0..HEAPS).map(place).collect(),
            live: Vec::new(),
            mark: 0,
        }
    }
}

impl Driver {
    fn running(&mut self, choices: &mut impl Choices) -> &'static Heap {
        let mut at = choices.below(HEAPS);
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
        let page = self.spaces.page_of(address).expect("ours");
        self.spaces.head_of(page, address)
    }

    fn allocate(&mut self, bytes: usize, align: usize, choices: &mut impl Choices) {
        let heap = self.running(choices);
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
        let held = record.swap(LIVE, Ordering::Relaxed);
        assert!(held == 0 || held == FREED, "P3: the slot was free");
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
    fn free(&mut self, index: usize, choices: &mut impl Choices) {
        let block = self.live.swap_remove(index);
        self.check(&block);
        let heap = self.running(choices);
        let page = self.page(block.address);
        let slot = page.slot_at(block.address).expect("a slot begins here");
        let record = page.record(slot).expect("the heap records");
        assert_eq!(
            record.swap(FREED, Ordering::Relaxed),
            LIVE,
            "P3: the slot was live"
        );
        heap.give(page, Block::from_address(block.address).expect("not null"));
    }

    fn resize(&mut self, index: usize, choices: &mut impl Choices) {
        let bytes = SLOT_MAX + 1 + choices.below(1 << 20);
        let heap = self.running(choices);
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

    /// One action, and what it answers checked.
    pub fn step(&mut self, choices: &mut impl Choices) {
        let full = self.live.len() > 3000;
        let some = self.live.len().max(1);
        let index = choices.below(some);
        match choices.below(1000) {
            0..2 => _ = self.running(choices).trim(),
            2..4 => self.running(choices).park(),
            4..6 => _ = self.running(choices).upkeep(),
            // Phases: everything of a stretch goes, so that pages empty and runs merge.
            6..8 => (0..some / 2).for_each(|_| {
                if !self.live.is_empty() {
                    self.free(0, choices);
                }
            }),
            8..30 if !self.live.is_empty() => self.resize(index, choices),
            30..100 => {
                let align = 1 << choices.below(20);
                let bytes = 1 + choices.below(30_000);
                self.allocate(bytes, align, choices);
            }
            draw if (draw < 480 || full) && !self.live.is_empty() => self.free(index, choices),
            _ => {
                let bytes = size(choices);
                self.allocate(bytes, 16, choices);
            }
        }
    }

    /// Everything goes, and nothing stays.
    pub fn end(mut self, choices: &mut impl Choices) {
        while !self.live.is_empty() {
            self.free(0, choices);
        }
        for _ in 0..2 {
            for heap in &self.heaps {
                if heap.state() == HeapState::Running as u32 || heap.adopt() {
                    heap.trim();
                }
            }
        }
        self.walk();
        assert!(self.listed_pages().is_empty(), "no page is kept");
        #[cfg(fuzzing)]
        self.vanish();
    }

    /// Leaves nothing behind, so that a million runs fit one process.
    #[cfg(fuzzing)]
    fn vanish(self) {
        // SAFETY: the heaps of this process are this driver's, and all is free.
        unsafe {
            super::heap::forget_all_heaps();
            self.spaces.unmap();
            for heap in self.heaps {
                drop(Box::from_raw(ptr::from_ref(heap).cast_mut()));
            }
            drop(Box::from_raw(ptr::from_ref(self.spaces).cast_mut()));
            drop(Box::from_raw(ptr::from_ref(self.accounts).cast_mut()));
        }
    }
}

/// What a fuzz target runs: actions decided by `bytes`, walks between, the end.
pub fn run(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    let mut driver = Driver::default();
    for step in 1..=STEPS {
        if choices.are_over() {
            break;
        }
        driver.step(&mut choices);
        if step % WALK_EVERY == 0 {
            driver.walk();
        }
    }
    driver.walk();
    driver.end(&mut choices);
}
