//! What lies at an address: whose block, and whether it is live.

use core::sync::atomic::Ordering;

use pageshim_core::heap::gpa::{Block, Kind, Page};
use pageshim_core::records::Record;

use crate::world::SPACES;
use crate::{emergency, whole};

/// What a block can do for its owner now.
pub(super) struct Found {
    pub(super) page: &'static Page,
    pub(super) slot: usize,
    pub(super) usable: usize,
}

impl Found {
    /// Bytes its owner asked for, when there is a record that says so.
    pub(super) fn requested(&self) -> Option<usize> {
        let word = self.page.record(self.slot)?;
        let record = Record::unpack(word.load(Ordering::Relaxed))?;
        Some(self.usable.saturating_sub(record.slack))
    }

    pub(super) fn is_live(&self, address: usize) -> bool {
        match self.page.record(self.slot) {
            Some(word) => Record::unpack(word.load(Ordering::Relaxed)).is_some(),
            None => bears_no_mark(self.page, address),
        }
    }
}

/// The block that begins at an address, in our pages or the emergency's.
pub(super) fn find(address: usize) -> Option<Found> {
    let page = match SPACES.page_of(address) {
        Some(page) => SPACES.head_of(page, address),
        None => emergency::page_of(address)?,
    };
    let slot = live_slot(page, address)?;
    Some(Found {
        page,
        slot,
        usable: page.usable(),
    })
}

/// Bytes the caller may use of a block; `None` when it is not ours.
#[inline(always)]
pub(crate) fn usable(address: usize) -> Option<usize> {
    // Some programs (redis) ask with each malloc and free.
    let page = SPACES.first().page_of(address);
    let block = Block::from_address(address);
    match page
        .zip(block)
        .and_then(|(page, block)| page.usable_at(block))
    {
        Some(usable) => Some(usable),
        None => usable_unusual(address),
    }
}

/// [`usable`] of what is not a slot in its page's first slice.
#[inline(never)]
fn usable_unusual(address: usize) -> Option<usize> {
    if whole::holds(address) {
        return Some(whole::usable(address));
    }
    match find(address) {
        Some(found) => Some(found.usable),
        None => SPACES.page_of(address).map(|_| 0),
    }
}

/// Which slot of a page of slots, or a singleton, begins at an address.
pub(super) fn live_slot(page: &Page, address: usize) -> Option<usize> {
    if page.kind() != Kind::Head {
        return None;
    }
    page.slot_at(address)
}

/// True for a block without a record that is live, as far as can be told. A singleton's memory may
/// bear marks of the slots that were there before; one that is freed has no page any more.
pub(super) fn bears_no_mark(page: &Page, address: usize) -> bool {
    let block = Block::from_address(address);
    page.is_single() || !block.is_some_and(|block| page.marks_free(block))
}
