//! `realloc`: in place when the block can be that large, else by moving it.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::Ordering;

use pageshim_core::heap::gpa::Page;
use pageshim_core::heap::gpa::classes::{ALIGN, SLOT_MAX};
use pageshim_core::records::Record;
use pageshim_core::track::Entry;
use pageshim_wire::process::Misuse;
use pageshim_wire::thread::{Api, word};

use super::find::{Found, find};
use super::site::site;
use super::{Call, REQUEST_MAX, allocate, free, misused, record};
use crate::thread::{RECORDING, SAMPLING, TRACING, Thread};
use crate::world::{SPACES, STATE};
use crate::{foreign, sampled, thread, tls, trace, whole};

/// Resizes a block: in place when it fits and is not far too large, else by
/// moving it. Null leaves the old block as it was.
#[inline(never)]
pub(crate) fn reallocate(address: usize, requested: usize, call: &Call) -> *mut u8 {
    if requested > REQUEST_MAX {
        return ptr::null_mut();
    }
    if whole::holds(address) {
        return whole::reallocate(address, requested, call);
    }
    let Some(found) = find(address) else {
        if SPACES.page_of(address).is_none() {
            return foreign::reallocate(address, requested, call);
        }
        misused(Misuse::InvalidFree, address, call);
        return ptr::null_mut();
    };
    if !found.is_live(address) {
        misused(Misuse::DoubleFree, address, call);
        return ptr::null_mut();
    }
    if SPACES.page_of(address).is_some()
        && let Some(thread) = tls::get().or_else(thread::attach)
        && let Some(_inside) = thread.enter()
        && resize(thread, &found, address, requested, call)
    {
        return ptr::with_exposed_provenance_mut(address);
    }
    copy(&found, address, requested, call)
}

/// Resizes a block by moving it.
fn copy(found: &Found, address: usize, requested: usize, call: &Call) -> *mut u8 {
    let counting = tls::get().filter(|thread| thread.gate() & RECORDING != 0);
    let known = counting.zip(found.requested());
    let last = known.is_some_and(|(thread, _)| thread.track.is_last(address));
    if let Some((thread, old)) = known {
        thread.track.copying(old);
    }
    let taken = allocate(requested, ALIGN, call);
    if !taken.pointer.is_null() {
        let kept = requested.min(found.usable);
        let old = ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: both are live blocks of at least `kept` bytes and not the same.
        unsafe { ptr::copy_nonoverlapping(old, taken.pointer, kept) };
        free(address, call);
        if let Some(thread) = tls::get() {
            thread.track.bump(word::REALLOC_MOVED, 1);
        }
    }
    if let Some((thread, old)) = known {
        thread.track.copied(old);
        if !taken.pointer.is_null() {
            thread.track.moved(old, requested, last);
        }
    }
    taken.pointer
}

/// Tries to resize in place and counts it.
fn resize(
    thread: &'static Thread,
    found: &Found,
    address: usize,
    requested: usize,
    call: &Call,
) -> bool {
    let page = found.page;
    if thread.gate() & SAMPLING != 0 {
        let place = sampled::Place {
            page,
            slot: found.slot,
        };
        return sampled::resize(thread, &place, address, requested, call);
    }
    let old = page
        .record(found.slot)
        .and_then(|word| Record::unpack(word.load(Ordering::Relaxed)));
    if page.is_single() && old.is_some() {
        thread.works_for(site(thread, call));
    }
    let old_entry = old.map(|record| (record, found.usable.saturating_sub(record.slack)));
    if !fits(thread, page, requested) {
        return false;
    }
    if let Some((old, old_requested)) = old_entry {
        let entry = Entry {
            class: page.class(),
            site: old.site,
            requested: old_requested,
            slack: old.slack,
        };
        let last = thread.track.is_last(address);
        let newest = thread.track.resized(old_requested, requested, false, last);
        thread.track.freed(&STATE, &entry, old.birth, address);
        if thread.gate() & TRACING != 0 {
            trace::freed(thread, address, old_requested, old.site);
        }
        let site = site(thread, call);
        record(thread, page, address, requested, site, Api::Realloc);
        if let Some(newest) = newest {
            thread.track.note_last(newest);
        }
        thread.track.bump(word::REALLOC_IN_PLACE, 1);
    }
    true
}

/// True when a block can be `requested` bytes where it is, and is not far too large
/// for that; a singleton's run is cut or extended on the way.
pub(crate) fn fits(thread: &Thread, page: &'static Page, requested: usize) -> bool {
    if page.is_single() {
        return requested > SLOT_MAX && thread.heap().resize_single(page, requested);
    }
    requested <= page.usable() && requested >= page.usable() / 2
}
