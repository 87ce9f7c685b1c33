//! What is billed: parts of a whole heap, and the share of one site.

/// Resident bytes by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Live blocks, as asked for.
    pub requested: u64,
    /// Slot bytes beyond that, of live blocks.
    pub rounding: u64,
    /// Slots without a live block, in runs that a live block keeps.
    pub free_slots: u64,
    /// Never carved, or behind the last slot.
    pub tails: u64,
    /// Free runs, and runs kept without a live block.
    pub retained: u64,
    /// Never touched, and resident only because a huge page covers them.
    pub huge: u64,
    /// Of runs that changed while they were read.
    pub moved: u64,
    /// Of the above, split by counts because the blocks there have no records.
    pub unrecorded: u64,
}

impl Parts {
    /// All parts together; `unrecorded` is among them already.
    pub fn sum(&self) -> u64 {
        let parts = [
            self.requested,
            self.rounding,
            self.free_slots,
            self.tails,
            self.retained,
            self.huge,
            self.moved,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Units of memory (OS pages, slices, 2 MiB ranges) that hold blocks of one site only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// How many.
    pub count: u64,
    /// Resident bytes of them.
    pub bytes: u64,
}

impl Alone {
    /// One more, or several at once.
    pub fn add(&mut self, count: u64, bytes: u64) {
        self.count += count;
        self.bytes += bytes;
    }
}

/// The bill of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Live blocks.
    pub blocks: u64,
    /// Their requested bytes, resident or not.
    pub live: u64,
    /// Resident requested bytes.
    pub requested: u64,
    /// Resident rounding.
    pub rounding: u64,
    /// Free slots billed to it.
    pub free_slots: u64,
    /// Birth tick of the oldest block.
    pub oldest: u64,
    /// OS pages with no other site's blocks.
    pub pages: Alone,
    /// Bytes of those pages that hold no block: what few blocks keep from the kernel.
    pub idle: u64,
    /// Blocks on those pages, and the birth tick of the oldest.
    pub pinning: (u64, u64),
    /// Slices of runs with no other site's blocks. These bytes return to the kernel
    /// when the site's blocks are freed: runs return whole.
    pub slices: Alone,
    /// 2 MiB ranges with no other site's blocks.
    pub ranges: Alone,
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            blocks: 0,
            live: 0,
            requested: 0,
            rounding: 0,
            free_slots: 0,
            oldest: u64::MAX,
            pages: Alone::default(),
            idle: 0,
            pinning: (0, u64::MAX),
            slices: Alone::default(),
            ranges: Alone::default(),
        }
    }
}

impl Cost {
    /// Resident bytes billed to the site.
    pub fn billed(&self) -> u64 {
        self.requested + self.rounding + self.free_slots
    }
}
