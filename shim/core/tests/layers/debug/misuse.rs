//! Misuse: told with its traces, and survived where that can be.

use std::ptr::NonNull;
use std::sync::Barrier;
use std::thread;

use pageshim_core::heap::debug::{Config, DebugLayer, Ended, Finding, Report, Sink};
use pageshim_core::heap::layer::{Caller, Layer};
use pageshim_wire::process::Misuse;

use super::{LARGE, SMALL, debug, end, free_from, plain};
use crate::support::{byte, free, pages, poke, resize, shape, take};

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
