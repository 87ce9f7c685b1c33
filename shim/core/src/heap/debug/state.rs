//! What the debug layer knows, all of it under its lock.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use super::bucket::{Bucket, FOOTER, Hold, Slot, broken_seal, seal};
use super::fault::{Fault, Faults, Trace, written};
use super::report::Finding;
use super::table::Table;
use super::{Config, FILL_FRESH};
use crate::heap::layer::{Align, Caller, Layer, Shape};

mod walk;

pub(super) use walk::Cursor;

/// A block from the parent. `backing` 0: the memory went back, the books stayed.
#[derive(Clone, Copy, Debug)]
struct Large<const FRAMES: usize> {
    slot: Slot<FRAMES>,
    backing: usize,
}

/// A resize to carry out.
pub(super) struct Change<const FRAMES: usize> {
    pub(super) block: NonNull<u8>,
    pub(super) shape: Shape,
    pub(super) to: usize,
    pub(super) may_move: bool,
    pub(super) trace: Trace<FRAMES>,
}

/// Where an address leads.
enum Found<const FRAMES: usize> {
    Small(Bucket<FRAMES>, usize),
    Large,
    Overwritten,
    Nothing,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct State<const FRAMES: usize> {
    current: [usize; usize::BITS as usize],
    buckets: Table<()>,
    larges: Table<Large<FRAMES>>,
    pub(super) requested: usize,
    pub(super) limit: Option<usize>,
    committed: usize,
}

impl<const FRAMES: usize> State<FRAMES> {
    pub(super) const fn new(limit: Option<usize>) -> Self {
        Self {
            current: [0; usize::BITS as usize],
            buckets: Table::new(),
            larges: Table::new(),
            requested: 0,
            limit,
            committed: 0,
        }
    }

    fn allows(&self, before: usize, after: usize) -> bool {
        let rest = self.requested - before;
        let limit = self.limit.unwrap_or(isize::MAX.cast_unsigned());
        rest.checked_add(after).is_some_and(|sum| sum <= limit)
    }

    // ---- taking -----------------------------------------------------------

    pub(super) fn allocate(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        shape: Shape,
        trace: Trace<FRAMES>,
    ) -> Option<NonNull<u8>> {
        if !self.allows(0, shape.requested) {
            return None;
        }
        let books = Slot {
            requested: shape.requested,
            align: shape.align,
            hold: Hold::Live,
            traces: [trace, [0; FRAMES]],
        };
        let block = match Bucket::<FRAMES>::slot_log2(config.bucket_bytes, shape) {
            Some(log2) => self.allocate_small(parent, config, log2, books)?,
            None => self.allocate_large(parent, config, books)?,
        };
        if config.fill_fresh {
            // SAFETY: a fresh block of this many bytes.
            unsafe { block.write_bytes(FILL_FRESH, shape.requested) };
        }
        self.requested += shape.requested;
        Some(block)
    }

    fn allocate_small(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        log2: u32,
        books: Slot<FRAMES>,
    ) -> Option<NonNull<u8>> {
        let current = self.current[log2 as usize];
        let mut bucket = Bucket::at(current, config.bucket_bytes);
        let fresh = if current == 0 {
            None
        } else {
            bucket.take(books)
        };
        let block = match fresh {
            Some(block) => block,
            None => {
                bucket = self.begin_bucket(parent, config, log2)?;
                bucket.take(books)?
            }
        };
        let index = bucket.index_of(block.addr().get())?;
        bucket.seal(index, books.requested);
        Some(block)
    }

    fn begin_bucket(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        log2: u32,
    ) -> Option<Bucket<FRAMES>> {
        let before = self.buckets.bytes();
        let reserved = self.buckets.reserve(parent);
        self.committed += self.buckets.bytes() - before;
        reserved?;
        let block = parent.allocate(bucket_shape(config), Caller::NONE)?;
        self.committed += config.bucket_bytes;
        let bucket = Bucket::at(block.as_ptr().expose_provenance(), config.bucket_bytes);
        bucket.begin(config.canary, log2, config.parent_zeroes);
        self.buckets.insert(bucket.base, ());
        self.current[log2 as usize] = bucket.base;
        Some(bucket)
    }

    fn allocate_large(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        slot: Slot<FRAMES>,
    ) -> Option<NonNull<u8>> {
        let backing = slot.requested.checked_add(FOOTER)?;
        self.reserve_large(parent)?;
        let block = parent.allocate(Shape::new(backing, slot.align), Caller::NONE)?;
        self.committed += backing;
        let address = block.as_ptr().expose_provenance();
        self.larges.insert(address, Large { slot, backing });
        seal(address + slot.requested, FOOTER, config.canary);
        Some(block)
    }

    fn reserve_large(&mut self, parent: &impl Layer) -> Option<()> {
        let before = self.larges.bytes();
        let reserved = self.larges.reserve(parent);
        self.committed += self.larges.bytes() - before;
        reserved
    }

    // ---- finding ----------------------------------------------------------

    fn find(&mut self, config: &Config<'_>, address: usize) -> Found<FRAMES> {
        let base = address & !(config.bucket_bytes - 1);
        if self.buckets.get(base).is_some() {
            let bucket = Bucket::at(base, config.bucket_bytes);
            if bucket.header().canary != config.canary {
                return Found::Overwritten;
            }
            return match bucket.index_of(address) {
                Some(index) => Found::Small(bucket, index),
                None => Found::Nothing,
            };
        }
        match self.larges.get(address) {
            Some(_) => Found::Large,
            None => Found::Nothing,
        }
    }

    fn large(&mut self, address: usize) -> Option<&mut Large<FRAMES>> {
        self.larges.get(address)
    }

    #[expect(
        clippy::result_large_err,
        reason = "faults are copies, and nothing here may allocate a box"
    )]
    /// The books of a block that is to be freed or resized, or the faults that
    /// say why that cannot be.
    fn check(
        &mut self,
        config: &Config<'_>,
        change: &Change<FRAMES>,
    ) -> Result<(Found<FRAMES>, Slot<FRAMES>, Faults<FRAMES>), Faults<FRAMES>> {
        let address = change.block.addr().get();
        let found = self.find(config, address);
        let unknown = Shape::new(0, Align::ONE);
        let mut faults = Faults::none();
        let plain =
            |finding, held| Fault::plain(finding, address, held, change.shape, change.trace);
        let books = match &found {
            Found::Small(bucket, index) => Some(*bucket.slot(*index)),
            Found::Large => self.large(address).map(|large| large.slot),
            Found::Overwritten => {
                faults.push(plain(Finding::BooksOverwritten, unknown));
                return Err(faults);
            }
            Found::Nothing => None,
        };
        let Some(slot) = books else {
            faults.push(plain(Finding::InvalidFree, unknown));
            return Err(faults);
        };
        let traces = slot.traces;
        let fault = |finding| Fault {
            traces,
            ..plain(finding, slot.shape())
        };
        if slot.hold == Hold::Freed {
            faults.push(fault(Finding::DoubleFree));
            return Err(faults);
        }
        if slot.requested != change.shape.requested {
            faults.push(fault(Finding::SizeMismatch));
        }
        if slot.align != change.shape.align {
            faults.push(fault(Finding::AlignmentMismatch));
        }
        let broken = match &found {
            Found::Small(bucket, index) => bucket.broken_seal(*index, slot.requested),
            _ => broken_seal(address + slot.requested, FOOTER, config.canary)
                .map(|offset| slot.requested + offset),
        };
        if let Some(offset) = broken {
            faults.push(Fault {
                offset,
                ..fault(Finding::Overflow)
            });
        }
        Ok((found, slot, faults))
    }

    // ---- giving back ------------------------------------------------------

    pub(super) fn free(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        block: NonNull<u8>,
        shape: Shape,
        trace: Trace<FRAMES>,
    ) -> Faults<FRAMES> {
        let change = Change {
            block,
            shape,
            to: 0,
            may_move: false,
            trace,
        };
        let (found, slot, mut faults) = match self.check(config, &change) {
            Ok(checked) => checked,
            Err(faults) => return faults,
        };
        faults.freed = true;
        self.requested -= slot.requested;
        if let Found::Small(bucket, index) = found {
            let books = bucket.slot(index);
            books.hold = Hold::Freed;
            books.traces[1] = trace;
            if config.check_write_after_free {
                bucket.fill_freed(index);
            }
            let header = bucket.header();
            header.freed += 1;
            if header.freed == header.taken
                && let Some(fault) = self.retire(parent, config, bucket)
            {
                faults.push(fault);
            }
        } else {
            self.free_large(parent, config, block, trace);
        }
        faults
    }

    /// All slots taken from a bucket are free: it goes back, or is kept unused.
    /// Answers the first write after a free found in it.
    fn retire(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        bucket: Bucket<FRAMES>,
    ) -> Option<Fault<FRAMES>> {
        let current = &mut self.current[bucket.header().slot_log2 as usize];
        if *current == bucket.base {
            *current = 0;
        }
        let slots = 0..bucket.header().taken as usize;
        let written = if config.check_write_after_free {
            slots.into_iter().find_map(|index| written(bucket, index))
        } else {
            None
        };
        if config.never_unmap || config.retain_metadata {
            bucket.header().retired = true;
        } else {
            self.drop_bucket(parent, config, bucket.base);
        }
        written
    }

    fn drop_bucket(&mut self, parent: &impl Layer, config: &Config<'_>, base: usize) {
        self.buckets.remove(base);
        self.committed -= config.bucket_bytes;
        give(parent, base, bucket_shape(config));
    }

    fn free_large(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        block: NonNull<u8>,
        trace: Trace<FRAMES>,
    ) {
        let address = block.addr().get();
        let Some(large) = self.large(address) else {
            return;
        };
        large.slot.hold = Hold::Freed;
        large.slot.traces[1] = trace;
        let (backing, align) = (large.backing, large.slot.align);
        if config.never_unmap {
            return;
        }
        large.backing = 0;
        if !config.retain_metadata {
            self.larges.remove(address);
        }
        self.committed -= backing;
        give(parent, address, Shape::new(backing, align));
    }

    // ---- resizing ---------------------------------------------------------

    pub(super) fn change(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        change: &Change<FRAMES>,
    ) -> (Option<NonNull<u8>>, Faults<FRAMES>) {
        let (found, slot, faults) = match self.check(config, change) {
            Ok(checked) => checked,
            Err(faults) => return (None, faults),
        };
        if !self.allows(slot.requested, change.to) {
            return (None, faults);
        }
        let target = Shape::new(change.to, slot.align);
        let log2 = Bucket::<FRAMES>::slot_log2(config.bucket_bytes, target);
        let answer = match (found, log2) {
            (Found::Small(bucket, index), Some(log2)) if bucket.header().slot_log2 == log2 => {
                let books = bucket.slot(index);
                books.requested = change.to;
                if config.resize_traces {
                    books.traces[0] = change.trace;
                }
                bucket.seal(index, change.to);
                Some(change.block)
            }
            // Small to large and back is another block, as is another slot size.
            (Found::Large, None) => self.change_large(parent, config, change),
            _ => None,
        };
        if answer.is_some() {
            self.requested = self.requested - slot.requested + change.to;
        }
        (answer, faults)
    }

    fn change_large(
        &mut self,
        parent: &impl Layer,
        config: &Config<'_>,
        change: &Change<FRAMES>,
    ) -> Option<NonNull<u8>> {
        let address = change.block.addr().get();
        let mut large = *self.large(address)?;
        let held = Shape::new(large.backing, large.slot.align);
        let backing = change.to.checked_add(FOOTER)?;
        // A move would let go of the old place, which never_unmap forbids.
        let may_move = change.may_move && !config.never_unmap;
        if may_move {
            self.reserve_large(parent)?;
        }
        // SAFETY: a live block of the parent with this shape (from the table).
        let place = unsafe {
            if may_move {
                parent.remap(change.block, held, backing, Caller::NONE)
            } else {
                let done = parent.resize(change.block, held, backing, Caller::NONE);
                done.then_some(change.block)
            }
        }?;
        self.committed = self.committed - large.backing + backing;
        large.backing = backing;
        large.slot.requested = change.to;
        if config.resize_traces {
            large.slot.traces[0] = change.trace;
        }
        self.larges.remove(address);
        let address = place.as_ptr().expose_provenance();
        self.larges.insert(address, large);
        seal(address + change.to, FOOTER, config.canary);
        Some(place)
    }
}

fn bucket_shape(config: &Config<'_>) -> Shape {
    let align = Align::new(config.bucket_bytes).unwrap_or(Align::MALLOC);
    Shape::new(config.bucket_bytes, align)
}

fn give(parent: &impl Layer, address: usize, shape: Shape) {
    if let Some(block) = NonNull::new(ptr::with_exposed_provenance_mut(address)) {
        // SAFETY: taken from this parent with this shape; the tables forgot it.
        unsafe { parent.free(block, shape, Caller::NONE) };
    }
}
