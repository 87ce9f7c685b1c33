//! Who decides what a driver of layers does next: chance, or a fuzzer's bytes.
//!
//! For tests, examples and fuzzers only.

use super::layer::{Align, Shape};

/// A source of decisions.
pub trait Choices {
    /// A number below `limit`, which is at least 1.
    fn below(&mut self, limit: usize) -> usize;

    /// True when there is nothing left to decide by.
    fn are_over(&self) -> bool {
        false
    }

    /// A shape as programs ask for: mostly small, now and then large or aligned.
    fn shape(&mut self) -> Shape {
        let requested = match self.below(20) {
            0 => 1 + self.below(60_000),
            1..5 => 1 + self.below(4_000),
            _ => 1 + self.below(200),
        };
        let log2 = if self.below(10) == 0 { 12 } else { 4 };
        let align = Align::new(1 << self.below(log2));
        Shape::new(requested, align.unwrap_or(Align::ONE))
    }
}

/// A small random number generator, so that runs repeat.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed; 0 is as good as any.
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
}

impl Choices for Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % limit
    }
}

/// Decisions read off bytes, as few bytes each as its limit needs, so that a
/// fuzzer that changes one byte changes one decision. At the end all are 0.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Choices for Bytes<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let (mut number, mut reach) = (0, 1);
        while reach < limit {
            let Some((first, rest)) = self.0.split_first() else {
                break;
            };
            self.0 = rest;
            number = number << 8 | usize::from(*first);
            reach <<= 8;
        }
        number % limit
    }

    fn are_over(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: one byte is one small decision, and an end is no error. Method: literal bytes.
    #[test]
    fn bytes_decide_one_by_one() {
        let mut choices = Bytes::new(&[7, 200, 1, 2]);
        assert_eq!(choices.below(1), 0);
        assert_eq!(choices.below(10), 7);
        assert_eq!(choices.below(256), 200);
        assert_eq!(choices.below(1000), 0x102);
        assert!(choices.are_over());
        assert_eq!(choices.below(1000), 0);
    }
}
