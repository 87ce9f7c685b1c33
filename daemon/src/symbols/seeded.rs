//! Hashing of (file, offset): numbers, looked up once for every frame of every stack.
//!
//! A multiplication a number instead of SipHash. The offsets are a stranger's choice, so
//! the seed is not.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map by numbers.
pub type Numbers<K, V> = HashMap<K, V, Seeded>;

/// Makes hashers of one random seed.
#[derive(Clone, Copy, Debug)]
pub struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0u64))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

/// One hash being made.
#[derive(Debug)]
pub struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product ^ product >> 64) as u64 ^ number.rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: neighbours spread over both ends of a hash, which is what a map looks at.
    // Method: offsets 16 apart, counted by low and high bits.
    #[test]
    fn neighbours_spread() {
        let seeded = Seeded::default();
        let (mut low, mut high) = ([0; 64], [0; 64]);
        for offset in 0..64_000u64 {
            let hash = seeded.hash_one((3u32, offset * 16));
            low[(hash & 63) as usize] += 1;
            high[(hash >> 58) as usize] += 1;
        }
        for count in low.into_iter().chain(high) {
            assert!((600..1500).contains(&count), "{count} of about 1000");
        }
    }
}
