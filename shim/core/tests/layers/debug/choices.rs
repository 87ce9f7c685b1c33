//! What a configuration chooses: limits, books kept, buckets, the lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pageshim_core::heap::debug::{Config, DebugLayer, Ended, Finding};
use pageshim_core::heap::layer::{Layer, Mutex, NoMutex, Shape, SpinMutex};
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::stats::Stats;

use super::{Debug, LARGE, SMALL, config, debug, end, plain};
use crate::support::{HERE, Memory, PAGE, free, mapped_bytes, pages, remap, resize, take};

// Goal: the limit counts what was asked for, before the parent is. Method: to the byte, large blocks, growth.
#[test]
fn d8_the_memory_limit_counts_requested_bytes() {
    let sink = Memory::leaked();
    let limited = Config {
        memory_limit: Some(1010),
        ..config(sink)
    };
    let debug: Debug<Stats<PageLayer>> = DebugLayer::new(Stats::new(pages()), limited);
    let small = take(&debug, Shape::bytes(4));
    let big = take(&debug, Shape::bytes(1000));
    assert_eq!(debug.requested_bytes(), 1004);
    let before = debug.parent().counts();
    assert!(debug.allocate(Shape::bytes(7), HERE).is_none());
    assert!(!resize(&debug, small, Shape::bytes(4), 11));
    assert_eq!(debug.parent().counts(), before, "the parent was not asked");
    let last = take(&debug, Shape::bytes(6));
    assert_eq!(debug.requested_bytes(), 1010);
    free(&debug, big, Shape::bytes(1000));
    debug.set_memory_limit(Some(200_000));
    // Large blocks count what was asked for, not their pages.
    let large = take(&debug, Shape::bytes(131_073));
    assert_eq!(debug.requested_bytes(), 131_073 + 10);
    assert!(remap(&debug, large, Shape::bytes(131_073), 199_991).is_none());
    let large = remap(&debug, large, Shape::bytes(131_073), 199_990).expect("the limit");
    free(&debug, large, Shape::bytes(199_990));
    free(&debug, small, Shape::bytes(4));
    free(&debug, last, Shape::bytes(6));
    assert_eq!((debug.requested_bytes(), sink.findings()), (0, vec![]));
}

// Goal: no address returns. Method: many rounds; every address is new and every page stays mapped.
#[test]
fn d9_never_unmap_keeps_pages_and_reuses_none() {
    let (debug, _) = debug(|config| config.never_unmap = true);
    let mut seen = std::collections::HashSet::new();
    for shape in [SMALL, LARGE] {
        for _ in 0..50 {
            let block = take(&debug, shape);
            assert!(seen.insert(block.addr().get()), "an address came back");
            free(&debug, block, shape);
            assert_eq!(mapped_bytes(block.addr().get() & !(PAGE - 1), PAGE), PAGE);
        }
    }
    assert_eq!(debug.requested_bytes(), 0);
    assert!(debug.usage().retained >= 50 * LARGE.requested);
}

// Goal: books outlive the free until told otherwise. Method: double frees before and after the flush.
#[test]
fn d10_retained_metadata_lasts_until_it_is_flushed() {
    let (debug, sink) = debug(|config| {
        config.retain_metadata = true;
        config.never_unmap = true;
    });
    let (small, large) = (take(&debug, SMALL), take(&debug, LARGE));
    for (block, shape) in [(small, SMALL), (large, LARGE)] {
        free(&debug, block, shape);
        free(&debug, block, shape);
    }
    assert_eq!(sink.findings(), [Finding::DoubleFree; 2]);
    let before = debug.usage();
    assert!(before.adds_up() && before.retained > LARGE.requested);
    debug.flush_retained_metadata();
    let after = debug.usage();
    assert!(after.adds_up() && after.retained == 0, "{after:?}");
    for (block, shape) in [(small, SMALL), (large, LARGE)] {
        free(&debug, block, shape);
    }
    assert_eq!(sink.findings(), [Finding::InvalidFree; 2], "forgotten");
}

// Goal: a line for each call, with size and address. Method: the findings and a text.
#[test]
fn d11_verbose_says_every_call() {
    let (debug, sink) = debug(|config| config.verbose = true);
    let block = take(&debug, SMALL);
    assert!(resize(&debug, block, SMALL, 80));
    assert!(
        !resize(&debug, block, SMALL.resized(80), 5000),
        "said only when done"
    );
    free(&debug, block, SMALL.resized(80));
    let heard = sink.heard();
    let findings: Vec<_> = heard.iter().map(|said| said.finding).collect();
    assert_eq!(
        findings,
        [Finding::Allocated, Finding::Resized, Finding::Freed]
    );
    let line = format!("allocated {:#x}, 100 bytes", block.addr().get());
    assert!(heard[0].text.starts_with(&line), "{}", heard[0].text);
    assert!(
        heard[1].text.contains("100 to 80 bytes"),
        "{}",
        heard[1].text
    );
    assert_eq!(
        findings
            .iter()
            .filter_map(|finding| finding.misuse())
            .count(),
        0
    );
}

// Goal: any power of two serves as bucket. Method: 1 KiB to 1 MiB with objects around each; others are refused.
#[test]
fn d15_the_bucket_size_is_a_choice() {
    for log2 in 10..=20 {
        let (debug, sink) = debug(|config| config.bucket_bytes = 1 << log2);
        let sizes = [1, 40, 200, 1024, 2048, 4096, 1 << log2];
        let blocks = sizes.map(|size| (take(&debug, Shape::bytes(size)), Shape::bytes(size)));
        assert!(debug.usage().adds_up());
        for (block, shape) in blocks {
            free(&debug, block, shape);
        }
        assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
    }
    let odd = std::panic::catch_unwind(|| debug(|config| config.bucket_bytes = 3000).1);
    assert!(odd.is_err());
}

// Goal: the lock is the caller's choice. Method: a mutex that counts; none at all; the spin lock from many threads.
#[test]
fn d16_the_mutex_is_a_choice() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    #[derive(Debug)]
    struct Counting(SpinMutex);
    // SAFETY: SpinMutex is one.
    unsafe impl Mutex for Counting {
        const OPEN: Self = Self(SpinMutex::OPEN);
        fn acquire(&self) {
            TAKEN.fetch_add(1, Ordering::Relaxed);
            self.0.acquire();
        }
        unsafe fn release(&self) {
            // SAFETY: the caller's duty.
            unsafe { self.0.release() };
        }
    }
    let sink = Memory::leaked();
    let counted: DebugLayer<'_, _, Counting, 1> = DebugLayer::new(pages(), config(sink));
    let block = take(&counted, SMALL);
    free(&counted, block, SMALL);
    assert_eq!(TAKEN.load(Ordering::Relaxed), 2, "once a call");
    let bare: DebugLayer<'_, _, NoMutex, 1> = DebugLayer::new(pages(), config(sink));
    let block = take(&bare, SMALL);
    free(&bare, block, SMALL);
    let (shared, sink) = plain();
    thread::scope(|scope| {
        for seed in 1..=4 {
            let shared = &shared;
            scope.spawn(move || pageshim_core::heap::conformance::random(shared, seed, 300));
        }
    });
    assert_eq!((end(shared), sink.findings()), (Ended::Clean, vec![]));
}
