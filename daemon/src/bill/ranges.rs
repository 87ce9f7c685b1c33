//! Who is alone in a 2 MiB range, told page by page in order of address.

/// log2 of the bytes of a range.
pub const SHIFT: u32 = 21;

/// Whose live blocks there are in some piece of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Nobody's.
    #[default]
    None,
    /// One site's.
    One(u32),
    /// Several sites'.
    Many,
}

impl Holder {
    /// Both pieces together.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, one) | (one, Self::None) => one,
            (Self::One(a), Self::One(b)) if a == b => self,
            _ => Self::Many,
        }
    }
}

/// The range that is being added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ranges {
    index: u64,
    holder: Holder,
    resident: u64,
}

impl Ranges {
    /// Adds a page; answers the site and the resident bytes of the range before it
    /// when that is over and one site is alone in it.
    pub fn add(&mut self, address: u64, resident: u64, holder: Holder) -> Option<(u32, u64)> {
        let index = address >> SHIFT;
        let over = (index != self.index).then(|| self.end(index)).flatten();
        self.holder = self.holder.and(holder);
        self.resident += resident;
        over
    }

    /// Ends the range, another begins.
    pub fn end(&mut self, index: u64) -> Option<(u32, u64)> {
        let Self {
            holder, resident, ..
        } = std::mem::take(self);
        self.index = index;
        match holder {
            Holder::One(site) if resident > 0 => Some((site, resident)),
            _ => None,
        }
    }
}
