//! Small pieces of the ledger: live blocks on a page, and shares without a rest.

use pageshim_wire::heap::record::{SITE_BITS, TICK_BITS};

/// A live block's part of an OS page, or of several blocks of one site.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Whose.
    pub site: u32,
    /// Bytes on the page as asked for.
    pub requested: u64,
    /// Slot bytes beyond them.
    pub rounding: u64,
    /// Blocks that begin here.
    pub begins: u64,
    /// All requested bytes of these.
    pub live: u64,
    /// Blocks not yet counted on a page where their site is alone.
    pub fresh: u64,
    /// Birth tick of the oldest.
    pub oldest: u64,
}

impl Held {
    /// Slot bytes on the page.
    pub fn bytes(&self) -> u64 {
        self.requested + self.rounding
    }

    /// Adds another part of the same site.
    pub fn join(&mut self, other: &Self) {
        self.requested += other.requested;
        self.rounding += other.rounding;
        self.begins += other.begins;
        self.live += other.live;
        self.fresh += other.fresh;
        self.oldest = self.oldest.min(other.oldest);
    }
}

/// A decoded record of a live block.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Who asked.
    pub site: u32,
    /// Tick, at least 1.
    pub birth: u64,
    /// Usable minus requested bytes.
    pub slack: u64,
}

impl Live {
    /// `None` for a free slot, whatever else its record still says.
    pub fn of(record: u64) -> Option<Self> {
        let birth = record >> SITE_BITS & ((1 << TICK_BITS) - 1);
        (birth != 0).then_some(Self {
            site: (record & ((1 << SITE_BITS) - 1)) as u32,
            birth,
            slack: record >> (SITE_BITS + TICK_BITS),
        })
    }
}

/// Splits bytes by weights without losing one: shares are differences of a running sum.
#[derive(Debug)]
pub struct Split {
    bytes: u64,
    all: u64,
    weight: u64,
    given: u64,
}

impl Split {
    /// `bytes` over weights that sum to `all`.
    pub fn new(bytes: u64, all: u64) -> Self {
        Self {
            bytes,
            all,
            weight: 0,
            given: 0,
        }
    }

    /// The share of the next weight.
    pub fn next(&mut self, weight: u64) -> u64 {
        self.weight += weight;
        let upto = u128::from(self.bytes) * u128::from(self.weight) / u128::from(self.all.max(1));
        let upto = u64::try_from(upto).unwrap_or(self.bytes);
        let share = upto - self.given;
        self.given = upto;
        share
    }
}
