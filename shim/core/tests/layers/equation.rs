//! Where the memory is, after every step of random work: the parts of each layer
//! are exactly what it holds, and what it holds is what its parent says it gave.

use std::sync::atomic::Ordering;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::arena::{Arena, Reset, SharedArena};
use pageshim_core::heap::conformance::random_with;
use pageshim_core::heap::debug::{Config, DebugLayer};
use pageshim_core::heap::failing::Failing;
use pageshim_core::heap::fixed::{Fixed, SharedFixed};
use pageshim_core::heap::gpa::classes::{CLASSES, SLICE_BYTES};
use pageshim_core::heap::gpa::{Kind, Spaces};
use pageshim_core::heap::layer::{GpaLayer, Layer, NoMutex, Usage};
use pageshim_core::heap::page::{PageLayer, Pages};
use pageshim_core::heap::smp::Smp;
use pageshim_wire::process::{CLASS_WORDS, class, word};

use crate::support::{Memory, PAGE, accounts, buffer, pages, writable_bytes};

const STEPS: usize = 3_000;

#[track_caller]
fn holds(usage: Usage, live: usize, committed: usize) {
    assert_eq!(usage.parts(), usage.committed, "{usage:?}");
    assert_eq!(usage.requested, live, "{usage:?}");
    assert_eq!(usage.committed, committed, "{usage:?}");
}

/// Bytes a parent that only counts has given out.
fn given<P: Layer>(parent: &Failing<P>) -> usize {
    parent.allocated_bytes() - parent.freed_bytes()
}

fn counting() -> Failing<PageLayer> {
    Failing::new(pages(), usize::MAX)
}

// Goal: page: requested + rounding = committed, in the books of the process, too. Method: random work.
#[test]
fn the_equation_holds_for_page() {
    let layer = pages();
    let committed = layer.pages().accounts().word(word::HEAP_COMMITTED);
    random_with(&layer, 11, STEPS, |live| {
        let usage = layer.usage();
        holds(usage, live, usage.committed);
        assert_eq!(usage.committed as u64, committed.load(Ordering::Relaxed));
        assert!(usage.committed.is_multiple_of(PAGE) && usage.rounding < 64 * PAGE);
    });
    assert_eq!(layer.usage().committed, 0);
}

// Goal: fixed: requested + retained + tail = the buffer, whatever is refused. Method: random work in too small a buffer.
#[test]
fn the_equation_holds_for_fixed() {
    const BYTES: usize = 200_000;
    let fixed = <Fixed<'_>>::new(buffer(BYTES));
    random_with(&fixed, 12, STEPS, |live| holds(fixed.usage(), live, BYTES));
    let shared = SharedFixed::new(buffer(BYTES));
    random_with(&shared, 13, STEPS, |live| {
        holds(shared.usage(), live, BYTES);
    });
}

// Goal: arena: requested + retained + tails + headers = what its parent gave. Method: random work, resets between.
#[test]
fn the_equation_holds_for_arena() {
    let mut arena = <Arena<_>>::new(counting());
    for (seed, mode) in [
        (14, Reset::RetainCapacity),
        (15, Reset::RetainWithLimit(1 << 16)),
        (16, Reset::FreeAll),
    ] {
        random_with(&arena, seed, STEPS, |live| {
            holds(arena.usage(), live, given(arena.parent()));
        });
        assert!(arena.reset(mode));
        holds(arena.usage(), 0, given(arena.parent()));
    }
    let shared = SharedArena::new(counting());
    random_with(&shared, 17, STEPS, |live| {
        holds(shared.usage(), live, given(shared.parent()));
    });
}

// Goal: debug: all six parts = what its parent gave. Method: random work, kept and forgotten books.
#[test]
fn the_equation_holds_for_debug() {
    let sink = Memory::leaked();
    for (seed, keep) in [(18, false), (19, true)] {
        let config = Config {
            never_unmap: keep,
            retain_metadata: keep,
            bucket_bytes: 16 * 1024,
            ..Config::new(sink)
        };
        let debug: DebugLayer<'_, _, NoMutex, 3> = DebugLayer::new(counting(), config);
        random_with(&debug, seed, STEPS, |live| {
            holds(debug.usage(), live, given(debug.parent()));
        });
        debug.flush_retained_metadata();
        holds(debug.usage(), 0, given(debug.parent()));
        assert_eq!(debug.usage().retained, 0);
    }
    assert_eq!(sink.findings(), []);
}

// Goal: smp: blocks + free slots + tails = slabs. Method: random work; large blocks are the parent's.
#[test]
fn the_equation_holds_for_smp() {
    let smp = Smp::<_, 2>::new(counting());
    random_with(&smp, 20, STEPS, |live| {
        let usage = smp.usage();
        assert_eq!(usage.parts(), usage.committed, "{usage:?}");
        let large = given(smp.parent()) - usage.committed;
        assert_eq!(usage.requested + large, live);
    });
}

/// What the heap holds by a walk over its page structs: bytes and slots of each class.
fn walk(spaces: &Spaces) -> [(usize, usize); CLASSES] {
    let mut found = [(0, 0); CLASSES];
    for space in spaces.iter() {
        for slice in 1..space.slices() {
            let Some(head) = space.head_at(slice) else {
                continue;
            };
            let mut slices = 1;
            let base = space.range().0;
            while let Some(page) = space.page_of(base + (slice as usize + slices) * SLICE_BYTES)
                && page.kind() == Kind::Interior
            {
                slices += 1;
            }
            let class = &mut found[head.class()];
            class.0 += slices * SLICE_BYTES;
            class.1 += if head.is_single() {
                head.usable()
            } else {
                head.carved()
            };
        }
    }
    found
}

fn word_at(accounts: &Accounts, index: usize) -> usize {
    usize::try_from(accounts.word(index).load(Ordering::Relaxed)).expect("bytes")
}

// Goal: gpa: the six parts = committed, after every step; committed is what the kernel has writable in the reserve, and each
// class's words are what its pages hold. Method: random work; the walk and the kernel's map now and then.
#[test]
fn the_equation_holds_for_gpa() {
    let accounts = accounts();
    let pages = Pages::new(accounts);
    let spaces: &'static Spaces = Box::leak(Box::new(Spaces::new(pages)));
    let layer = GpaLayer::open(spaces, pages, 1 << 30).expect("address space");
    let heap_struct = word_at(accounts, word::METADATA);
    let reserve = {
        let (base, span) = spaces.first().range();
        // Page structs and records lie in front of the slices.
        let (structs, _) = spaces.first().books();
        (structs, base - structs + span)
    };
    for seed in 21..24 {
        let mut step = 0;
        random_with(&layer, seed, 20_000, |live| {
            let usage = layer.usage();
            holds(usage, live, usage.committed);
            step += 1;
            if step % 400 != 0 {
                return;
            }
            let kernel = writable_bytes(reserve.0, reserve.1);
            assert_eq!(usage.committed, kernel + heap_struct, "as the kernel says");
            for (index, (bytes, slots)) in walk(spaces).into_iter().enumerate() {
                let at = word::CLASSES + index * CLASS_WORDS;
                assert_eq!(
                    word_at(accounts, at + class::PAGE_BYTES),
                    bytes,
                    "class {index}"
                );
                assert_eq!(
                    word_at(accounts, at + class::CAPACITY),
                    slots,
                    "class {index}"
                );
            }
        });
        layer.trim();
        let usage = layer.usage();
        assert!(usage.adds_up());
        assert_eq!(
            (usage.requested, usage.rounding, usage.free_slots),
            (0, 0, 0)
        );
    }
}
