//! The spaces of a process: the first, and smaller ones for when it is refused or used up.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use super::classes::SLICE_SHIFT;
use super::page::{INTERIOR, Page};
use super::runs::Structs;
use super::space::{ALIGN_MAX, Run, Space, Taste};
use crate::heap::page::Pages;
use crate::sync::Lock;

// An array of a non-Copy value made from an argument, in a const fn.
macro_rules! repeat {
    ($value:expr) => {
        [
            $value, $value, $value, $value, $value, $value, $value, $value, $value, $value, $value,
            $value, $value, $value, $value,
        ]
    };
}

/// The first space, and smaller ones for when it is refused or used up.
#[derive(Debug)]
pub struct Spaces {
    first: Space,
    more: [Space; Spaces::MORE],
    serial: Lock<()>,
    /// Most bytes a further space may reserve.
    step: AtomicU64,
}

impl Spaces {
    const MORE: usize = 15;

    /// No space reserved yet.
    pub const fn new(pages: Pages) -> Self {
        Self {
            first: Space::new(pages),
            more: repeat!(Space::new(pages)),
            serial: Lock::new(()),
            step: AtomicU64::new(0),
        }
    }

    /// Reserves the first space: `span` bytes, halving on refusal down to 1 MiB.
    pub fn reserve(&self, span: usize) -> bool {
        let mut span = span;
        while span >= 1 << 20 {
            if self.first.reserve(span) {
                self.step.store(span as u64, Ordering::Relaxed);
                return true;
            }
            span /= 2;
        }
        false
    }

    /// The space most blocks are in.
    pub const fn first(&self) -> &Space {
        &self.first
    }

    /// All spaces that are reserved.
    pub fn iter(&self) -> impl Iterator<Item = &Space> {
        core::iter::once(&self.first)
            .chain(self.more.iter().take_while(|space| space.is_reserved()))
    }

    /// The page struct for a block's address.
    #[inline]
    pub fn page_of(&self, address: usize) -> Option<&'static Page> {
        match self.first.page_of(address) {
            Some(page) => Some(page),
            None => self.page_elsewhere(address),
        }
    }

    #[cold]
    fn page_elsewhere(&self, address: usize) -> Option<&'static Page> {
        if !self.more[0].is_reserved() {
            return None;
        }
        self.more.iter().find_map(|space| space.page_of(address))
    }

    /// The page of a struct found by [`Spaces::page_of`]: itself or, for a later
    /// slice of a run, the run's first.
    #[inline]
    pub fn head_of(&self, page: &'static Page, address: usize) -> &'static Page {
        if page.flags() & INTERIOR == 0 {
            page
        } else {
            self.space_of(address).page(page.head.get())
        }
    }

    /// The run in use around an address that may be wild.
    pub fn page_checked(&self, address: usize) -> Option<&'static Page> {
        self.iter().find_map(|space| space.page_checked(address))
    }

    /// The space of an address of ours.
    pub(super) fn space_of(&self, address: usize) -> &Space {
        let within = |space: &&Space| {
            let (base, span) = space.range();
            address.wrapping_sub(base) < span
        };
        self.iter().find(within).unwrap_or(&self.first)
    }

    /// Takes a run from the first space that has room, reserving another when none has.
    pub(super) fn take(&self, slices: u32, align: usize, taste: Taste) -> Option<Run> {
        if align > ALIGN_MAX {
            return None;
        }
        let run = self
            .iter()
            .find_map(|space| space.take(slices, align, taste));
        if run.is_some() || taste == Taste::OnlyWarm {
            return run;
        }
        let _serial = self.serial.lock();
        let fresh = self.more.iter().find(|space| !space.is_reserved())?;
        let need = ((slices as usize + 1) << SLICE_SHIFT).checked_add(align)?;
        let mut span = need.checked_next_power_of_two()?.max(4 << 20);
        let most = usize::try_from(self.step.load(Ordering::Relaxed)).ok()? / 2;
        if most > span {
            span = most;
        }
        while span >= need {
            if fresh.reserve(span) {
                return fresh.take(slices, align, taste);
            }
            span /= 2;
        }
        None
    }

    /// Bytes that wait to go back to the kernel.
    pub fn dirty_bytes(&self) -> usize {
        self.iter().map(Space::dirty_bytes).sum()
    }

    /// Returns free memory to the kernel, see [`Space::purge`].
    pub fn purge(&self, before_ms: u64) -> usize {
        self.iter().map(|space| space.purge(before_ms)).sum()
    }

    /// Gives all addresses back.
    ///
    /// # Safety
    /// No block, page or space is used any more.
    #[cfg(fuzzing)]
    pub unsafe fn unmap(&self) {
        // SAFETY: the caller's duty.
        self.iter().for_each(|space| unsafe { space.unmap() });
    }

    /// Takes all locks for the time of a fork.
    pub fn hold(&self) {
        self.serial.hold();
        self.first.hold();
        self.more.iter().for_each(Space::hold);
    }

    /// Opens them again.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty, for each lock.
        unsafe {
            self.more.iter().for_each(|space| space.release());
            self.first.release();
            self.serial.release();
        }
    }
}

/// Byte offsets of what the plain paths use, in [`Spaces`]: its first space's.
pub(super) mod layout {
    use core::mem::offset_of;

    use super::super::space::layout;
    use super::Spaces;

    const FIRST: usize = offset_of!(Spaces, first);
    /// Address of the slices.
    pub const BASE: usize = FIRST + layout::BASE;
    /// Bytes of slices handed out.
    pub const LIMIT: usize = FIRST + layout::LIMIT;
    /// What an address' slice number, times a struct's bytes, lacks to its struct.
    pub const BIAS: usize = FIRST + layout::BIAS;
}
