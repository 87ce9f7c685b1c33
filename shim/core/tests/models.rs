//! What threads do to one another's pages, in every order that memory allows.
//!
//! # Design
//! The heap's own functions walk lists in real memory, which a model checker cannot
//! follow, so the protocol is taken out of them, word for word where it has atomics:
//! ```text
//! Model::free_remote   Heap::give_remote   NOTIFY cleared by whoever frees first
//! Model::hand_over     Heap::hand_over     list, fence, look at owner and state
//! Model::drain         Heap::drain_delayed_of
//! Model::collect       Page::collect_remote
//! Model::retire_full   Heap::retire_full   ask to be told, or find a free already
//! Model::unfull        Heap::unfull
//! Model::park          Heap::park          Idle, fence, look at the list again
//! Model::absorb        Heap::absorb        name the heir, fence, take the list
//! ```
//! One page of two slots, three heaps, two threads. A list is a set of slots in a word: bits 1 and
//! up are blocks, bit 0 of `remote` is NOTIFY. A page's place (queue or full list)
//! and its free slots are cells of the owner, so loom also reports two owners.
//!
//! # Invariants checked at the end of every execution
//! M1. No block is on a list of a heap that does not own its page, or that nobody runs.
//! M2. After the last owner took everything in, both slots are free, once.
use loom::cell::Cell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicUsize, fence};

const NOTIFY: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 4;
const BOTH: usize = FIRST | SECOND;
const RUNNING: usize = 1;
const IDLE: usize = 2;

#[derive(Default)]
struct Heap {
    delayed: AtomicUsize,
    state: AtomicUsize,
    has_page: Cell<bool>,
}

struct Model {
    remote: AtomicUsize,
    owner: AtomicUsize,
    free: Cell<usize>,
    full: Cell<bool>,
    heaps: [Heap; 3],
}

impl Model {
    /// Heap 0 owns the page, both of whose slots are live; the others run beside it.
    fn new() -> Arc<Self> {
        let model = Self {
            remote: AtomicUsize::new(0),
            owner: AtomicUsize::new(0),
            free: Cell::new(0),
            full: Cell::new(false),
            heaps: [Heap::default(), Heap::default(), Heap::default()],
        };
        model.heaps[0].has_page.set(true);
        for heap in &model.heaps {
            heap.state.store(RUNNING, Relaxed);
        }
        Arc::new(model)
    }

    fn push(&self, blocks: usize) {
        assert_eq!(self.free.get() & blocks, 0, "M2: freed once");
        self.free.set(self.free.get() | blocks);
    }

    fn free_remote(&self, me: usize, block: usize) {
        let mut old = self.remote.load(Relaxed);
        loop {
            let new = if old & NOTIFY != 0 { 0 } else { old | block };
            match self.remote.compare_exchange(old, new, AcqRel, Relaxed) {
                Ok(_) if old & NOTIFY != 0 => break,
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
        self.hand_over(me, block);
    }

    fn hand_over(&self, me: usize, block: usize) {
        let owner = self.owner.load(Relaxed);
        self.heaps[owner].delayed.fetch_or(block, Release);
        fence(SeqCst);
        if self.owner.load(Relaxed) != owner {
            self.drain(me, owner);
        } else if self.heaps[owner].state.load(Acquire) == IDLE {
            self.absorb(me, owner);
        }
    }

    fn drain(&self, me: usize, from: usize) {
        if self.heaps[from].delayed.load(Relaxed) == 0 {
            return;
        }
        let list = self.heaps[from].delayed.swap(0, Acquire);
        for block in [FIRST, SECOND] {
            if list & block == 0 {
                continue;
            }
            if self.owner.load(Relaxed) == me {
                self.push(block);
                if self.full.get() {
                    self.unfull();
                }
            } else {
                self.hand_over(me, block);
            }
        }
    }

    fn collect(&self) {
        if self.remote.load(Relaxed) & !NOTIFY != 0 {
            self.push(self.remote.swap(0, Acquire) & !NOTIFY);
        }
    }

    fn retire_full(&self) {
        if self
            .remote
            .compare_exchange(0, NOTIFY, AcqRel, Relaxed)
            .is_err()
        {
            self.collect();
        } else {
            self.full.set(true);
        }
    }

    fn unfull(&self) {
        self.full.set(false);
        self.remote.fetch_and(!NOTIFY, AcqRel);
        self.collect();
    }

    fn park(&self, me: usize) {
        loop {
            self.drain(me, me);
            if self.heaps[me].has_page.get() && !self.full.get() {
                self.collect();
            }
            self.heaps[me].state.store(IDLE, Release);
            fence(SeqCst);
            if self.heaps[me].delayed.load(Relaxed) == 0 || !self.adopt(me) {
                return;
            }
        }
    }

    fn adopt(&self, heap: usize) -> bool {
        let state = &self.heaps[heap].state;
        state
            .compare_exchange(IDLE, RUNNING, AcqRel, Relaxed)
            .is_ok()
    }

    fn absorb(&self, me: usize, other: usize) -> bool {
        if self.heaps[other].state.load(Acquire) != IDLE || !self.adopt(other) {
            return false;
        }
        if self.heaps[other].has_page.replace(false) {
            self.owner.store(me, Relaxed);
            self.heaps[me].has_page.set(true);
        }
        fence(SeqCst);
        self.drain(me, other);
        self.heaps[other].state.store(IDLE, Release);
        true
    }

    /// Heap::give for a block of a page that `me` may or may not own.
    fn give(&self, me: usize, block: usize) {
        let owner = self.owner.load(Relaxed);
        if owner == me || self.absorb(me, owner) && self.owner.load(Relaxed) == me {
            self.push(block);
            if self.full.get() {
                self.unfull();
            }
        } else {
            self.free_remote(me, block);
        }
    }

    /// All threads have ended: M1, then one upkeep of the last owner and M2.
    fn finish(&self) {
        let owner = self.owner.load(SeqCst);
        let others = self
            .heaps
            .iter()
            .enumerate()
            .filter(|(index, heap)| *index != owner || heap.state.load(SeqCst) == IDLE);
        others.for_each(|(_, heap)| {
            let left = heap.delayed.load(SeqCst);
            assert_eq!(left, 0, "M1: a block waits where nobody looks");
        });
        self.drain(owner, owner);
        if !self.full.get() {
            self.collect();
        }
        assert_eq!(self.free.get(), BOTH, "M2: both slots are free");
    }
}

/// Heap 0 does `owner`, a thread with heap 1 frees `blocks`.
fn explore(owner: fn(&Model), blocks: &'static [usize]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.max_duration = Some(std::time::Duration::from_secs(8));
    builder.check(move || {
        let model = Model::new();
        let beside = Arc::clone(&model);
        let thread = loom::thread::spawn(move || {
            blocks.iter().for_each(|block| beside.give(1, *block));
        });
        owner(&model);
        thread.join().expect("no panic");
        model.finish();
    });
}

// Goal: a free into a page that is just found full is seen. Method: both slots remote; the owner retires.
#[test]
fn full_page_hears_of_each_free() {
    explore(
        |model| {
            model.retire_full();
            model.drain(0, 0);
        },
        &[FIRST, SECOND],
    );
}

// Goal: a thread that ends leaves no block behind, whoever comes first. Method: retire, then park,
// while both slots are freed; the other may hand over, absorb, or own the page.
#[test]
fn thread_exit_loses_no_block() {
    explore(
        |model| {
            model.retire_full();
            model.park(0);
        },
        &[FIRST, SECOND],
    );
}

// Goal: a page that moves while a block is on its way to its owner still gets it. Method: heap 0 ends,
// and its thread's next heap, 2, absorbs it, beside a free that may do so as well.
#[test]
fn a_takeover_loses_no_block() {
    explore(
        |model| {
            model.retire_full();
            model.park(0);
            model.absorb(2, 0);
        },
        &[FIRST, SECOND],
    );
}
