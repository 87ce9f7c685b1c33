//! `PAGESHIM_HEAP`: the whole process on another heap than the general purpose one.
//!
//! # Design
//! Which heap is chosen once, while booting. Threads then carry the gate bit
//! WHOLE, so that every call comes through `serve`, which asks here first:
//! [`take`] answers `None` to leave the call to the general purpose heap, and
//! [`holds`] says by one range test whose an address is. What came from the
//! general purpose or an emergency heap stays theirs.
//!
//! The record of a block is taken with one swap before anything else is done to
//! the block, so that of two frees only one finds it.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use pageshim_core::heap::gpa::classes::{ALIGN, SINGLETON};
use pageshim_core::records::Record;
use pageshim_core::sys;
use pageshim_core::track::Entry;
use pageshim_core::whole::{Block, Bump, Debug, Family, Found, PageHeap, Past, Stale};
use pageshim_wire::process::{Heap, Misuse};
use pageshim_wire::thread::{Api, word};

use crate::serve::{self, Call, NOTHING, Taken};
use crate::thread::{RECORDING, TRACING, Thread};
use crate::world::{PAGES, STATE};
use crate::{fork, misuse, thread, tls, trace};

mod checks;
mod limits;

pub(crate) use checks::{Claim, at_exit, check, checks, mark_array};

static CHOSEN: AtomicU8 = AtomicU8::new(Heap::Gpa as u8);
static BASE: AtomicUsize = AtomicUsize::new(0);
static SPAN: AtomicUsize = AtomicUsize::new(0);
static WARNED: AtomicBool = AtomicBool::new(false);

static PAGE: PageHeap = PageHeap::new(PAGES);
static BUMP: Bump = Bump::new(PAGES);
static DEBUG: Debug = Debug::new(PAGES);

/// Reserves the heap asked for; answers it, or the general purpose one with a
/// line on stderr when its addresses are refused. While booting.
pub(crate) fn start(asked: Heap, fixed_bytes: usize) -> Heap {
    let started = match asked {
        Heap::Page => PAGE.reserve(limits::page_span(), limits::mappings_max()),
        Heap::Arena => BUMP.reserve(limits::arena_span()),
        Heap::Fixed => BUMP.reserve(fixed_bytes),
        Heap::Debug => DEBUG.reserve(limits::debug_span()),
        Heap::Gpa => return Heap::Gpa,
    };
    if !started {
        let _ = sys::write(
            2,
            b"pageshim: the kernel refuses the addresses PAGESHIM_HEAP needs (ulimit -v?); using gpa\n",
        );
        return Heap::Gpa;
    }
    let (base, span) = match asked {
        Heap::Page => PAGE.range(),
        Heap::Debug => DEBUG.range(),
        _ => BUMP.range(),
    };
    BASE.store(base, Ordering::Relaxed);
    SPAN.store(span, Ordering::Relaxed);
    CHOSEN.store(asked as u8, Ordering::Release);
    asked
}

/// True when the process is on such a heap.
pub(crate) fn is_on() -> bool {
    chosen() != Heap::Gpa
}

fn chosen() -> Heap {
    Heap::from_word(u64::from(CHOSEN.load(Ordering::Acquire))).unwrap_or(Heap::Gpa)
}

/// The reserve, when there is one.
pub(crate) fn range() -> Option<(usize, usize)> {
    is_on().then(|| (BASE.load(Ordering::Relaxed), SPAN.load(Ordering::Relaxed)))
}

/// True for an address in the reserve.
#[inline]
pub(crate) fn holds(address: usize) -> bool {
    address.wrapping_sub(BASE.load(Ordering::Relaxed)) < SPAN.load(Ordering::Relaxed)
}

fn find(address: usize) -> Found {
    match chosen() {
        Heap::Page => PAGE.find(address),
        Heap::Debug => DEBUG.find(address),
        _ => BUMP.find(address),
    }
}

/// What the debug heap knows of a live block.
fn usable_past(address: usize) -> Option<Past> {
    match DEBUG.find(address) {
        Found::Live(_) => DEBUG.past(address),
        _ => None,
    }
}

/// True when a free of this address can be put off: its first bytes may be written.
pub(crate) fn may_put_off(address: usize) -> bool {
    holds(address) && usable(address) >= size_of::<usize>()
}

/// Bytes usable of a block; 0 for what is none.
pub(crate) fn usable(address: usize) -> usize {
    match find(address) {
        Found::Live(block) => block.usable,
        _ => 0,
    }
}

/// A block, or null when this heap is at its end; `None` leaves the call to the
/// general purpose heap.
pub(crate) fn take(
    thread: &'static Thread,
    requested: usize,
    align: usize,
    call: &Call,
) -> Option<Taken> {
    // Before any lock: a copy made by a raw clone may hold one whose holder is not here.
    fork::notice_copy(thread);
    let site = site(thread, call);
    thread.works_for(site);
    let block = match chosen() {
        Heap::Page => PAGE
            .take(requested, align)
            .or_else(|| fall_back(requested))?,
        Heap::Debug => {
            let family = match call.api {
                Api::New => Family::New,
                _ => Family::Malloc,
            };
            let mut stale = Stale::default();
            let block = DEBUG.take(requested, align, family, &mut stale);
            checks::report_stale(thread, &stale, call);
            block.or_else(|| fall_back(requested))?
        }
        _ => match BUMP.take(requested, align) {
            Some(block) => block,
            None => return Some(NOTHING),
        },
    };
    note(thread, &block, site, call.api);
    Some(Taken {
        pointer: ptr::with_exposed_provenance_mut(block.address),
        zeroed: block.zeroed,
    })
}

/// The one line about blocks that come from elsewhere. A block that no reserve
/// could hold is refused by the general purpose heap as well: nothing to say.
#[cold]
fn fall_back(requested: usize) -> Option<Block> {
    if requested < SPAN.load(Ordering::Relaxed) && !WARNED.swap(true, Ordering::Relaxed) {
        let line: &[u8] = match chosen() {
            Heap::Page => b"pageshim: too many blocks for PAGESHIM_HEAP=page (see vm.max_map_count); further ones come from gpa\n",
            _ => b"pageshim: PAGESHIM_HEAP=debug has no addresses or memory left; further blocks come from gpa, unchecked\n",
        };
        let _ = sys::write(2, line);
    }
    None
}

/// The site of a call; 0 when nothing is recorded.
fn site(thread: &Thread, call: &Call) -> u32 {
    if thread.gate() & RECORDING == 0 {
        return 0;
    }
    serve::site_of(thread, call)
}

/// Writes the record of a block and counts it.
fn note(thread: &'static Thread, block: &Block, site: u32, api: Api) {
    let slack = block.usable - block.requested;
    let record = Record {
        site,
        birth: STATE.tick(),
        slack: slack.min(usize::from(u16::MAX)),
    };
    block.record.store(record.pack(), Ordering::Relaxed);
    if thread.gate() & RECORDING != 0 {
        let entry = entry(block, site);
        let track = &thread.track;
        track.allocated(&STATE, &entry, api, block.address);
        if thread.gate() & TRACING != 0 {
            trace::allocated(thread, block.address, block.requested, site);
        }
    }
}

fn entry(block: &Block, site: u32) -> Entry {
    Entry {
        class: SINGLETON,
        site,
        requested: block.requested,
        slack: block.usable - block.requested,
    }
}

fn count_free(thread: &Thread, block: &Block, record: &Record) {
    if thread.gate() & RECORDING == 0 {
        return;
    }
    let entry = entry(block, record.site);
    let track = &thread.track;
    track.freed(&STATE, &entry, record.birth, block.address);
    if thread.gate() & TRACING != 0 {
        trace::freed(thread, block.address, block.requested, record.site);
    }
}

/// Takes the record of the live block at `address`, or reports why there is none.
fn seize(thread: &'static Thread, address: usize, call: &Call) -> Option<(Block, Record)> {
    let kind = match find(address) {
        Found::Live(block) => {
            let word = block.record.swap(0, Ordering::Relaxed);
            if let Some(record) = Record::unpack(word) {
                return Some((block, record));
            }
            Misuse::DoubleFree
        }
        Found::Freed => Misuse::DoubleFree,
        Found::Nothing => Misuse::InvalidFree,
    };
    let past = match chosen() {
        Heap::Debug => DEBUG.past(address),
        _ => None,
    };
    let sites = past.map_or((0, 0), |past| (past.born, past.freed));
    misuse::report_past(thread, kind, address, sites, call);
    None
}

/// Frees a block of the reserve, from inside.
pub(crate) fn give(thread: &'static Thread, address: usize, call: &Call) {
    fork::notice_copy(thread);
    let Some((block, record)) = seize(thread, address, call) else {
        return;
    };
    count_free(thread, &block, &record);
    thread.works_for(record.site);
    match chosen() {
        Heap::Page => PAGE.give(address),
        Heap::Debug => checks::give(thread, address, record.site, call),
        _ => BUMP.give(address),
    }
}

/// Resizes a block of the reserve: by the heap itself, else by moving it.
pub(crate) fn reallocate(address: usize, requested: usize, call: &Call) -> *mut u8 {
    let mut kept = usable(address);
    if let Some(thread) = tls::get().or_else(thread::attach)
        && let Some(_inside) = thread.enter()
    {
        match resize(thread, address, requested, call) {
            Some(Ok(moved)) => return ptr::with_exposed_provenance_mut(moved),
            Some(Err(())) => {}
            None => kept = 0,
        }
    }
    let known = known(address);
    let last = known.is_some_and(|(thread, _)| thread.track.is_last(address));
    let taken = serve::allocate(requested, ALIGN, call);
    if taken.pointer.is_null() || kept == 0 {
        return taken.pointer;
    }
    let old = ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: both are live blocks of at least so many bytes and not the same.
    unsafe { ptr::copy_nonoverlapping(old, taken.pointer, kept.min(requested)) };
    serve::free(address, call);
    if let Some(thread) = tls::get() {
        thread.track.bump(word::REALLOC_MOVED, 1);
    }
    if let Some((thread, old)) = known {
        thread.track.moved(old, requested, last);
    }
    taken.pointer
}

/// The thread, when it records, and the bytes asked for a block.
fn known(address: usize) -> Option<(&'static Thread, usize)> {
    let thread = tls::get().filter(|thread| thread.gate() & RECORDING != 0)?;
    match find(address) {
        Found::Live(block) => Some((thread, block.requested)),
        _ => None,
    }
}

/// Where the block is now; an error when it has to be copied; `None` when there
/// was none, which is reported.
fn resize(
    thread: &'static Thread,
    address: usize,
    requested: usize,
    call: &Call,
) -> Option<Result<usize, ()>> {
    let (old, record) = seize(thread, address, call)?;
    let site = site(thread, call);
    thread.works_for(site);
    let resized = match chosen() {
        Heap::Page => PAGE.resize(address, requested),
        Heap::Debug => None,
        _ => BUMP.resize(address, requested),
    };
    let Some(new) = resized else {
        old.record.store(record.pack(), Ordering::Relaxed);
        return Some(Err(()));
    };
    let last = thread.track.is_last(address);
    let newest = match thread.gate() & RECORDING {
        0 => None,
        _ => thread.track.resized(old.requested, requested, false, last),
    };
    count_free(thread, &old, &record);
    note(thread, &new, site, Api::Realloc);
    if let Some(newest) = newest {
        thread.track.note_last(newest);
    }
    if new.address == address {
        thread.track.bump(word::REALLOC_IN_PLACE, 1);
    }
    Some(Ok(new.address))
}

/// Visits site and requested bytes of every live block.
pub(crate) fn each_live(mut visit: impl FnMut(u32, u64)) {
    let mut visit = |block: &Block| {
        if let Some(record) = Record::unpack(block.record.load(Ordering::Relaxed)) {
            visit(record.site, block.requested as u64);
        }
    };
    match chosen() {
        Heap::Gpa => {}
        Heap::Page => PAGE.each_live(&mut visit),
        Heap::Debug => DEBUG.each_live(&mut visit),
        _ => BUMP.each_live(&mut visit),
    }
}

/// Takes the locks for the time of a fork.
pub(crate) fn hold() {
    PAGE.hold();
    BUMP.hold();
    DEBUG.hold();
}

/// Opens them again.
///
/// # Safety
/// No other thread of this process is inside one of them.
pub(crate) unsafe fn release() {
    // SAFETY: the caller's duty.
    unsafe {
        DEBUG.release();
        BUMP.release();
        PAGE.release();
    }
}
