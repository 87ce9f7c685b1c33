//! For whom a heap works: the site its slow paths are for, and the pages that site
//! touches first.
//!
//! # Concurrency
//! The owner only (H1).

use pageshim_wire::process::class;

use super::{Heap, class_of};
use crate::heap::gpa::block::Block;
use crate::heap::gpa::page::Page;

/// Bytes carved at once.
const CARVE_BYTES: usize = 4096;

impl Heap {
    /// The site this heap works for now: whom system calls are billed to, and who carves
    /// a page first.
    pub fn cause(&self) -> u32 {
        self.cause.get()
    }

    /// Says for which site the next slow path is.
    pub fn set_cause(&self, site: u32) {
        self.cause.set(site);
    }

    /// Clean OS pages carved since this was last asked.
    pub fn take_touched(&self) -> u32 {
        self.touched.replace(0)
    }

    /// What follows where [`Heap::take_ready`] found nothing: a slow path for `site`.
    #[cold]
    #[inline(never)]
    pub fn take_for(&self, site: u32, requested: usize) -> Option<(Block, &'static Page)> {
        self.cause.set(site);
        self.take_class(class_of(requested))
    }

    pub(super) fn carve(&self, page: &Page) {
        // Carve to the end of an OS page, so that each slow path touches one.
        let slot = page.slot_bytes.get() as usize;
        let used = page.capacity.get() as usize * slot;
        let carved = page.carve(CARVE_BYTES - used % CARVE_BYTES);
        let touched = page.note_origin(used, self.cause.get());
        self.touched.set(self.touched.get().wrapping_add(touched));
        self.accounts
            .add_class(page.class(), class::CAPACITY, i64::from(carved));
    }
}
