//! One word per live block: who asked, how much, when.
//!
//! # Design
//! ```text
//! bits 0-21  site | 22-47 birth tick | 48-63 slack = usable - requested
//! ```
//! Ticks begin at 1, so a record with birth 0 is a slot without a live block: that
//! is how a second free shows. What stays of a freed block is its site, for the
//! report of one; a slot that never held a block is zero. Slots are at most 64 KiB and a
//! singleton's slack is under a page, so 16 bits of slack always suffice.

use pageshim_wire::heap::record::{SITE_BITS, TICK_BITS};

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Site of the allocation.
    pub site: u32,
    /// Tick of the allocation, at least 1.
    pub birth: u64,
    /// Usable minus requested bytes.
    pub slack: usize,
}

impl Record {
    /// The word to store.
    #[inline]
    pub const fn pack(self) -> u64 {
        let site = self.site as u64 & ((1 << SITE_BITS) - 1);
        site | self.birth << SITE_BITS | (self.slack as u64) << (SITE_BITS + TICK_BITS)
    }

    /// The word to store when the block is freed.
    #[inline]
    pub const fn freed(self) -> u64 {
        self.site as u64
    }

    /// The site of the block that a word's slot held last, 0 when none is known.
    pub const fn last_site(word: u64) -> u32 {
        (word & ((1 << SITE_BITS) - 1)) as u32
    }

    /// Reads a word; `None` for a free slot.
    #[inline]
    pub const fn unpack(word: u64) -> Option<Self> {
        if word >> SITE_BITS == 0 {
            return None;
        }
        Some(Self {
            site: (word & ((1 << SITE_BITS) - 1)) as u32,
            birth: word >> SITE_BITS & ((1 << TICK_BITS) - 1),
            slack: (word >> (SITE_BITS + TICK_BITS)) as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pageshim_wire::layout::SITE_CAPACITY_MAX;
    use pageshim_wire::process::TICK_MAX;

    // Goal: the extremes survive packing. Method: smallest and largest of each field.
    #[test]
    fn extremes_round_trip() {
        for site in [0, u32::try_from(SITE_CAPACITY_MAX - 1).expect("22 bits")] {
            for birth in [1, TICK_MAX] {
                for slack in [0, 0xffff] {
                    let record = Record { site, birth, slack };
                    assert_eq!(Record::unpack(record.pack()), Some(record));
                }
            }
        }
        assert_eq!(Record::unpack(0), None);
        let freed = Record {
            site: 77,
            birth: 9,
            slack: 3,
        }
        .freed();
        assert_eq!(
            (Record::unpack(freed), Record::last_site(freed)),
            (None, 77)
        );
    }
}
