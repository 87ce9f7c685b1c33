//! Walks over all blocks: leaks, writes, sums, and the end.

use super::{Large, State, give};
use crate::heap::debug::Config;
use crate::heap::debug::bucket::{Bucket, FOOTER, Hold, Slot, broken_seal};
use crate::heap::debug::fault::{Fault, of_slot, written};
use crate::heap::debug::report::Finding;
use crate::heap::layer::{Layer, Shape, Usage};

/// How far a walk over all blocks has come.
#[derive(Default)]
pub(in crate::heap::debug) struct Cursor {
    bucket: usize,
    slot: usize,
    large: usize,
}

impl<const FRAMES: usize> State<FRAMES> {
    fn bucket_at(&self, config: &Config<'_>, place: usize) -> Option<Bucket<FRAMES>> {
        let (base, ()) = self.buckets.at(place)?;
        Some(Bucket::at(base, config.bucket_bytes))
    }

    /// The next small block for which `visit` has an answer.
    fn walk_small<R>(
        &self,
        config: &Config<'_>,
        cursor: &mut Cursor,
        visit: impl Fn(Bucket<FRAMES>, usize) -> Option<R>,
    ) -> Option<R> {
        while cursor.bucket < self.buckets.places() {
            if let Some(bucket) = self.bucket_at(config, cursor.bucket) {
                while cursor.slot < bucket.header().taken as usize {
                    let slot = cursor.slot;
                    cursor.slot += 1;
                    if let Some(answer) = visit(bucket, slot) {
                        return Some(answer);
                    }
                }
            }
            cursor.slot = 0;
            cursor.bucket += 1;
        }
        None
    }

    /// The next large block for which `visit` has an answer.
    fn walk_large<R>(
        &self,
        cursor: &mut Cursor,
        visit: impl Fn(usize, &Large<FRAMES>) -> Option<R>,
    ) -> Option<R> {
        while cursor.large < self.larges.places() {
            let place = cursor.large;
            cursor.large += 1;
            if let Some((address, large)) = self.larges.at(place)
                && let Some(answer) = visit(address, large)
            {
                return Some(answer);
            }
        }
        None
    }

    pub(in crate::heap::debug) fn next_live(
        &self,
        config: &Config<'_>,
        cursor: &mut Cursor,
    ) -> Option<Fault<FRAMES>> {
        let leak = |address, slot: &Slot<FRAMES>| {
            let live = slot.hold == Hold::Live;
            live.then(|| of_slot(Finding::Leak, address, slot, 0))
        };
        self.walk_small(config, cursor, |bucket, index| {
            leak(bucket.block(index), bucket.slot(index))
        })
        .or_else(|| self.walk_large(cursor, |address, large| leak(address, &large.slot)))
    }

    pub(in crate::heap::debug) fn next_written(
        &self,
        config: &Config<'_>,
        cursor: &mut Cursor,
    ) -> Option<Fault<FRAMES>> {
        let small = self.walk_small(config, cursor, |bucket, index| {
            let slot = *bucket.slot(index);
            if slot.hold == Hold::Freed {
                return config
                    .check_write_after_free
                    .then(|| written(bucket, index))?;
            }
            let offset = bucket.broken_seal(index, slot.requested)?;
            let block = bucket.block(index);
            Some(of_slot(Finding::Overflow, block, &slot, offset))
        });
        small.or_else(|| {
            self.walk_large(cursor, |address, large| {
                let slot = &large.slot;
                if slot.hold == Hold::Freed {
                    return None;
                }
                let broken = broken_seal(address + slot.requested, FOOTER, config.canary)?;
                let offset = slot.requested + broken;
                Some(of_slot(Finding::Overflow, address, slot, offset))
            })
        })
    }

    pub(in crate::heap::debug) fn usage(&self, config: &Config<'_>) -> Usage {
        let mut usage = Usage {
            requested: self.requested,
            committed: self.committed,
            metadata: self.buckets.bytes() + self.larges.bytes(),
            ..Usage::default()
        };
        for place in 0..self.buckets.places() {
            let Some(bucket) = self.bucket_at(config, place) else {
                continue;
            };
            let (slot, header) = (bucket.slot_bytes(), bucket.header());
            let unused = (header.slots - header.taken) as usize * slot;
            usage.metadata += bucket.books_bytes();
            usage.tails +=
                config.bucket_bytes - bucket.books_bytes() - header.slots as usize * slot;
            usage.retained += header.freed as usize * slot;
            if header.retired {
                usage.retained += unused;
            } else {
                usage.free_slots += unused;
            }
            for index in 0..header.taken as usize {
                let books = bucket.slot(index);
                if books.hold == Hold::Live {
                    usage.rounding += slot - books.requested;
                }
            }
        }
        for place in 0..self.larges.places() {
            match self.larges.at(place) {
                Some((_, large)) if large.slot.hold == Hold::Live => usage.rounding += FOOTER,
                Some((_, large)) => usage.retained += large.backing,
                None => {}
            }
        }
        usage
    }

    // ---- the end ----------------------------------------------------------

    /// Gives back what `keep` does not want: buckets by base, large blocks.
    fn sweep(&mut self, parent: &impl Layer, config: &Config<'_>, all: bool) {
        // Removal shifts entries back, so a place is looked at until it stays.
        let mut place = 0;
        while place < self.buckets.places() {
            match self.bucket_at(config, place) {
                Some(bucket) if all || bucket.header().retired => {
                    self.drop_bucket(parent, config, bucket.base);
                }
                _ => place += 1,
            }
        }
        let mut place = 0;
        while place < self.larges.places() {
            match self
                .larges
                .at(place)
                .map(|(address, large)| (address, *large))
            {
                Some((address, large)) if all || large.slot.hold == Hold::Freed => {
                    self.larges.remove(address);
                    self.committed -= large.backing;
                    if large.backing != 0 {
                        give(parent, address, Shape::new(large.backing, large.slot.align));
                    }
                }
                _ => place += 1,
            }
        }
    }

    pub(in crate::heap::debug) fn flush(&mut self, parent: &impl Layer, config: &Config<'_>) {
        self.sweep(parent, config, false);
    }

    pub(in crate::heap::debug) fn release(&mut self, parent: &impl Layer, config: &Config<'_>) {
        self.sweep(parent, config, true);
        self.committed -= self.buckets.bytes() + self.larges.bytes();
        self.buckets.release(parent);
        self.larges.release(parent);
        debug_assert_eq!(self.committed, 0, "all memory went back to the parent");
    }
}
