//! Runs as they lie, read without the space's lock: for the leak check, which looks
//! at a heap that stands still, maybe with a holder of the lock among those stopped.
//!
//! # Failure
//! A struct may have been caught between two stores. What does not fit together is
//! left out, and so is a block that was just about to be made.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::classes::{SLICE_SHIFT, SLOT_CLASSES, page_slices, page_slots, slot_bytes};
use super::page::{Kind, PAGE_STRUCT_SHIFT, Page};
use super::space::Space;

/// A run in use.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// First slice's number.
    pub slice: u32,
    /// Slices of the run.
    pub slices: u32,
    /// Address of its first block.
    pub start: usize,
    /// Bytes of a slot; 0 for a run that is one block.
    pub slot_bytes: usize,
    /// See [`super::classes::magic`]; 0 for a run that is one block.
    pub magic: u64,
    /// Slots that may hold blocks.
    pub slots: usize,
    /// Bytes usable of a block.
    pub usable: usize,
    /// Blocks in use, as far as known.
    pub used: usize,
    records: *const AtomicU64,
}

impl Survey {
    /// The record words, one a slot; `None` when the run has none.
    pub fn records(&self) -> Option<*const AtomicU64> {
        (!self.records.is_null()).then_some(self.records)
    }

    /// Reads the record of a slot below `slots`; 0 when the run has none.
    pub fn record(&self, slot: usize) -> u64 {
        if self.records.is_null() || slot >= self.slots {
            return 0;
        }
        // SAFETY: survey() checked that the records lie in the space's committed books,
        // which hold one for each slot (P6).
        unsafe { (*self.records.add(slot)).load(Ordering::Relaxed) }
    }
}

impl Space {
    /// Slices in use or once in use, without the lock.
    pub fn slices_now(&self) -> u32 {
        let (_, span) = self.range();
        u32::try_from(self.limit_now().min(span) >> SLICE_SHIFT).unwrap_or(0)
    }

    /// The run in use whose first slice is `slice`, if its struct is sound.
    pub fn survey(&self, slice: u32) -> Option<Survey> {
        let end = self.slices_now();
        if slice == 0 || slice >= end {
            return None;
        }
        let (base, _) = self.range();
        let (structs, _) = self.books();
        let at = structs + ((slice as usize) << PAGE_STRUCT_SHIFT);
        // SAFETY: S1: structs below the limit are committed; P4: and never unmapped.
        let page: &'static Page = unsafe { &*ptr::with_exposed_provenance(at) };
        let start = base + ((slice as usize) << SLICE_SHIFT);
        let slices = page.slices.get();
        let whole = page.kind.get() == Kind::Head && page.start.get() == start;
        if !whole || slices == 0 || slices > end - slice {
            return None;
        }
        let records: *const AtomicU64 = page.records.get();
        let inside = records.addr() >= structs && records.addr() < base;
        let survey = Survey {
            slice,
            slices,
            start,
            slot_bytes: 0,
            magic: 0,
            slots: 1,
            usable: page.single_bytes.get(),
            used: 1,
            records: if inside { records } else { ptr::null() },
        };
        if page.is_single() {
            return (survey.usable <= (slices as usize) << SLICE_SHIFT).then_some(survey);
        }
        of_slots(page, survey)
    }
}

fn of_slots(page: &Page, survey: Survey) -> Option<Survey> {
    let class = page.class();
    if class >= SLOT_CLASSES || survey.slices as usize != page_slices(class) {
        return None;
    }
    let bytes = page.slot_bytes.get() as usize;
    let slots = page.capacity.get() as usize;
    if bytes != slot_bytes(class) || slots > page_slots(class) {
        return None;
    }
    Some(Survey {
        slot_bytes: bytes,
        magic: page.magic.get(),
        slots,
        usable: bytes,
        used: (page.used.get() as usize).min(slots),
        ..survey
    })
}
