//! fork: a child must never write into its parent's books.
//!
//! # Design
//! A page the kernel wipes in every copy of the process holds a word:
//! [`SETTLED`] in a process whose state is its own, zero in a fresh copy, and
//! [`PRIVATE`] in a child that counts in private memory until it has lived
//! ([`LIVED_BYTES`] allocated or [`LIVED_MS`] passed). Then it makes a memfd of
//! its own, with its parent's sites and modules, and recounts what it inherited
//! from the (copied) records. A child that execs at once, as a shell's does, pays
//! four system calls. vfork children share memory, word included, and so share
//! the books.
//!
//! Locks are taken before fork() and opened after it on both sides, in the order
//! sites, modules, link, sampled, heap, mappings, deepbind; a raw clone skips that, and its child finds the
//! wiped word instead. Heaps of threads that did not come along take frees and
//! nothing else.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use pageshim_core::heap::gpa::all_heaps;
use pageshim_core::heap::gpa::classes::{CLASSES, SINGLETON};
use pageshim_core::records::Record;
use pageshim_core::sys;
use pageshim_wire::process::{Mode, word};
use pageshim_wire::thread::word as thread_word;

use crate::thread::{Thread, all_threads};
use crate::world::{ACCOUNTS, MODULES, OWN, SITES, SPACES, STATE};
use crate::{
    check, deepbind, held, link, mappings, sampled, signals, suppressions, tls, whole, world,
};

const SETTLED: u64 = 1;
const PRIVATE: u64 = 2;
const LIVED_BYTES: u64 = 64 << 10;
const LIVED_MS: u64 = 100;

static CANARY: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static BORN_MS: AtomicU64 = AtomicU64::new(0);

fn canary() -> Option<&'static AtomicU64> {
    // SAFETY: null or a word of a page mapped for ever.
    unsafe { CANARY.load(Ordering::Relaxed).as_ref() }
}

fn settle(value: u64) {
    if let Some(word) = canary() {
        word.store(value, Ordering::Relaxed);
    }
}

/// Maps the page that is wiped in copies.
pub(crate) fn plant_canary() {
    let Some(at) = OWN.map(pageshim_core::OS_PAGE_BYTES) else {
        return;
    };
    // SAFETY: our own fresh page.
    if unsafe { sys::advise(at, pageshim_core::OS_PAGE_BYTES, sys::WIPEONFORK) }.is_ok() {
        CANARY.store(ptr::with_exposed_provenance_mut(at), Ordering::Relaxed);
        settle(SETTLED);
    }
}

/// True in a process (or a vfork child) that may not write the state's header.
pub(crate) fn is_copy() -> bool {
    let settled = canary().is_none_or(|word| word.load(Ordering::Relaxed) == SETTLED);
    !settled || STATE.get(word::PID) != u64::from(sys::process_id())
}

/// From upkeep: finds out that this process is a copy, or has lived.
pub(crate) fn notice_copy(thread: &'static Thread) {
    if let Some(word) = canary()
        && word.load(Ordering::Relaxed) != SETTLED
    {
        notice(thread, word.load(Ordering::Relaxed));
    }
}

#[cold]
#[inline(never)]
fn notice(thread: &'static Thread, word: u64) {
    // Until this child has its own state, upkeep looks at every allocation.
    thread.due_in(0);
    if word == PRIVATE {
        grow_when_lived(thread);
    } else {
        // A copy that ran no handlers: whoever held a lock is not here.
        // SAFETY: this is the only thread of the copy.
        unsafe {
            sampled::salvage();
            open_all();
        }
        become_child(thread);
    }
}

pub(crate) extern "C" fn prepare() {
    SITES.hold();
    MODULES.hold();
    link::hold();
    sampled::hold();
    SPACES.hold();
    whole::hold();
    mappings::hold();
    deepbind::hold();
}

/// # Safety
/// No other thread of this process is inside one of the locks.
unsafe fn open_all() {
    // SAFETY: the caller's duty, for each lock.
    unsafe {
        deepbind::release();
        mappings::release();
        whole::release();
        SPACES.release();
        sampled::release();
        link::release();
        MODULES.release();
        SITES.release();
    }
}

pub(crate) extern "C" fn in_parent() {
    // SAFETY: this thread took them in prepare().
    unsafe { open_all() };
}

pub(crate) extern "C" fn in_child() {
    // SAFETY: the child's only thread; its parent held them all.
    unsafe { open_all() };
    let Some(thread) = tls::get() else { return };
    let Some(_inside) = thread.enter() else {
        return;
    };
    become_child(thread);
}

/// Leaves the parent's books alone from here on.
fn become_child(thread: &'static Thread) {
    settle(PRIVATE);
    thread.due_in(0);
    BORN_MS.store(sys::coarse_ms(), Ordering::Relaxed);
    for heap in all_heaps() {
        if !ptr::eq(heap, thread.heap()) {
            heap.orphan();
        }
    }
    if !world::recording() {
        return;
    }
    let others = all_threads().filter(|other| !ptr::eq(*other, thread));
    others.for_each(Thread::stop_counting);
    if let Some(rows) = world::rows() {
        rows.after_fork();
    }
    link::forget();
    mappings::forget();
    held::forget();
    signals::forget();
    sampled::part_ways(thread);
    check::unmap();
    let kept = STATE.go_private(SITES.extent());
    // SAFETY: the thread's own region; its content is the parent's.
    if !kept || !unsafe { thread.begin_private() } {
        STATE.give_up();
        ACCOUNTS.detach();
        thread.stop_counting();
        return;
    }
    if let Some(head) = STATE.head() {
        let region = ptr::with_exposed_provenance_mut(thread.track.region());
        // SAFETY: both are this process's own mappings now.
        unsafe { ACCOUNTS.follow(head, region, STATE.rows(head)) };
    }
}

/// Makes a state of its own for a child that has lived.
fn grow_when_lived(thread: &'static Thread) {
    let pending = thread.track.get(thread_word::PENDING_HIGH);
    let bytes = STATE.get(word::PEAK_BYTES).max(pending);
    let age = sys::coarse_ms().saturating_sub(BORN_MS.load(Ordering::Relaxed));
    if bytes >= LIVED_BYTES || age >= LIVED_MS {
        grow(thread);
    }
}

fn grow(thread: &'static Thread) {
    settle(SETTLED);
    if !STATE.exists() {
        return;
    }
    if !STATE.go_public(SITES.extent()) {
        return;
    }
    for each in all_threads() {
        if each.track.is_set() && !STATE.publish_region(each.slot(), each.track.region()) {
            each.stop_counting();
        }
    }
    check::map();
    recount(thread);
    suppressions::publish();
    link::connect_now();
    thread.introduce();
}

/// Counts every live block as allocated by this process.
fn recount(thread: &'static Thread) {
    let others = || {
        all_threads()
            .filter(|other| !ptr::eq(*other, thread))
            .map(|other| &other.track)
    };
    let (sites, _) = SITES.extent();
    thread.track.begin_inherited(sites, CLASSES, others);
    let samples = world::mode() == Mode::Sampled;
    if samples {
        thread.track.begin_inherited_samples(sites, others);
    }
    let (mut blocks, mut bytes) = (0u64, 0u64);
    for space in SPACES.iter() {
        for slice in 1..space.slices() {
            let Some(page) = space.head_at(slice) else {
                continue;
            };
            for slot in 0..page.carved() {
                let word = page
                    .record(slot)
                    .map_or(0, |word| word.load(Ordering::Relaxed));
                let Some(record) = Record::unpack(word) else {
                    continue;
                };
                let (count, requested) = if samples {
                    let sample = sampled::sample(page, &record);
                    thread.track.inherit_sample(&sample);
                    (sample.weight.blocks, sample.weight.bytes)
                } else {
                    let requested = page.usable().saturating_sub(record.slack) as u64;
                    thread.track.inherit(page.class(), record.site, requested);
                    (1, requested)
                };
                blocks += count;
                bytes += requested;
            }
        }
    }
    whole::each_live(|site, requested| {
        thread.track.inherit(SINGLETON, site, requested);
        blocks += 1;
        bytes += requested;
    });
    for index in [word::PUBLISHED_BYTES, word::PEAK_BYTES] {
        STATE.set(index, bytes);
    }
    for index in [word::PUBLISHED_BLOCKS, word::PEAK_BLOCKS] {
        STATE.set(index, blocks);
    }
    let mut pages = blocks.cast_signed();
    for each in all_threads() {
        each.track.clear_pending();
        pages += each.track.further_pages();
    }
    for index in [word::PUBLISHED_PAGES, word::PEAK_PAGES] {
        STATE.set(index, pages.max(0).cast_unsigned());
    }
}
