//! Room for the records of pages of slots.
//!
//! # Concurrency
//! Under the space's lock.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_wire::heap::ORIGINS_BYTES;
use pageshim_wire::process::word;

use super::{Space, signed};
use crate::heap::gpa::areas::{self, Areas};
use crate::heap::gpa::classes::SLICE_BYTES;
use crate::sys;

const RECORD_STEP: usize = 256 << 10;
/// Records start asking for huge pages once they are this large.
const RECORD_HUGE_FROM: usize = 4 << 20;
const RECORD_HUGE_STEP: usize = 2 << 20;

impl Space {
    /// Room for the records of a page of `class`, zeroed.
    pub(in crate::heap::gpa) fn take_records(&self, class: usize) -> Option<*mut AtomicU64> {
        let mut inner = self.inner.lock();
        let at = match inner.areas.take(class, false) {
            Some(at) => at,
            None => match self.fresh_records(&mut inner.areas, class) {
                Some(at) => at,
                None => inner.areas.take(class, true)?,
            },
        };
        Some(ptr::with_exposed_provenance_mut(at))
    }

    fn fresh_records(&self, areas: &mut Areas, class: usize) -> Option<usize> {
        let end = areas.next + areas::area_bytes(class);
        let base = self.records.load(Ordering::Relaxed);
        if end > records_room(self.span.load(Ordering::Relaxed)) {
            return None;
        }
        if end > areas.committed {
            self.commit_records(areas, base, end)?;
        }
        let at = base + areas.next;
        areas.next = end;
        Some(at)
    }

    /// Makes records usable at least up to `end`; large ones by whole huge pages, for a part of one
    /// that is touched gets small pages for good.
    fn commit_records(&self, areas: &mut Areas, base: usize, end: usize) -> Option<()> {
        let from = base + areas.committed;
        let huge = areas.committed >= RECORD_HUGE_FROM;
        let room = records_room(self.span.load(Ordering::Relaxed));
        let step = if huge { RECORD_HUGE_STEP } else { RECORD_STEP };
        for step in [step, RECORD_STEP] {
            let more = end.next_multiple_of(step).min(room) - areas.committed;
            // SAFETY: within our reserve.
            if unsafe { self.pages.commit(from, more) } {
                self.pages.accounts().add(word::METADATA, signed(more));
                if huge {
                    // SAFETY: advice on our own range that keeps its content.
                    let _ = unsafe { sys::advise(from, more, sys::HUGEPAGE) };
                }
                areas.committed += more;
                return Some(());
            }
        }
        None
    }

    /// Takes the records of a page back; all of them are zero again.
    pub(in crate::heap::gpa) fn give_records(&self, class: usize, area: *mut AtomicU64) {
        let mut inner = self.inner.lock();
        inner.areas.give(class, area.expose_provenance());
    }
}

/// Room for 8 bytes a slot of 16 bytes, and for the origins of every OS page.
pub(super) const fn records_room(span: usize) -> usize {
    let origins = span / SLICE_BYTES * ORIGINS_BYTES as usize;
    (span / 2 + origins).next_multiple_of(RECORD_STEP)
}
