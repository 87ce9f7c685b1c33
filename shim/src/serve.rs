//! What the malloc family does: take, record, count; look up, count, give back.
//!
//! # Design
//! `take` and `give` here are the slow and the recorded paths; the plain fast
//! path is in `exports`. An allocation is counted after its block exists, a free
//! before its block can be reused.
//!
//! ```text
//! site     whose call it is
//! find     what lies at an address
//! resize   realloc: in place, or by moving
//! ```
//!
//! # Failure
//! Null, with `errno` set by the caller. Misuse is reported and survived.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;

use pageshim_core::heap::gpa::classes::{ALIGN, SLOT_MAX, aligned_class};
use pageshim_core::heap::gpa::{Block, Freed, Heap, Page};
use pageshim_core::records::Record;
use pageshim_core::track::Entry;
use pageshim_core::unwind::Regs;
use pageshim_wire::process::Misuse;
use pageshim_wire::thread::{Api, word};

use crate::thread::{RECORDING, SAMPLING, TRACING, Thread, WHOLE};
use crate::world::{SPACES, STATE};
use crate::{emergency, foreign, misuse, sampled, thread, tls, trace, upkeep, whole};

mod find;
mod resize;
mod site;

pub(crate) use find::usable;
pub(crate) use resize::{fits, reallocate};
pub(crate) use site::{captured_site, site_of};

use find::{bears_no_mark, live_slot};
use site::site;

/// Largest request: more cannot be told apart from a negative number.
pub(crate) const REQUEST_MAX: usize = isize::MAX.cast_unsigned();

/// A call into the malloc family.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) api: Api,
    pub(crate) regs: Regs,
}

/// A fresh block.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) pointer: *mut u8,
    /// Its memory is known to be zero.
    pub(crate) zeroed: bool,
}

pub(crate) const NOTHING: Taken = Taken {
    pointer: ptr::null_mut(),
    zeroed: false,
};

/// Allocates `requested` bytes at a multiple of `align` (a power of two).
#[inline(never)]
pub(crate) fn allocate(requested: usize, align: usize, call: &Call) -> Taken {
    if requested > REQUEST_MAX || align > REQUEST_MAX {
        return NOTHING;
    }
    let Some(thread) = tls::get().or_else(thread::attach) else {
        return nested(requested, align);
    };
    let Some(inside) = thread.enter() else {
        return nested(requested, align);
    };
    let taken = take(thread, requested, align, call);
    drop(inside);
    taken
}

fn nested(requested: usize, align: usize) -> Taken {
    Taken {
        pointer: emergency::allocate(requested, align),
        zeroed: false,
    }
}

fn take(thread: &'static Thread, requested: usize, align: usize, call: &Call) -> Taken {
    if thread.gate() & RECORDING == 0 {
        emergency::catch_up(|address| give(thread, address, call));
        if thread.gate() & Heap::BELL != 0 {
            thread.answer_bell();
        }
        if thread.gate() & SAMPLING != 0 {
            if thread.is_due() {
                upkeep::run(thread, call);
            }
            if let Some(sampled) = sampled::take(thread, requested, align, call) {
                return sampled;
            }
        }
    } else if thread.is_due() {
        upkeep::run(thread, call);
    }
    if thread.gate() & WHOLE != 0
        && let Some(taken) = whole::take(thread, requested, align, call)
    {
        return taken;
    }
    let recording = thread.gate() & RECORDING != 0;
    let site = if recording { site(thread, call) } else { 0 };
    thread.works_for(site);
    let heap = thread.heap();
    let found = if align <= ALIGN && requested <= SLOT_MAX {
        heap.take(requested)
            .map(|(block, page)| (block, page, false))
    } else {
        match aligned_class(requested, align) {
            Some(class) => heap
                .take_class(class)
                .map(|(block, page)| (block, page, false)),
            None => heap.take_single(requested, align),
        }
    };
    let Some((block, page, zeroed)) = found else {
        return NOTHING;
    };
    if recording {
        if !page.is_single() {
            block.forget_link();
        }
        thread.note_touched(site);
        record(thread, page, block.address(), requested, site, call.api);
    }
    Taken {
        pointer: block.pointer(),
        zeroed,
    }
}

/// Writes the block's record and counts it.
#[inline(always)]
fn record(thread: &Thread, page: &Page, address: usize, requested: usize, site: u32, api: Api) {
    let slack = page.usable() - requested;
    let Some(word) = page.slot_at(address).and_then(|slot| page.record(slot)) else {
        return;
    };
    let birth = STATE.tick();
    word.store(Record { site, birth, slack }.pack(), Ordering::Relaxed);
    let entry = Entry {
        class: page.class(),
        site,
        requested,
        slack,
    };
    thread.track.allocated(&STATE, &entry, api, address);
    if thread.gate() & TRACING != 0 {
        trace::allocated(thread, address, requested, site);
    }
}

/// Frees a block, whatever it is.
#[inline(never)]
pub(crate) fn free(address: usize, call: &Call) {
    if address == 0 {
        return;
    }
    let Some(thread) = tls::get().or_else(thread::attach) else {
        emergency_or_later(address);
        return;
    };
    let Some(inside) = thread.enter() else {
        emergency_or_later(address);
        return;
    };
    give(thread, address, call);
    drop(inside);
}

fn emergency_or_later(address: usize) {
    if let Some(page) = emergency::page_of(address) {
        emergency::free(address, page);
    } else if SPACES.page_of(address).is_some() || whole::may_put_off(address) {
        emergency::put_off(address);
    }
}

/// Frees a block from inside.
pub(crate) fn give(thread: &'static Thread, address: usize, call: &Call) {
    if whole::holds(address) {
        whole::give(thread, address, call);
        return;
    }
    let Some(page) = SPACES.page_of(address) else {
        match emergency::page_of(address) {
            Some(page) => emergency::free(address, page),
            None => foreign::free(thread, address, call),
        }
        return;
    };
    let page = SPACES.head_of(page, address);
    let Some(slot) = live_slot(page, address) else {
        misuse::report(thread, Misuse::InvalidFree, address, 0, call);
        return;
    };
    if let Some(word) = page.record(slot) {
        let held = word.load(Ordering::Relaxed);
        let Some(record) = Record::unpack(held) else {
            let born = Record::last_site(held);
            misuse::report(thread, Misuse::DoubleFree, address, born, call);
            return;
        };
        word.store(record.freed(), Ordering::Relaxed);
        thread.works_for(record.site);
        if thread.gate() & SAMPLING != 0 {
            sampled::give(thread, page, address, &record);
            return;
        }
        count_free(thread, page, page.usable(), address, &record);
    } else if !bears_no_mark(page, address) {
        misuse::report(thread, Misuse::DoubleFree, address, 0, call);
        return;
    }
    if let Some(pointer) = NonNull::new(ptr::with_exposed_provenance_mut(address))
        && thread.heap().give(page, Block::at(pointer)) == Freed::Remote
    {
        thread.track.bump(word::REMOTE_FREES, 1);
    }
}

#[inline(always)]
fn count_free(thread: &Thread, page: &Page, usable: usize, address: usize, record: &Record) {
    let entry = Entry {
        class: page.class(),
        site: record.site,
        requested: usable.saturating_sub(record.slack),
        slack: record.slack,
    };
    thread.track.freed(&STATE, &entry, record.birth, address);
    if thread.gate() & TRACING != 0 {
        trace::freed(thread, address, entry.requested, record.site);
    }
}

/// Reports a misuse met outside of [`give`].
pub(crate) fn misused(kind: Misuse, address: usize, call: &Call) {
    if let Some(thread) = tls::get().or_else(thread::attach)
        && let Some(_inside) = thread.enter()
    {
        misuse::report(thread, kind, address, 0, call);
    }
}
