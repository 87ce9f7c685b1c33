//! The debug layer, D1 to D26.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pageshim_core::heap::debug::{Config, DebugLayer, Ended, FILL_FRESH, Finding, Report, Sink};
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Caller, Front, Layer, Mutex, NoMutex, Shape, SpinMutex};
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::stats::Stats;
use pageshim_wire::process::Misuse;

use crate::support::{
    HERE, Memory, PAGE, buffer, byte, free, mapped_bytes, pages, poke, remap, resize, shape, take,
};

/// A trace of three made of the caller's address.
fn three(caller: Caller, frames: &mut [usize]) -> usize {
    for (step, frame) in frames.iter_mut().take(3).enumerate() {
        *frame = caller.address() + step;
    }
    frames.len().min(3)
}

fn config(sink: &'static Memory) -> Config<'static> {
    Config {
        capture: three,
        ..Config::new(sink)
    }
}

type Debug<P = PageLayer> = DebugLayer<'static, P, SpinMutex, 4>;

fn debug(change: impl FnOnce(&mut Config<'static>)) -> (Debug, &'static Memory) {
    let sink = Memory::leaked();
    let mut config = config(sink);
    change(&mut config);
    (DebugLayer::new(pages(), config), sink)
}

fn plain() -> (Debug, &'static Memory) {
    debug(|_| ())
}

fn end(debug: Debug) -> Ended {
    // SAFETY: tests touch no block afterwards.
    unsafe { debug.deinit() }
}

fn free_from(layer: &impl Layer, block: NonNull<u8>, shape: Shape, caller: usize) {
    // SAFETY: the debug layer checks what it is given.
    unsafe { layer.free(block, shape, Caller::at(caller)) };
}

const SMALL: Shape = Shape::bytes(100);
const LARGE: Shape = Shape::bytes(100_000);

// Goal: each leak is counted and told with size and trace. Method: two of four blocks stay, small and large.
#[test]
fn d1_leaks_are_counted_and_told_with_their_traces() {
    let (debug, sink) = plain();
    let kept = debug.allocate(SMALL, Caller::at(0x10)).expect("memory");
    let large = debug.allocate(LARGE, Caller::at(0x20)).expect("memory");
    for shape in [SMALL, LARGE] {
        let block = take(&debug, shape);
        free(&debug, block, shape);
    }
    assert_eq!(end(debug), Ended::Leaked(2));
    let heard = sink.heard();
    let told: Vec<_> = heard
        .iter()
        .map(|said| {
            (
                said.finding,
                said.block,
                said.held,
                said.traces[0].as_slice(),
            )
        })
        .collect();
    let leak = Finding::Leak;
    assert_eq!(
        told[0],
        (leak, kept.addr().get(), SMALL, &[0x10, 0x11, 0x12][..])
    );
    assert_eq!(
        told[1],
        (leak, large.addr().get(), LARGE, &[0x20, 0x21, 0x22][..])
    );
    assert!(
        heard[0].text.contains("100 bytes was never freed"),
        "{}",
        heard[0].text
    );
    let (clean, sink) = plain();
    let block = take(&clean, SMALL);
    free(&clean, block, SMALL);
    assert_eq!((end(clean), sink.heard().len()), (Ended::Clean, 0));
}

// Goal: a second free of a small block is told with three traces and survived. Method: literal callers; work goes on.
#[test]
fn d2_a_small_double_free_is_told_with_three_traces_and_survived() {
    let (debug, sink) = plain();
    let other = take(&debug, SMALL);
    let block = debug.allocate(SMALL, Caller::at(0x10)).expect("memory");
    free_from(&debug, block, SMALL, 0x20);
    free_from(&debug, block, SMALL, 0x30);
    let heard = sink.heard();
    assert_eq!(heard.len(), 1);
    let said = &heard[0];
    assert_eq!((said.finding, said.stopped), (Finding::DoubleFree, false));
    assert_eq!(
        said.traces,
        [
            vec![0x10, 0x11, 0x12],
            vec![0x20, 0x21, 0x22],
            vec![0x30, 0x31, 0x32]
        ]
    );
    assert_eq!(said.finding.misuse(), Some(Misuse::DoubleFree));
    assert!(!resize(&debug, block, SMALL, 90), "nor does a resize");
    assert_eq!(sink.findings(), [Finding::DoubleFree]);
    free(&debug, other, SMALL);
    assert_eq!(end(debug), Ended::Clean);
}

// Goal: of a large block only with its books kept. Method: both configurations.
#[test]
fn d3_a_large_double_free_shows_when_metadata_is_retained() {
    let (keeping, sink) = debug(|config| config.retain_metadata = true);
    let block = take(&keeping, LARGE);
    free_from(&keeping, block, LARGE, 0x20);
    free_from(&keeping, block, LARGE, 0x30);
    let said = sink.heard().remove(0);
    assert_eq!(
        (said.finding, said.traces[1].len()),
        (Finding::DoubleFree, 3)
    );
    let (forgetful, sink) = plain();
    let block = take(&forgetful, LARGE);
    free(&forgetful, block, LARGE);
    free(&forgetful, block, LARGE);
    assert_eq!(sink.findings(), [Finding::InvalidFree]);
}

// Goal: an address that is not ours never is followed. Method: wild, interior, unaligned, past the slots taken, stack.
#[test]
fn d4_an_invalid_free_stops_and_touches_nothing() {
    let (debug, sink) = plain();
    let block = take(&debug, SMALL);
    let large = take(&debug, LARGE);
    let mut local = [0u8; 64];
    let at = |from: NonNull<u8>, by: usize| from.map_addr(|a| a.checked_add(by).expect("room"));
    let wild = [
        NonNull::new(std::ptr::without_provenance_mut(0xdead_0000_1000)).expect("not null"),
        NonNull::from(&mut local).cast(),
        at(block, 1),
        at(block, 128),
        at(large, 16),
        at(block, 128 * 1024 - 8),
    ];
    for pointer in wild {
        free(&debug, pointer, SMALL);
        let said = sink.heard().remove(0);
        assert_eq!((said.finding, said.stopped), (Finding::InvalidFree, true));
        assert_eq!(said.block, pointer.addr().get());
    }
    assert_eq!((byte(block, 99), debug.requested_bytes()), (0x5A, 100_100));
    free(&debug, block, SMALL);
    free(&debug, large, LARGE);
    assert_eq!(end(debug), Ended::Clean);
}

// Goal: the default sink stops there as Zig does: it panics. Method: a sink that only reports.
#[test]
#[should_panic(expected = "no block of this layer begins at")]
fn d4_an_invalid_free_panics_where_the_sink_does_not_say_otherwise() {
    struct Default;
    impl Sink for Default {
        fn report(&self, _: &Report<'_>) {}
    }
    let debug = <DebugLayer<'_, _>>::new(pages(), Config::new(&Default));
    free(&debug, NonNull::dangling(), SMALL);
}

// Goal: a wrong size is told and the block freed as what it is. Method: small and large, free and resize.
#[test]
fn d5_a_size_mismatch_is_told_and_survived() {
    let (debug, sink) = plain();
    for held in [SMALL, LARGE] {
        let block = take(&debug, held);
        let given = held.resized(held.requested - 1);
        assert!(resize(&debug, block, given, held.requested));
        free(&debug, block, given);
        let heard = sink.heard();
        assert_eq!(heard.len(), 2);
        for said in heard {
            assert_eq!(
                (said.finding, said.held, said.given),
                (Finding::SizeMismatch, held, given)
            );
        }
    }
    assert_eq!(debug.requested_bytes(), 0);
    assert_eq!(end(debug), Ended::Clean);
}

// Goal: a wrong alignment likewise. Method: small and large.
#[test]
fn d6_an_alignment_mismatch_is_told_and_survived() {
    let (debug, sink) = plain();
    for requested in [100, 100_000] {
        let block = take(&debug, shape(requested, 64));
        free(&debug, block, shape(requested, 32));
        let said = sink.heard().remove(0);
        assert_eq!(said.finding, Finding::AlignmentMismatch);
        assert!(
            said.text
                .contains("aligned to 64 was given back as aligned to 32"),
            "{}",
            said.text
        );
    }
    assert_eq!(end(debug), Ended::Clean);
}

// Goal: traces take what they are told, nothing for none. Method: books per slot, length of a trace.
#[test]
fn d7_frames_decide_the_books_of_a_slot() {
    const NONE: usize = DebugLayer::<'static, PageLayer, NoMutex, 0>::SLOT_BOOKS_BYTES;
    const EIGHT: usize = DebugLayer::<'static, PageLayer, NoMutex, 8>::SLOT_BOOKS_BYTES;
    assert_eq!((NONE, EIGHT), (16, 16 + 2 * 8 * 8));
    let sink = Memory::leaked();
    let bare = DebugLayer::<'_, _, NoMutex, 0>::new(pages(), config(sink));
    let deep = DebugLayer::<'_, _, NoMutex, 2>::new(pages(), config(sink));
    let (one, two) = (take(&bare, SMALL), take(&deep, SMALL));
    assert_eq!((bare.detect_leaks(), deep.detect_leaks()), (1, 1));
    let lengths: Vec<_> = sink
        .heard()
        .iter()
        .map(|said| said.traces[0].len())
        .collect();
    assert_eq!(lengths, [0, 2]);
    free(&bare, one, SMALL);
    free(&deep, two, SMALL);
}

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

// Goal: a parent whose memory is not zero serves as well. Method: a buffer full of 0xFF; books hold and leaks are right.
#[test]
fn d12_a_parent_that_does_not_zero_is_written_over() {
    let sink = Memory::leaked();
    let config = Config {
        parent_zeroes: false,
        bucket_bytes: 4096,
        ..config(sink)
    };
    let parent = Fixed::<Cell<usize>>::new(buffer(256 * 1024));
    let debug: DebugLayer<'_, _, NoMutex, 1> = DebugLayer::new(parent, config);
    let blocks: Vec<_> = (0..100).map(|_| take(&debug, SMALL)).collect();
    assert_eq!(debug.detect_leaks(), 100);
    blocks
        .into_iter()
        .for_each(|block| free(&debug, block, SMALL));
    assert_eq!(sink.heard().len(), 100);
    assert_eq!((debug.detect_leaks(), debug.usage().adds_up()), (0, true));
}

// Goal: after a resize the trace is the resize's, if asked. Method: both, small and large.
#[test]
fn d13_resize_traces_replace_the_allocation_trace() {
    for (replace, expected) in [(true, 0x77), (false, 0x10)] {
        let (debug, sink) = debug(|config| config.resize_traces = replace);
        for (held, to) in [(SMALL, 90), (LARGE, 101_000)] {
            let block = debug.allocate(held, Caller::at(0x10)).expect("memory");
            // SAFETY: live with this shape.
            let moved = unsafe { debug.remap(block, held, to, Caller::at(0x77)) };
            debug.detect_leaks();
            assert_eq!(sink.heard()[0].traces[0][0], expected);
            free(&debug, moved.expect("resized"), held.resized(to));
        }
    }
}

// Goal: instances keep apart, and broken canaries show. Method: a free through another instance; a bucket's header
// overwritten; a byte behind a block.
#[test]
fn d14_canaries_tell_instances_and_overwrites_apart() {
    let (one, sink) = plain();
    let (other, elsewhere) = debug(|config| config.canary = 0x55);
    for held in [SMALL, LARGE] {
        let block = take(&one, held);
        free(&other, block, held);
        let said = elsewhere.heard().remove(0);
        assert_eq!((said.finding, said.stopped), (Finding::InvalidFree, true));
        poke(block, held.requested, 0);
        assert_eq!(one.check_memory(), 1, "found before the free, too");
        free(&one, block, held);
        for said in sink.heard() {
            assert_eq!(
                (said.finding, said.offset),
                (Finding::Overflow, held.requested)
            );
        }
    }
    let block = take(&one, SMALL);
    let header = (block.addr().get() | (128 * 1024 - 1)) + 1 - 32;
    let canary = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(header));
    let canary = canary.expect("not null");
    let was = byte(canary, 0);
    poke(canary, 0, !was);
    free(&one, block, SMALL);
    let said = sink.heard().remove(0);
    assert_eq!(
        (said.finding, said.stopped),
        (Finding::BooksOverwritten, true)
    );
    poke(canary, 0, was);
    free(&one, block, SMALL);
    assert_eq!((end(one), sink.findings()), (Ended::Clean, vec![]));
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

// Goal: a slot is used once while its bucket lives. Method: free and take with one block held.
#[test]
fn d17_a_freed_slot_is_not_handed_out_again() {
    let (debug, _) = plain();
    let anchor = take(&debug, SMALL);
    let mut seen = std::collections::HashSet::from([anchor]);
    for _ in 0..300 {
        let block = take(&debug, SMALL);
        assert!(seen.insert(block), "{block:?} came back");
        free(&debug, block, SMALL);
    }
    free(&debug, anchor, SMALL);
}

// Goal: a bucket without live blocks goes back. Method: the parent's counts; the last free decides.
#[test]
fn d18_a_bucket_goes_back_when_all_its_slots_are_free() {
    let debug: Debug<Stats<PageLayer>> =
        DebugLayer::new(Stats::new(pages()), config(Memory::leaked()));
    let blocks: Vec<_> = (0..10).map(|_| take(&debug, SMALL)).collect();
    let (last, others) = blocks.split_last().expect("ten");
    others.iter().for_each(|block| free(&debug, *block, SMALL));
    let held = debug.parent().counts().live_blocks();
    free(&debug, *last, SMALL);
    assert_eq!(debug.parent().counts().live_blocks(), held - 1);
    // The table of buckets is all that is left.
    assert_eq!(debug.usage().committed, debug.usage().metadata);
    // SAFETY: no block is left.
    unsafe { debug.deinit() };
}

fn reallocate(debug: &Debug, block: NonNull<u8>, from: Shape, to: usize) -> NonNull<u8> {
    // SAFETY: live with this shape.
    unsafe { Front(debug).reallocate(block, from, to) }.expect("memory")
}

// Goal: small to large copies into another kind of block. Method: content and who serves.
#[test]
fn d19_a_small_block_grows_into_a_large_one() {
    let (debug, sink) = plain();
    let block = take(&debug, SMALL);
    assert!(!resize(&debug, block, SMALL, LARGE.requested));
    assert!(!resize(&debug, block, SMALL, 300), "nor into a larger slot");
    assert!(resize(&debug, block, SMALL, 70) && resize(&debug, block, SMALL.resized(70), 100));
    let moved = reallocate(&debug, block, SMALL, LARGE.requested);
    assert_eq!(
        (byte(moved, 0), byte(moved, 69), byte(moved, 100)),
        (0x5A, 0x5A, FILL_FRESH)
    );
    free(&debug, moved, LARGE);
    assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: large to small never happens in place. Method: resize and remap say no, reallocation copies.
#[test]
fn d20_a_large_block_refuses_to_shrink_into_a_small_one() {
    let (debug, sink) = plain();
    let block = take(&debug, LARGE);
    assert!(!resize(&debug, block, LARGE, 100));
    assert!(remap(&debug, block, LARGE, 100).is_none());
    assert!(resize(&debug, block, LARGE, 60_000));
    let moved = reallocate(&debug, block, LARGE.resized(60_000), 19);
    assert_ne!(moved, block);
    assert_eq!(byte(moved, 18), 0x5A);
    free(&debug, moved, Shape::bytes(19));
    assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: another alignment keeps the data. Method: growing and shrinking large blocks to larger alignments.
#[test]
fn d21_a_larger_alignment_keeps_the_data() {
    let (debug, sink) = plain();
    for (from, to) in [(131_089, 131_089 + 10), (131_089 * 2, 131_089), (40, 80)] {
        for align in [32, 4096, 64 * 1024] {
            let (held, wanted) = (shape(from, 16), shape(to, align));
            let block = take(&debug, held);
            poke(block, 0, 0x12);
            poke(block, 16, 0x34);
            // SAFETY: live with this shape.
            let moved = unsafe { Front(&debug).reshape(block, held, wanted, HERE) };
            let moved = moved.expect("memory");
            assert!(wanted.align.fits(moved.addr().get()));
            assert_eq!((byte(moved, 0), byte(moved, 16)), (0x12, 0x34));
            free(&debug, moved, wanted);
        }
    }
    assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: impossible sizes are an error, not a crash. Method: the largest numbers, alone and as growth.
#[test]
fn d22_very_large_requests_are_refused() {
    let (debug, _) = plain();
    for requested in [
        usize::MAX,
        usize::MAX - 8,
        isize::MAX.cast_unsigned(),
        1 << 60,
    ] {
        assert!(debug.allocate(Shape::bytes(requested), HERE).is_none());
    }
    for held in [SMALL, LARGE] {
        let block = take(&debug, held);
        assert!(!resize(&debug, block, held, usize::MAX));
        assert!(remap(&debug, block, held, 1 << 60).is_none());
        free(&debug, block, held);
    }
    assert!(debug.usage().adds_up());
    assert_eq!(end(debug), Ended::Clean);
}

// Goal: the order of frees does not matter. Method: same, reverse and shuffled, sizes of several classes.
#[test]
fn d23_frees_in_any_order_leave_nothing() {
    for order in 0..3 {
        let (debug, sink) = plain();
        let shape = |number: usize| Shape::bytes(1 + number * 13 % 500);
        let mut blocks: Vec<_> = (0..513)
            .map(|n| (take(&debug, shape(n)), shape(n)))
            .collect();
        match order {
            0 => {}
            1 => blocks.reverse(),
            _ => blocks.sort_by_key(|(block, _)| block.addr().get().wrapping_mul(0x9e37_79b9)),
        }
        for (block, shape) in blocks {
            free(&debug, block, shape);
        }
        assert_eq!((end(debug), sink.findings()), (Ended::Clean, vec![]));
    }
}

// Goal: of two frees at once exactly one succeeds and the other is told. Method: pairs of threads race for each block.
#[test]
fn d24_racing_frees_are_told_and_only_one_succeeds() {
    const ROUNDS: usize = 200;
    let (debug, sink) = debug(|config| config.retain_metadata = true);
    let anchor = take(&debug, SMALL);
    let blocks: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let shape = if round % 2 == 0 { SMALL } else { LARGE };
            (take(&debug, shape).as_ptr().expose_provenance(), shape)
        })
        .collect();
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (address, shape) in &blocks {
                    let block = std::ptr::with_exposed_provenance_mut(*address);
                    start.wait();
                    free(&debug, NonNull::new(block).expect("not null"), *shape);
                }
            });
        }
    });
    assert_eq!(sink.findings(), [Finding::DoubleFree; ROUNDS]);
    assert_eq!(debug.requested_bytes(), 100);
    free(&debug, anchor, SMALL);
}

// Goal: a write to a freed block shows, at the latest when its bucket goes. Method: writes before both moments; without
// the check nothing is said.
#[test]
fn d25_a_write_after_free_shows() {
    let (debug, sink) = plain();
    let anchor = take(&debug, SMALL);
    let block = debug.allocate(SMALL, Caller::at(0x10)).expect("memory");
    free_from(&debug, block, SMALL, 0x20);
    poke(block, 42, 1);
    assert_eq!(debug.check_memory(), 1);
    let said = sink.heard().remove(0);
    assert_eq!(
        (said.finding, said.offset, said.block),
        (Finding::WriteAfterFree, 42, block.addr().get())
    );
    assert_eq!((said.traces[0][0], said.traces[1][0]), (0x10, 0x20));
    assert_eq!(debug.check_memory(), 0, "told once");
    poke(block, 99, 7);
    free(&debug, anchor, SMALL);
    let said = sink.heard().remove(0);
    assert_eq!((said.finding, said.offset), (Finding::WriteAfterFree, 99));
    let (careless, sink) = self::debug(|config| config.check_write_after_free = false);
    let (anchor, block) = (take(&careless, SMALL), take(&careless, SMALL));
    free(&careless, block, SMALL);
    poke(block, 42, 1);
    free(&careless, anchor, SMALL);
    assert_eq!((end(careless), sink.findings()), (Ended::Clean, vec![]));
}

// Goal: leaks can be asked for at any time, and the end need not ask. Method: counts before, between and none at the end.
#[test]
fn d26_leaks_are_asked_for_at_any_time_or_never() {
    let (debug, sink) = plain();
    assert_eq!(debug.detect_leaks(), 0);
    let block = take(&debug, SMALL);
    take(&debug, LARGE);
    assert_eq!(debug.detect_leaks(), 2);
    free(&debug, block, SMALL);
    assert_eq!(debug.detect_leaks(), 1);
    assert_eq!(sink.findings(), [Finding::Leak; 3]);
    // SAFETY: the leaked block is not touched again.
    unsafe { debug.deinit_without_leak_checks() };
    assert_eq!(sink.findings(), []);
    let parent = pages();
    let lent: DebugLayer<'_, _, NoMutex, 1> = DebugLayer::new(&parent, config(sink));
    take(&lent, LARGE);
    take(&lent, SMALL);
    drop(lent);
    assert_eq!(
        parent.usage().committed,
        0,
        "all memory went back, leaked blocks included"
    );
}
