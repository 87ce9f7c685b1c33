//! What the malloc family does: take, record, count; look up, count, give back.
//!
//! # Design
//! `take` and `give` here are the slow and the recorded paths; the plain fast
//! path is in `exports`. An allocation is counted after its block exists, a free
//! before its block can be reused.
//!
//! # Failure
//! Null, with `errno` set by the caller. Misuse is reported and survived.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;

use pageshim_core::heap::gpa::classes::{ALIGN, SLOT_MAX, aligned_class};
use pageshim_core::heap::gpa::{Block, Freed, Heap, Kind, Page};
use pageshim_core::modules::Noted;
use pageshim_core::records::Record;
use pageshim_core::sites::Stack;
use pageshim_core::track::Entry;
use pageshim_core::unwind::{Captured, Memo, Regs, Rows};
use pageshim_wire::process::Misuse;
use pageshim_wire::stack::End;
use pageshim_wire::thread::{Api, word};

use crate::thread::{RECORDING, SAMPLING, STACKS, TRACING, Thread, WHOLE};
use crate::world::{MODULES, SITES, SPACES, STATE};
use crate::{
    emergency, fold, foreign, misuse, sampled, thread, tls, trace, upkeep, verify, whole, world,
};

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

/// The site of the calling stack; 0 in modes without stacks.
#[inline(always)]
fn site(thread: &Thread, call: &Call) -> u32 {
    if thread.gate() & STACKS == 0 {
        0
    } else {
        captured_site(thread, call)
    }
}

#[inline(never)]
pub(crate) fn captured_site(thread: &Thread, call: &Call) -> u32 {
    let Some(rows) = world::rows() else { return 0 };
    // SAFETY: we are this thread and inside.
    let (bounds, memo) = unsafe { thread.unwinding() };
    let mut captured = memo.capture(rows, &call.regs, bounds, upkeep::depth_limit());
    if captured.missed > 0 && note_modules(rows, memo) {
        captured = memo.capture(rows, &call.regs, bounds, upkeep::depth_limit());
    }
    let site = site_of_capture(thread, memo, &captured);
    if verify::is_on() {
        verify::check(thread, rows, call.regs, memo, (captured.end, site));
    }
    site
}

/// Writes down the modules that the last capture met first; true when it has to be
/// repeated, because code lies where other code was.
#[cold]
#[inline(never)]
fn note_modules(rows: &Rows, memo: &Memo) -> bool {
    let mut again = false;
    for start in memo.missed() {
        let noted = rows.while_mapped(|| MODULES.note(&STATE, *start));
        match noted {
            Some(Noted::Nothing) => continue,
            Some(Noted::New(slot)) => tell(slot),
            Some(Noted::Instead(slot)) => {
                rows.replace();
                again = true;
                tell(slot);
            }
            None => rows.invalidate(), // it shall be missed again, and noted then
        }
    }
    again
}

fn tell(slot: u64) {
    crate::link::send_words(pageshim_wire::frame::Kind::Module, &[slot]);
}

/// The site of the stack that was just captured.
#[inline(always)]
fn site_of_capture(thread: &Thread, memo: &mut Memo, captured: &Captured) -> u32 {
    let known = memo.site();
    if known != 0 {
        return known;
    }
    if fold::is_on()
        && let Some(site) = fold::site(thread, memo, captured)
    {
        memo.set_site(site);
        return site;
    }
    let site = SITES.find(captured.hash).unwrap_or_else(|| {
        if !matches!(captured.end, End::Complete | End::DepthLimit) {
            STATE.count_drop(pageshim_wire::process::Drop::Unwind);
        }
        let (prefix, shared) = memo.shared();
        let stack = Stack {
            hash: captured.hash,
            depth: captured.depth,
            prefix,
            shared,
            end: captured.end,
            thread: u16::try_from(thread.slot()).unwrap_or(u16::MAX),
            frame: |index| memo.pc(index),
        };
        SITES.intern(&STATE, &stack)
    });
    memo.set_site(site);
    site
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

fn live_slot(page: &Page, address: usize) -> Option<usize> {
    if page.kind() != Kind::Head {
        return None;
    }
    page.slot_at(address)
}

/// True for a block without a record that is live, as far as can be told. A singleton's memory may
/// bear marks of the slots that were there before; one that is freed has no page any more.
fn bears_no_mark(page: &Page, address: usize) -> bool {
    let block = Block::from_address(address);
    page.is_single() || !block.is_some_and(|block| page.marks_free(block))
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

/// What a block can do for its owner now.
struct Found {
    page: &'static Page,
    slot: usize,
    usable: usize,
}

impl Found {
    /// Bytes its owner asked for, when there is a record that says so.
    fn requested(&self) -> Option<usize> {
        let word = self.page.record(self.slot)?;
        let record = Record::unpack(word.load(Ordering::Relaxed))?;
        Some(self.usable.saturating_sub(record.slack))
    }

    fn is_live(&self, address: usize) -> bool {
        match self.page.record(self.slot) {
            Some(word) => Record::unpack(word.load(Ordering::Relaxed)).is_some(),
            None => bears_no_mark(self.page, address),
        }
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

fn find(address: usize) -> Option<Found> {
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

/// The present site of a call; 0 when stacks are not captured.
pub(crate) fn site_of(thread: &Thread, call: &Call) -> u32 {
    if thread.gate() & SAMPLING == 0 {
        site(thread, call)
    } else {
        captured_site(thread, call)
    }
}
