//! Blocks one behind the other in a stretch of memory: what `fixed` and a node of
//! `arena` have in common.
//!
//! # Design
//! ```text
//! | block | gap | block | block |          tail          |
//! start                         end                      bytes
//! ```
//! `end` moves up with each block and back when the last one is freed or shrunk;
//! any other block only leaves a gap. The counters are the layer's, over all its
//! stretches.
//!
//! # Concurrency
//! As the kind of number says: with atomic ones each move is one compare-and-swap,
//! and the counters are exact when no call is under way.

use super::layer::{Number, Shape};

/// One stretch, and its layer's counters.
#[derive(Debug)]
pub(super) struct Stretch<'a, N: Number> {
    /// Address of the first byte.
    pub(super) start: usize,
    /// How many bytes.
    pub(super) bytes: usize,
    /// Offset behind the last block.
    pub(super) end: &'a N,
    /// Live bytes.
    pub(super) requested: &'a N,
    /// Bytes in front of an end that serve nobody.
    pub(super) retained: &'a N,
}

impl<N: Number> Stretch<'_, N> {
    /// Offsets of a block of `shape` put behind `end`, and of what follows it.
    pub(super) fn place(&self, end: usize, shape: Shape) -> Option<(usize, usize)> {
        let at = shape.align.up(self.start.checked_add(end)?)? - self.start;
        Some((at, at.checked_add(shape.requested)?))
    }

    /// Offset of a fresh block; `None` when there is no room behind the last one.
    pub(super) fn take(&self, shape: Shape) -> Option<usize> {
        loop {
            let end = self.end.get();
            let (at, next) = self.place(end, shape)?;
            if next > self.bytes {
                return None;
            }
            if self.end.swap_if(end, next) {
                self.requested.add(shape.requested);
                self.retained.add(at - end);
                return Some(at);
            }
        }
    }

    /// Offset of a block, and what `end` is when it is the last one; `None` for
    /// another one, or one of another stretch.
    fn last(&self, address: usize, shape: Shape) -> Option<(usize, usize)> {
        let at = address.wrapping_sub(self.start);
        let end = at.wrapping_add(shape.requested);
        (at < end && self.end.get() == end).then_some((at, end))
    }

    /// Makes a block of the layer hold `to` bytes: the last one as far as there
    /// is room, any other only fewer.
    pub(super) fn resize(&self, address: usize, shape: Shape, to: usize) -> bool {
        if let Some((at, end)) = self.last(address, shape) {
            let next = at.checked_add(to).filter(|next| *next <= self.bytes);
            let Some(next) = next else {
                return false;
            };
            if self.end.swap_if(end, next) {
                self.requested.add(to.wrapping_sub(shape.requested));
                return true;
            }
        }
        if to > shape.requested {
            return false;
        }
        self.requested.sub(shape.requested - to);
        self.retained.add(shape.requested - to);
        true
    }

    /// Takes a block of the layer back.
    pub(super) fn give(&self, address: usize, shape: Shape) {
        self.requested.sub(shape.requested);
        let last = self.last(address, shape);
        if !last.is_some_and(|(at, end)| self.end.swap_if(end, at)) {
            self.retained.add(shape.requested);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::layer::Align;
    use core::cell::Cell;

    // Goal: only the last block moves the end, and a block of another stretch never does. Method: literal
    // offsets, the other stretch's block ending where this one's does or wrapping round.
    #[test]
    fn the_last_block_moves_the_end() {
        let [end, requested, retained] = [const { Cell::new(0) }; 3];
        let stretch = Stretch {
            start: 4096,
            bytes: 100,
            end: &end,
            requested: &requested,
            retained: &retained,
        };
        let shape = |bytes| Shape::new(bytes, Align::MALLOC);
        assert_eq!(stretch.take(shape(10)), Some(0));
        assert_eq!(stretch.take(shape(20)), Some(16));
        assert_eq!((end.get(), requested.get(), retained.get()), (36, 30, 6));
        assert!(!stretch.resize(4096, shape(10), 11), "not the last");
        assert!(stretch.resize(4096 + 16, shape(20), 84), "to the end");
        assert!(!stretch.resize(4096 + 16, shape(84), 85), "past it");
        assert!(!stretch.resize(4096 + 16, shape(84), usize::MAX));
        assert_eq!(stretch.take(shape(1)), None);
        // Ends where the last one does, but begins in front of the stretch.
        stretch.give(4000, shape(196));
        assert_eq!(end.get(), 100, "nothing of ours");
        stretch.give(4096 + 16, shape(84));
        assert_eq!(end.get(), 16);
    }
}
