//! A finding as a copy that outlives the lock, and the few one call can make.

use super::bucket::{Bucket, Slot, Traces};
use super::report::{Finding, Report};
use crate::heap::layer::Shape;

pub(super) type Trace<const FRAMES: usize> = [usize; FRAMES];

fn known(trace: &[usize]) -> &[usize] {
    let end = trace.iter().position(|frame| *frame == 0);
    &trace[..end.unwrap_or(trace.len())]
}

/// A finding with copies of all it speaks of.
#[derive(Clone, Copy)]
pub(super) struct Fault<const FRAMES: usize> {
    pub(super) finding: Finding,
    pub(super) block: usize,
    pub(super) held: Shape,
    pub(super) given: Shape,
    pub(super) offset: usize,
    pub(super) traces: Traces<FRAMES>,
    pub(super) now: Trace<FRAMES>,
}

impl<const FRAMES: usize> Fault<FRAMES> {
    pub(super) const fn plain(
        finding: Finding,
        block: usize,
        held: Shape,
        given: Shape,
        now: Trace<FRAMES>,
    ) -> Self {
        Self {
            finding,
            block,
            held,
            given,
            offset: 0,
            traces: [[0; FRAMES]; 2],
            now,
        }
    }

    pub(super) const fn stops(&self) -> bool {
        matches!(
            self.finding,
            Finding::InvalidFree | Finding::BooksOverwritten
        )
    }

    pub(super) fn with_report(&self, tell: impl FnOnce(&Report<'_>)) {
        tell(&Report {
            finding: self.finding,
            block: self.block,
            held: self.held,
            given: self.given,
            offset: self.offset,
            allocated: known(&self.traces[0]),
            freed: known(&self.traces[1]),
            now: known(&self.now),
        });
    }
}

/// What one call found: at most a size, an alignment and two writes.
pub(super) struct Faults<const FRAMES: usize> {
    found: [Option<Fault<FRAMES>>; 4],
    /// The block was taken back.
    pub(super) freed: bool,
}

impl<const FRAMES: usize> Faults<FRAMES> {
    pub(super) const fn none() -> Self {
        Self {
            found: [None; 4],
            freed: false,
        }
    }

    pub(super) fn push(&mut self, fault: Fault<FRAMES>) {
        if let Some(place) = self.found.iter_mut().find(|place| place.is_none()) {
            *place = Some(fault);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Fault<FRAMES>> {
        self.found.iter().flatten()
    }
}

pub(super) fn of_slot<const FRAMES: usize>(
    finding: Finding,
    block: usize,
    slot: &Slot<FRAMES>,
    offset: usize,
) -> Fault<FRAMES> {
    let now = [0; FRAMES];
    Fault {
        offset,
        traces: slot.traces,
        ..Fault::plain(finding, block, slot.shape(), slot.shape(), now)
    }
}

/// The finding when a freed slot was written; each write is told of once.
pub(super) fn written<const FRAMES: usize>(
    bucket: Bucket<FRAMES>,
    index: usize,
) -> Option<Fault<FRAMES>> {
    let slot = *bucket.slot(index);
    let offset = bucket.written_after_free(index)?;
    bucket.fill_freed(index);
    let block = bucket.block(index);
    Some(of_slot(Finding::WriteAfterFree, block, &slot, offset))
}
