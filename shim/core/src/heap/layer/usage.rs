//! Where a layer's memory is: parts that add up.

/// Bytes a layer holds from its parent, by what they are used for.
///
/// `requested + rounding + free_slots + tails + retained + metadata = committed`
/// at every moment (over quiet moments when several threads work).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What live blocks asked for.
    pub requested: usize,
    /// Slot (or page) bytes of live blocks beyond that.
    pub rounding: usize,
    /// Slots ready to be handed out.
    pub free_slots: usize,
    /// Room that is not yet cut into slots, or too small to be one.
    pub tails: usize,
    /// Held without a live block: freed memory that was not given back.
    pub retained: usize,
    /// The layer's own books.
    pub metadata: usize,
    /// All the layer holds from its parent, counted where it is taken and given.
    pub committed: usize,
}

impl Usage {
    /// The six parts together.
    pub const fn parts(&self) -> usize {
        let blocks = self.requested + self.rounding;
        blocks + self.free_slots + self.tails + self.retained + self.metadata
    }

    /// True when the parts are exactly what is committed.
    pub const fn adds_up(&self) -> bool {
        self.parts() == self.committed
    }
}
