//! A walk over everything a driver's heaps hold.
#![allow(unsafe_code)]

use std::vec::Vec;

use core::ptr;
use core::sync::atomic::Ordering;

use pageshim_wire::process::{CLASS_WORDS, class, word};

use super::super::block::Block;
use super::super::classes::{SLOT_CLASSES, class_of};
use super::super::page::{FULL, Kind, NOTIFY, Page, RECORDS};
use super::super::runs::Structs;
use super::super::space::Space;
use super::Driver;

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
    pub(super) fn listed_pages(&self) -> Vec<*const Page> {
        let mut all = Vec::new();
        for heap in &self.heaps {
            for class in 0..SLOT_CLASSES {
                let (mut queue, mut full) = (Vec::new(), Vec::new());
                let (first, last, full_first) = heap.lists(class);
                assert_eq!(chain(first, &mut queue), last, "the queue's end");
                let aimed = heap.aimed().enumerate();
                for (_, page) in aimed.filter(|(index, _)| class_of(index * 16) == class) {
                    let empty =
                        queue.is_empty() && page_at(page).is_none_or(|page| page.carved() == 0);
                    assert!(empty || queue.contains(&page), "H4");
                }
                chain(full_first, &mut full);
                for (list, is_full) in [(&queue, true), (&full, false)].map(|(l, q)| (l, !q)) {
                    for page in list.iter().filter_map(|at| page_at(*at)) {
                        assert_eq!(page.owner_heap(), ptr::from_ref(*heap).addr(), "owner");
                        assert_eq!(page.flags() & FULL != 0, is_full, "FULL");
                        assert_eq!(page.flags() & RECORDS != 0, page.has_records(), "RECORDS");
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
            record.load(Ordering::Relaxed) >= super::LIVE
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

    /// Fails where anything does not fit anything else.
    pub fn walk(&self) {
        let mut found = Vec::new();
        let spaces = self.spaces.iter();
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
                self.accounts.word(index).load(Ordering::Relaxed)
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
