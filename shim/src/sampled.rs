//! Mode sampled: the blocks that a sample falls on, and nothing else, are recorded.
//!
//! # Design
//! A thread counts down the bytes it asks for ([`pageshim_core::sample`]); a block
//! that is not hit is served and freed by the plain fast path, as in mode off.
//! One that is hit comes from a heap of its own, whose pages have records, so that
//! its free is recognised by its page. That heap is the process's, under a lock:
//! one block in half a megabyte goes through it, and a heap of this kind for each
//! thread would pin pages of every class for every thread. A singleton needs no
//! other heap, only a record in its page.
//!
//! A resized block is a free and an allocation, as in the other modes. It stays
//! in place while it stays what it is, sampled or not.
//!
//! # Concurrency
//! The lock is taken by threads that are inside (signal handlers stay out), after
//! all others but the heap's own, and held over fork. A raw copy of the process
//! (no handlers) is noticed before the lock is tried; a heap that another thread
//! was in at that moment is left as an orphan, and a new one made.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_core::heap::gpa::classes::{ALIGN, SLOT_MAX, aligned_class};
use pageshim_core::heap::gpa::{Block, Freed, Heap, Page};
use pageshim_core::records::Record;
use pageshim_core::sample::Weight;
use pageshim_core::sync::Lock;
use pageshim_core::sys;
use pageshim_core::track::Sample;
use pageshim_wire::process::{Drop as Dropped, word as process_word};
use pageshim_wire::thread::{Api, word};

use crate::fork;
use crate::serve::{self, Call, Taken};
use crate::thread::Thread;
use crate::world::{ACCOUNTS, OWN, SPACES, STATE};

static INTERVAL: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
static HEAP: Lock<Option<&'static Heap>> = Lock::new(None);

/// Most bytes of slack that a record holds.
const SLACK_MAX: usize = 0xffff;

/// Says how far apart samples are on average, and where their draws begin.
pub(crate) fn set_interval(bytes: u64, seed: Option<u64>) {
    INTERVAL.store(bytes, Ordering::Relaxed);
    SEED.store(seed.unwrap_or_else(sys::random), Ordering::Relaxed);
}

fn interval() -> u64 {
    INTERVAL.load(Ordering::Relaxed)
}

/// A thread begins to draw, or begins anew in a state that another one left.
pub(crate) fn begin(thread: &Thread) {
    let owner = thread.slot() << 32 | thread.track.get(word::GENERATION);
    let seed = SEED.load(Ordering::Relaxed).wrapping_add(owner);
    thread.sampler.begin(seed, interval());
}

/// The block, when a sample falls on it.
pub(crate) fn take(
    thread: &'static Thread,
    requested: usize,
    align: usize,
    call: &Call,
) -> Option<Taken> {
    if !thread.sampler.hits(requested, interval()) {
        return None;
    }
    fork::notice_copy(thread);
    let Some((block, page, zeroed)) = place(thread, requested, align) else {
        STATE.count_drop(Dropped::Records);
        return None;
    };
    record(thread, page, block.address(), requested, call);
    Some(Taken {
        pointer: block.pointer(),
        zeroed,
    })
}

/// A block on a page with records.
fn place(thread: &Thread, requested: usize, align: usize) -> Option<(Block, &'static Page, bool)> {
    if align <= ALIGN && requested <= SLOT_MAX {
        let (block, page) = with_heap(|heap| heap.take(requested))?;
        return Some((block, page, false));
    }
    if let Some(class) = aligned_class(requested, align) {
        let (block, page) = with_heap(|heap| heap.take_class(class))?;
        return Some((block, page, false));
    }
    let single = thread.heap().take_single(requested, align)?;
    single.1.keep_single_record(true);
    Some(single)
}

/// Calls with the heap of sampled blocks; `None` without memory for it.
fn with_heap<T>(call: impl FnOnce(&'static Heap) -> Option<T>) -> Option<T> {
    let mut shared = HEAP.lock();
    if shared.is_none() {
        let bytes = size_of::<Heap>().next_multiple_of(pageshim_core::OS_PAGE_BYTES);
        let at = OWN.map(bytes)?;
        ACCOUNTS.add(process_word::METADATA, i64::try_from(bytes).ok()?);
        let at = ptr::with_exposed_provenance_mut::<Heap>(at);
        // SAFETY: fresh pages of a heap's size, never unmapped.
        *shared = Some(unsafe { Heap::place_unlisted(at, &SPACES, &ACCOUNTS, true) });
    }
    call((*shared)?)
}

/// Writes a sampled block's record and counts it for what it stands for.
fn record(thread: &Thread, page: &Page, address: usize, requested: usize, call: &Call) {
    let site = serve::site_of(thread, call);
    let Some(word) = page.slot_at(address).and_then(|slot| page.record(slot)) else {
        return;
    };
    let record = Record {
        site,
        birth: STATE.tick(),
        slack: (page.usable() - requested).min(SLACK_MAX),
    };
    word.store(record.pack(), Ordering::Relaxed);
    let sample = sample(page, &record);
    thread.track.sampled(&STATE, &sample, call.api);
}

/// What a record's block stands for; the same when it is made and when it is freed.
pub(crate) fn sample(page: &Page, record: &Record) -> Sample {
    let requested = page.usable().saturating_sub(record.slack);
    Sample {
        class: page.class(),
        site: record.site,
        weight: Weight::of(requested, interval()),
    }
}

/// Frees a sampled block, whose record has been cleared.
pub(crate) fn give(thread: &'static Thread, page: &'static Page, address: usize, record: &Record) {
    fork::notice_copy(thread);
    let sample = sample(page, record);
    thread.track.sample_freed(&STATE, &sample, record.birth);
    let Some(pointer) = NonNull::new(ptr::with_exposed_provenance_mut(address)) else {
        return;
    };
    let block = Block::at(pointer);
    let freed = if page.is_single() {
        Some(thread.heap().give(page, block))
    } else {
        with_heap(|heap| Some(heap.give(page, block)))
    };
    if freed == Some(Freed::Remote) {
        thread.track.bump(word::REMOTE_FREES, 1);
    }
}

/// A live block's page and slot.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) page: &'static Page,
    pub(crate) slot: usize,
}

/// Tries to resize in place and counts it. False moves nothing on: the
/// allocation that follows meets the same sample.
pub(crate) fn resize(
    thread: &'static Thread,
    place: &Place,
    address: usize,
    requested: usize,
    call: &Call,
) -> bool {
    let page = place.page;
    let old = page
        .record(place.slot)
        .and_then(|word| Record::unpack(word.load(Ordering::Relaxed)));
    let hit = thread.sampler.past(requested).is_none();
    if !page.is_single() && old.is_some() != hit {
        return false;
    }
    let old = old.map(|old| (sample(page, &old), old.birth));
    if !serve::fits(thread, page, requested) {
        return false;
    }
    thread.sampler.hits(requested, interval());
    if let Some((old, birth)) = old {
        thread.track.sample_freed(&STATE, &old, birth);
    }
    if page.is_single() {
        page.keep_single_record(hit);
    }
    if hit {
        let call = Call {
            api: Api::Realloc,
            ..*call
        };
        record(thread, page, address, requested, &call);
    }
    thread.track.bump(word::REALLOC_IN_PLACE, 1);
    true
}

/// Takes the lock for the time of a fork.
pub(crate) fn hold() {
    HEAP.hold();
}

/// Opens it again.
///
/// # Safety
/// See [`Lock::release`].
pub(crate) unsafe fn release() {
    // SAFETY: the caller's duty.
    unsafe { HEAP.release() };
}

/// In a copy of the process that ran no fork handlers, before [`release`]: a heap
/// some thread was in is not trusted any more. Its pages take frees.
///
/// # Safety
/// This is the only thread of the process.
pub(crate) unsafe fn salvage() {
    if HEAP.try_lock().is_some() {
        return;
    }
    // SAFETY: the caller's duty: the holder is not here.
    unsafe { HEAP.release() };
    if let Some(torn) = HEAP.lock().take() {
        torn.orphan();
    }
}

/// In a forked child: other draws than the parent's.
pub(crate) fn part_ways(thread: &Thread) {
    if interval() != 0 {
        thread.sampler.stir(u64::from(sys::process_id()));
    }
}
