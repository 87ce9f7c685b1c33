//! Poisson sampling: which allocations are looked at, and what each stands for.
//!
//! # Design
//! Points lie on the line of all bytes a thread ever asks for, on average
//! `interval` bytes apart, each independent of the last. A block is sampled when
//! a point falls on one of its bytes, its own `requested` and one more, so that
//! empty blocks are not invisible. The distance to the next point is drawn from
//! an exponential distribution, which has no memory: what is left of it after a
//! block that was not hit is again such a draw, and after one that was hit a
//! fresh one is as good. So blocks are hit independently, each with chance
//!
//! ```text
//! p = 1 - exp(-(requested + 1) / interval)
//! ```
//!
//! and counting a hit as `1 / p` blocks is right on average whatever the mix of
//! sizes (the Horvitz-Thompson estimate). The variance of such a sum is estimated
//! without bias by the sum of `(1 - p) / p^2`, for bytes times `requested^2`.
//!
//! The distance is rounded down to whole bytes; as blocks are whole bytes, that
//! changes no comparison. Everything is a function of `requested` and the
//! interval, so a free takes off exactly what its allocation put on.
//!
//! # Allocation
//! None.

use core::cell::Cell;

use pageshim_wire::sampled::{
    BLOCKS_SHIFT, BLOCKS_VARIANCE_UNIT, BYTES_SHIFT, BYTES_VARIANCE_UNIT,
};

/// A thread's place on the line of bytes. All zeros is one that has not begun,
/// which hits at once.
#[derive(Debug, Default)]
pub struct Sampler {
    left: Cell<u64>,
    random: Cell<u64>,
}

impl Sampler {
    /// Where the distance left is, for code that is not compiled: a byte offset.
    pub const LEFT_AT: usize = core::mem::offset_of!(Self, left);

    /// Not begun.
    pub const fn new() -> Self {
        Self {
            left: Cell::new(0),
            random: Cell::new(0),
        }
    }

    /// Draws the first distance. The same seed makes the same draws.
    pub fn begin(&self, seed: u64, interval: u64) {
        self.random.set(spread(seed) | 1);
        self.left.set(self.draw(interval));
    }

    /// Goes on with other draws than a process this one was copied from.
    pub fn stir(&self, salt: u64) {
        self.random.set(spread(self.random.get() ^ salt) | 1);
    }

    /// What is left of the distance after a block that is not hit; `None` for one
    /// that is.
    #[inline(always)]
    pub fn past(&self, requested: usize) -> Option<u64> {
        self.left.get().checked_sub(requested as u64 + 1)
    }

    /// Moves on to where [`Sampler::past`] said.
    #[inline(always)]
    pub fn advance(&self, left: u64) {
        self.left.set(left);
    }

    /// Moves past a block of `requested` bytes; true when it is hit.
    pub fn hits(&self, requested: usize, interval: u64) -> bool {
        match self.past(requested) {
            Some(left) => {
                self.left.set(left);
                false
            }
            None => {
                self.left.set(self.draw(interval));
                true
            }
        }
    }

    /// A distance: `-ln(u) * interval` of a uniform `u`.
    fn draw(&self, interval: u64) -> u64 {
        const LN_2_Q32: u128 = 2_977_044_472;
        let negative_log = u128::from(negative_log2_q32(self.next()));
        let bytes = (u128::from(interval) * negative_log * LN_2_Q32) >> 64;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// xorshift64*.
    fn next(&self) -> u64 {
        let mut value = self.random.get();
        value ^= value >> 12;
        value ^= value << 25;
        value ^= value >> 27;
        self.random.set(value);
        value.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Mixes a seed (the finish of splitmix64), so that near seeds make far streams.
fn spread(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// `-log2(random / 2^64)` with 32 bits behind the point, exact to the last.
///
/// Squaring a number in [1, 2) doubles its logarithm; each time it reaches 2, the
/// next bit of the logarithm is 1.
fn negative_log2_q32(random: u64) -> u64 {
    let random = random.max(1);
    let zeros = random.leading_zeros();
    let mut mantissa = random << zeros;
    let mut log = 0u64;
    for _ in 0..32 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let carry = square >> 64;
        log = log << 1 | u64::from(carry != 0);
        let kept = if carry != 0 { square >> 1 } else { square };
        mantissa = u64::try_from(kept).unwrap_or(u64::MAX);
    }
    ((u64::from(zeros) + 1) << 32) - log
}

/// `1 - exp(-x)` for `x >= 0`, without the mathematics library of libc.
///
/// Halved until a short series serves, then `1 - exp(-2y) = q * (2 - q)` undoes
/// each halving. Nothing cancels, so small results are as precise as large ones.
fn chance(x: f64) -> f64 {
    let mut small = x.min(64.0);
    let mut halvings = 0;
    while small > 0.25 {
        small *= 0.5;
        halvings += 1;
    }
    let (mut term, mut sum) = (small, small);
    for power in 2..12 {
        term *= -small / f64::from(power);
        sum += term;
    }
    for _ in 0..halvings {
        sum *= 2.0 - sum;
    }
    sum.min(1.0)
}

/// What a sampled block stands for, in the units of [`pageshim_wire::sampled`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Blocks.
    pub blocks: u64,
    /// Requested bytes.
    pub bytes: u64,
    /// Its part of the variance of a sum of blocks.
    pub blocks_variance: u64,
    /// Its part of the variance of a sum of bytes.
    pub bytes_variance: u64,
}

impl Weight {
    /// The weight of a block of `requested` bytes.
    pub fn of(requested: usize, interval: u64) -> Self {
        let (bytes, interval) = (requested as f64, interval.max(1) as f64);
        let chance = chance((bytes + 1.0) / interval);
        let blocks = 1.0 / chance;
        let variance = (1.0 - chance) * blocks * blocks / (interval * interval);
        Self {
            blocks: whole(blocks * f64::from(1 << BLOCKS_SHIFT)),
            bytes: whole(bytes * blocks * f64::from(1 << BYTES_SHIFT)),
            blocks_variance: whole(variance * BLOCKS_VARIANCE_UNIT),
            bytes_variance: whole(bytes * bytes * variance * BYTES_VARIANCE_UNIT),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative; past the end a cast stays at the end"
)]
fn whole(value: f64) -> u64 {
    (value + 0.5) as u64
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
