//! Heaps that are no layers, as layers: a pool of large places, and the heaps of
//! whole processes with the records their callers keep.

use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::layer::{Align, Caller, Layer, Shape, Usage};
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::pool::Pool;
use pageshim_core::whole::{Block, Bump, Debug, Family, Found, PageHeap, Stale};
use pageshim_wire::process::{CLASS_WORDS, class, word};

/// Bytes of a [`Places`] place: more than the suite's largest block.
const PLACE_BYTES: usize = 64 << 10;

/// A pool that serves any shape that fits a place.
pub(crate) struct Places(Pool<[u8; PLACE_BYTES], PageLayer>);

impl Places {
    pub(crate) fn new(parent: PageLayer) -> Self {
        let align = Align::new(32 << 10).expect("a power of two");
        Self(Pool::with(parent, align, true))
    }

    pub(crate) fn usage(&self) -> Usage {
        self.0.usage()
    }
}

// SAFETY: a place holds whatever fits it, until it is destroyed.
unsafe impl Layer for Places {
    fn allocate(&self, shape: Shape, _: Caller) -> Option<NonNull<u8>> {
        let fits = shape.requested <= PLACE_BYTES && shape.align <= self.0.place().align;
        fits.then(|| self.0.create([0; PLACE_BYTES]))?
            .map(NonNull::cast)
    }

    unsafe fn resize(&self, _: NonNull<u8>, _: Shape, to: usize, _: Caller) -> bool {
        to <= PLACE_BYTES
    }

    unsafe fn free(&self, block: NonNull<u8>, _: Shape, _: Caller) {
        // SAFETY: the caller's duty.
        unsafe { self.0.destroy(block.cast::<[u8; PLACE_BYTES]>()) };
    }
}

/// What the heaps of whole processes have in common.
pub(crate) trait WholeHeap: 'static {
    /// Reserves `bytes` of addresses.
    fn open(&self, bytes: usize) -> bool;
    fn take(&self, requested: usize, align: usize) -> Option<Block>;
    fn find(&self, address: usize) -> Found;
    /// Resizes in place, or, unless `align` forbids it, elsewhere.
    fn resize(&self, address: usize, requested: usize, align: usize) -> Option<Block>;
    fn give(&self, address: usize);
    /// Requested bytes of all live blocks, by a visit of each.
    fn live_bytes(&self) -> usize;
    #[cfg(fuzzing)]
    unsafe fn unmap(&self);
}

macro_rules! whole_heap {
    ($heap:ty) => {
        fn find(&self, address: usize) -> Found {
            <$heap>::find(self, address)
        }
        fn live_bytes(&self) -> usize {
            let mut sum = 0;
            self.each_live(|block| sum += block.requested);
            sum
        }
        #[cfg(fuzzing)]
        unsafe fn unmap(&self) {
            // SAFETY: the caller's duty.
            unsafe { <$heap>::unmap(self) }
        }
    };
}

impl WholeHeap for PageHeap {
    whole_heap!(PageHeap);
    fn open(&self, bytes: usize) -> bool {
        self.reserve(bytes, 10_000)
    }
    fn take(&self, requested: usize, align: usize) -> Option<Block> {
        Self::take(self, requested, align)
    }
    fn resize(&self, address: usize, requested: usize, align: usize) -> Option<Block> {
        (align <= pageshim_core::OS_PAGE_BYTES).then(|| Self::resize(self, address, requested))?
    }
    fn give(&self, address: usize) {
        Self::give(self, address);
    }
}

impl WholeHeap for Bump {
    whole_heap!(Bump);
    fn open(&self, bytes: usize) -> bool {
        self.reserve(bytes)
    }
    fn take(&self, requested: usize, align: usize) -> Option<Block> {
        Self::take(self, requested, align)
    }
    fn resize(&self, address: usize, requested: usize, _: usize) -> Option<Block> {
        Self::resize(self, address, requested)
    }
    fn give(&self, address: usize) {
        Self::give(self, address);
    }
}

/// Takes what a look for writes after a free found: there must be none.
fn quiet<T>(run: impl FnOnce(&mut Stale) -> T) -> T {
    let mut stale = Stale::default();
    let answer = run(&mut stale);
    assert_eq!(stale.iter().count(), 0, "nobody writes into freed blocks");
    answer
}

impl WholeHeap for Debug {
    whole_heap!(Debug);
    fn open(&self, bytes: usize) -> bool {
        self.reserve(bytes)
    }
    fn take(&self, requested: usize, align: usize) -> Option<Block> {
        quiet(|stale| Self::take(self, requested, align, Family::Malloc, stale))
    }
    fn resize(&self, _: usize, _: usize, _: usize) -> Option<Block> {
        None
    }
    fn give(&self, address: usize) {
        assert!(self.is_intact(address), "nobody writes around blocks");
        quiet(|stale| Self::give(self, address, 1, 2, stale));
    }
}

/// Such a heap with the records its callers keep, as a layer.
pub(crate) struct Whole<H: WholeHeap> {
    pub(crate) heap: &'static H,
    pub(crate) accounts: &'static Accounts,
}

impl<H: WholeHeap> Whole<H> {
    /// One word of the books; these heaps bill all to the singleton class.
    fn word(&self, index: usize) -> usize {
        let value = self.accounts.word(index).load(Ordering::Relaxed);
        usize::try_from(value).expect("never below zero")
    }

    pub(crate) fn usage(&self) -> Usage {
        use pageshim_core::heap::gpa::classes::SINGLETON;
        let first = word::CLASSES + SINGLETON * CLASS_WORDS;
        let held = self.word(first + class::CAPACITY);
        let requested = self.heap.live_bytes();
        Usage {
            requested,
            rounding: held - requested,
            tails: self.word(first + class::PAGE_BYTES) - held,
            metadata: self.word(word::METADATA),
            committed: self.word(word::HEAP_COMMITTED) + self.word(word::METADATA),
            ..Usage::default()
        }
    }

    pub(crate) fn note(&self, block: &Block) -> Option<NonNull<u8>> {
        let record = pageshim_core::records::Record {
            site: 1,
            birth: 0,
            slack: block.usable - block.requested,
        };
        block.record.store(record.pack(), Ordering::Relaxed);
        NonNull::new(ptr::with_exposed_provenance_mut(block.address))
    }

    /// The record's word, taken: the block is this call's alone.
    fn seize(&self, block: NonNull<u8>, shape: Shape) -> (Block, u64) {
        let Found::Live(found) = self.heap.find(block.as_ptr().expose_provenance()) else {
            panic!("{block:?} is live");
        };
        assert!(found.usable >= shape.requested && found.requested == shape.requested);
        (found, found.record.swap(0, Ordering::Relaxed))
    }
}

// SAFETY: the heaps' blocks lie apart until they are given back.
unsafe impl<H: WholeHeap> Layer for Whole<H> {
    fn allocate(&self, shape: Shape, _: Caller) -> Option<NonNull<u8>> {
        let block = self.heap.take(shape.requested, shape.align.bytes())?;
        assert!(block.usable >= shape.requested && block.requested == shape.requested);
        self.note(&block)
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        _: Caller,
    ) -> Option<NonNull<u8>> {
        let (old, word) = self.seize(block, shape);
        match self.heap.resize(old.address, to, shape.align.bytes()) {
            Some(new) => self.note(&new),
            None => {
                old.record.store(word, Ordering::Relaxed);
                None
            }
        }
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, _: Caller) {
        let (old, _) = self.seize(block, shape);
        self.heap.give(old.address);
        let again = self.heap.find(old.address);
        assert!(!matches!(again, Found::Live(_)), "freed is not live");
    }
}
