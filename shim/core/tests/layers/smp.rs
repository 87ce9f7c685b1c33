//! Free lists per slot, S1 to S3.

use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pageshim_core::heap::layer::{Caller, Layer, Shape};
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::smp::{SLAB_BYTES, Smp};
use pageshim_core::heap::stats::Stats;

use crate::support::{HERE, free, pages, remap, resize, shape, take};

/// A parent that waits, while a slab is made, until somebody opens the gate.
struct Gated {
    pages: PageLayer,
    gate: std::sync::Mutex<Option<mpsc::Receiver<()>>>,
    entered: mpsc::Sender<()>,
}

// SAFETY: forwards to a layer.
unsafe impl Layer for Gated {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        let gate = self.gate.lock().expect("open").take();
        if let Some(gate) = gate {
            self.entered.send(()).expect("a listener");
            gate.recv().expect("an opener");
        }
        self.pages.allocate(shape, caller)
    }
    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        // SAFETY: the caller's duty.
        unsafe { self.pages.free(block, shape, caller) };
    }
}

// Goal: nobody waits while another slot is open. Method: one thread is held inside its slot by the parent; another that
// prefers the same slot is served all the same.
#[test]
fn s1_a_taken_slot_is_passed_by() {
    let (open, gate) = mpsc::channel();
    let (entered, inside) = mpsc::channel();
    let gated = Gated {
        pages: pages(),
        gate: std::sync::Mutex::new(Some(gate)),
        entered,
    };
    // All threads prefer slot 0, and look at slot 1 before a slab is made.
    let smp = Smp::<_, 4>::with_preference(gated, || 0);
    thread::scope(|scope| {
        let smp = &smp;
        let held = scope.spawn(move || smp.allocate(shape(100, 1), HERE).is_some());
        inside
            .recv_timeout(Duration::from_secs(20))
            .expect("the first is in its slot");
        let (served, answer) = mpsc::channel();
        scope.spawn(move || {
            let block = smp.allocate(shape(100, 1), HERE).expect("memory");
            free(smp, block, shape(100, 1));
            served.send(()).expect("a listener");
        });
        let waited = answer.recv_timeout(Duration::from_secs(20));
        open.send(()).expect("the gate");
        assert!(
            waited.is_ok(),
            "the second was served while the first held a slot"
        );
        assert!(held.join().expect("the first"));
    });
}

// Goal: a block belongs to nobody: whoever frees it has it next. Method: one thread takes, another frees and takes.
#[test]
fn s2_a_remote_free_goes_to_the_list_of_who_frees() {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    std::thread_local! {
        static MINE: usize = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    let smp = Smp::<_, 8>::with_preference(Stats::new(pages()), || MINE.with(|mine| *mine));
    let one = shape(100, 1);
    let address = |block: NonNull<u8>| block.as_ptr().expose_provenance();
    let blocks: Vec<_> = (0..50).map(|_| address(take(&smp, one))).collect();
    thread::scope(|scope| {
        let smp = &smp;
        let blocks = &blocks;
        scope.spawn(move || {
            for block in blocks {
                let block = std::ptr::with_exposed_provenance_mut(*block);
                free(smp, NonNull::new(block).expect("not null"), one);
            }
            // Last in, first out, from this thread's own list.
            for expected in blocks.iter().rev() {
                assert_eq!(take(smp, one).addr().get(), *expected);
            }
        });
    });
    assert_eq!(smp.slabs(), 1, "the other thread needed no slab");
    assert!(smp.usage().adds_up(), "{:?}", smp.usage());
}

// Goal: large blocks are the parent's, without books. Method: half a slab and one byte more; resizes stay on their side.
#[test]
fn s3_large_blocks_go_to_the_parent() {
    let smp = Smp::<_, 4>::new(Stats::new(pages()));
    let half = shape(SLAB_BYTES / 2, 1);
    let small = take(&smp, half);
    assert_eq!(smp.parent().counts().allocations, 1, "a slab");
    let large = shape(SLAB_BYTES / 2 + 1, 1);
    let block = take(&smp, large);
    let counts = smp.parent().counts();
    assert_eq!(
        (counts.allocations, smp.slabs()),
        (2, 1),
        "exactly the block"
    );
    assert_eq!(counts.live_bytes(), (SLAB_BYTES + large.requested) as u64);
    assert!(!resize(&smp, block, large, 10), "never large to small");
    assert!(!resize(&smp, small, half, large.requested), "nor back");
    assert!(
        resize(&smp, small, half, SLAB_BYTES / 2 - 1),
        "within the class"
    );
    let moved = remap(&smp, block, large, 10 * SLAB_BYTES).expect("the parent's mremap");
    free(&smp, moved, shape(10 * SLAB_BYTES, 1));
    free(&smp, small, shape(SLAB_BYTES / 2 - 1, 1));
    assert_eq!(smp.parent().counts().live_blocks(), 1, "the slab stays");
    let wide = shape(8, SLAB_BYTES);
    let block = take(&smp, wide);
    free(&smp, block, wide);
}

// Goal: many threads, blocks crossing between them, books that add up. Method: a ring of senders.
#[test]
fn s2_blocks_cross_threads_and_stay_whole() {
    let smp = Smp::<_, 3>::new(pages());
    thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..4)
            .map(|_| mpsc::channel::<(usize, Shape, u8)>())
            .unzip();
        for (number, receiver) in (0..4u8).zip(receivers) {
            let next = senders[(usize::from(number) + 1) % 4].clone();
            let smp = &smp;
            scope.spawn(move || {
                for step in 0..1_000 {
                    let held = Shape::bytes(1 + step % 300);
                    let block = smp.allocate(held, HERE).expect("memory");
                    // SAFETY: a live block of this size.
                    unsafe { block.write_bytes(number, held.requested) };
                    let _ = next.send((block.as_ptr().expose_provenance(), held, number));
                }
                drop(next);
                for (address, held, number) in receiver {
                    let block = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(address));
                    let block = block.expect("not null");
                    for offset in 0..held.requested {
                        assert_eq!(crate::support::byte(block, offset), number);
                    }
                    free(smp, block, held);
                }
            });
        }
        drop(senders);
    });
    let usage = smp.usage();
    assert!(usage.adds_up(), "{usage:?}");
    assert_eq!((usage.requested, usage.rounding), (0, 0));
}
