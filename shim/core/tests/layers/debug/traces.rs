//! Leaks, and the traces that tell of them.

use pageshim_core::heap::debug::{DebugLayer, Ended, Finding};
use pageshim_core::heap::layer::{Caller, Layer, NoMutex};
use pageshim_core::heap::page::PageLayer;

use super::{LARGE, SMALL, config, debug, end, plain};
use crate::support::{Memory, free, pages, take};

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
