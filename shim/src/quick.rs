//! Blocks as they usually come and go while something is counted.
//!
//! # Design
//! A thread that is outside us, whose heap has a slot at hand, and whose gate says
//! nothing but what to record needs none of the questions of `serve`. What is not as
//! usual answers null or false with nothing done, and `serve` begins anew. All cold
//! ways out are calls in tail position, so that count mode needs no stack frame.
//!
//! A block is counted after it exists, a free before its block can be reused.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_core::heap::gpa::classes::{DIRECT_MAX, SLOT_MAX};
use pageshim_core::heap::gpa::{Block, Page};
use pageshim_core::records::Record;
use pageshim_core::track::{Counters, Entry};
use pageshim_wire::thread::Api;

use crate::exports::{call, caller, free_slow, or_enomem};
use crate::serve::captured_site;
use crate::thread::{RECORDING, STACKS, TRACING, Thread};
use crate::world::{SPACES, STATE};
use crate::{tls, trace, verify, world};

/// The gate of a thread that only counts.
const COUNTING: u8 = RECORDING;
/// The gate of a thread that bills each block to its stack, `TRACING` aside.
const BILLING: u8 = RECORDING | STACKS;

/// One of the functions that allocate.
pub(crate) trait Way {
    /// What it is counted as.
    const API: Api;

    /// What it does when something is not as usual.
    extern "C" fn slow(requested: usize, sp: *const u64, bp: u64) -> *mut u8;
}

/// Allocates as usual, or the slow way.
#[inline(always)]
pub(crate) fn take<W: Way>(requested: usize, sp: *const u64, bp: u64) -> *mut u8 {
    match tls::get() {
        Some(thread) if thread.gate() == COUNTING => take_counted::<W>(thread, requested, sp, bp),
        Some(thread) if thread.gate() & !TRACING == BILLING => {
            take_billed::<W>(requested, sp, bp, thread)
        }
        _ => W::slow(requested, sp, bp),
    }
}

#[inline(always)]
fn take_counted<W: Way>(
    thread: &'static Thread,
    requested: usize,
    sp: *const u64,
    bp: u64,
) -> *mut u8 {
    if requested > DIRECT_MAX || !thread.has_time() {
        return W::slow(requested, sp, bp);
    }
    thread.close(COUNTING);
    let Some((block, page)) = thread.heap().take_ready(requested) else {
        thread.open(COUNTING);
        return W::slow(requested, sp, bp);
    };
    if let Some((slot, word)) = page.record_of(block) {
        // SAFETY: the gate was as it has to be before it was closed.
        let counters = unsafe { thread.counters() };
        let slack = slot - requested;
        let (site, birth) = (0, 1);
        word.store(Record { site, birth, slack }.pack(), Ordering::Relaxed);
        counters.came_to_class(page.class(), requested);
        counters.came_by(W::API);
        if counters.grew(requested) {
            return published(thread, block.pointer());
        }
    }
    thread.open(COUNTING);
    block.pointer()
}

/// Publishes what is pending, for a block that has come. The compiler must not see
/// that the pointer comes back: the call would not be in tail position any more.
#[cold]
#[inline(never)]
fn published(thread: &'static Thread, pointer: *mut u8) -> *mut u8 {
    thread.track.publish(&STATE);
    thread.leave();
    black_box(pointer)
}

#[inline(never)]
extern "C" fn take_billed<W: Way>(
    requested: usize,
    sp: *const u64,
    bp: u64,
    thread: &'static Thread,
) -> *mut u8 {
    if requested > SLOT_MAX || !thread.has_time() {
        return W::slow(requested, sp, bp);
    }
    thread.close(thread.gate());
    let site = site(sp, bp, thread);
    let taken = match thread.heap().take_ready(requested) {
        None => take_slowly(thread, site, requested),
        ready => ready,
    };
    let Some((block, page)) = taken else {
        thread.leave();
        return or_enomem(ptr::null_mut()).cast();
    };
    block.forget_link();
    if let Some((slot, word)) = page.record_of(block) {
        // SAFETY: the gate was as it has to be before it was closed.
        let counters = unsafe { thread.counters() };
        let slack = slot - requested;
        let birth = STATE.tick();
        word.store(Record { site, birth, slack }.pack(), Ordering::Relaxed);
        let class = page.class();
        counters.came(&Entry {
            class,
            site,
            requested,
            slack,
        });
        counters.came_by(W::API);
        thread.track.note_last(block.address());
        if thread.gate() & TRACING != 0 {
            trace::allocated(thread, block.address(), requested, site);
        }
        if counters.grew(requested) {
            return published(thread, block.pointer());
        }
    }
    thread.leave();
    block.pointer()
}

/// A slot that is not at hand, for a site.
#[cold]
#[inline(never)]
fn take_slowly(
    thread: &'static Thread,
    site: u32,
    requested: usize,
) -> Option<(Block, &'static Page)> {
    let taken = thread.heap().take_for(site, requested);
    thread.note_touched(site);
    taken
}

/// The site of the calling stack. Apart from its caller, which so needs few registers
/// of its own.
#[inline(never)]
extern "C" fn site(sp: *const u64, bp: u64, thread: &Thread) -> u32 {
    // SAFETY: the stubs pass their entry's stack pointer.
    let regs = unsafe { caller(sp, bp) };
    if let Some(rows) = world::rows()
        && !verify::is_on()
    {
        // SAFETY: we are this thread and inside.
        let (bounds, memo) = unsafe { thread.unwinding() };
        let site = memo.recall(rows, &regs, bounds);
        if site != 0 {
            return site;
        }
    }
    new_site(sp, bp, thread)
}

/// The site of a stack not seen lately.
#[inline(never)]
extern "C" fn new_site(sp: *const u64, bp: u64, thread: &Thread) -> u32 {
    captured_site(thread, &call(Api::Malloc, sp, bp))
}

/// Frees as usual, or the slow way.
#[inline(always)]
pub(crate) fn give(pointer: *mut u8, sp: *const u64, bp: u64) {
    match tls::get() {
        Some(thread) if thread.gate() == COUNTING => give_counted(pointer, sp, bp, thread),
        Some(thread) if thread.gate() == BILLING => {
            give_billed::<BILLING>(pointer, sp, bp, thread);
        }
        Some(thread) if thread.gate() == BILLING | TRACING => {
            give_billed::<{ BILLING | TRACING }>(pointer, sp, bp, thread);
        }
        _ => free_slow(pointer, sp, bp),
    }
}

/// A block as its page and its record know it.
struct Known {
    page: &'static Page,
    block: Block,
    slot: usize,
    word: &'static AtomicU64,
    record: Record,
    counters: Counters,
}

/// Finds a live block of a page of this thread's own.
#[inline(always)]
fn find(thread: &'static Thread, pointer: *mut u8) -> Option<Known> {
    let page = SPACES.first().page_of(pointer.addr())?;
    if !thread.heap().owns_recorded(page) {
        return None;
    }
    // SAFETY: an address in our space is not zero.
    let block = Block::at(unsafe { NonNull::new_unchecked(pointer) });
    let (slot, word) = page.recorded_slot(block)?;
    let record = Record::unpack(word.load(Ordering::Relaxed))?;
    // SAFETY: give() has looked at the gate.
    let counters = unsafe { thread.counters() };
    Some(Known {
        page,
        block,
        slot,
        word,
        record,
        counters,
    })
}

#[inline(always)]
fn give_counted(pointer: *mut u8, sp: *const u64, bp: u64, thread: &'static Thread) {
    let Some(known) = find(thread, pointer) else {
        return free_slow(pointer, sp, bp);
    };
    thread.close(COUNTING);
    known.word.store(0, Ordering::Relaxed);
    let requested = known.slot.wrapping_sub(known.record.slack);
    let class = known.page.class();
    known.counters.went_from_class(class, requested);
    give_back(thread, &known, requested, COUNTING);
}

#[inline(never)]
extern "C" fn give_billed<const GATE: u8>(
    pointer: *mut u8,
    sp: *const u64,
    bp: u64,
    thread: &'static Thread,
) {
    let Some(known) = find(thread, pointer) else {
        return free_slow(pointer, sp, bp);
    };
    thread.close(GATE);
    known.word.store(known.record.freed(), Ordering::Relaxed);
    let Record { site, birth, slack } = known.record;
    let requested = known.slot.wrapping_sub(slack);
    let class = known.page.class();
    let entry = Entry {
        class,
        site,
        requested,
        slack,
    };
    let temporary = thread.track.is_last(known.block.address());
    known.counters.went(&entry, temporary);
    known.counters.lived(site, birth, STATE.tick());
    if GATE & TRACING != 0 {
        trace::freed(thread, known.block.address(), requested, site);
    }
    give_back(thread, &known, requested, GATE);
}

#[inline(always)]
fn give_back(thread: &'static Thread, known: &Known, requested: usize, gate: u8) {
    let far = known.counters.shrank(requested);
    let empty = thread.heap().give_back(known.page, known.block);
    if far || empty {
        settle(thread, known.page);
    } else {
        thread.open(gate);
    }
}

/// What follows a free now and then.
#[cold]
#[inline(never)]
fn settle(thread: &'static Thread, page: &'static Page) {
    thread.track.publish_if_far(&STATE);
    thread.heap().settle_empty(page);
    thread.leave();
}
