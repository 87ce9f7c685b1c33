//! The check of a process that ends, made by the daemon's helper.
//!
//! # Design
//! To hold the other threads by a signal would be seen: calls come back with EINTR in a program that
//! goes on until its end, and a thread whose alternate stack is gone dies of the signal. The helper
//! holds them without their notice. So the process asks by a frame and waits for a word that the
//! daemon writes ([`turn`]): all threads, this one too, stand still until a copy was searched.
//!
//! # Concurrency
//! Who gives up waiting writes [`word::WITHDRAWN`] and then reads [`word::TURN`]; who begins writes
//! that and then reads the other: one of the two sees it. Knows no lock: a signal handler waits here.
//!
//! # Failure
//! Where nobody can hold the process the answer is [`Answer::Nobody`]: the caller has a copy searched,
//! and tells that the other threads did not stop.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};

use pageshim_core::leaks::roots::Still;
use pageshim_core::sys;
use pageshim_wire::check::{Reason, turn, word};

use super::Section;
use crate::link;

/// The longest until the daemon begins.
const ATTENTION_MS: u64 = 1000;
/// What it may take beside the search.
const GRACE_MS: u64 = 2000;
/// Between two looks.
const POLL_MS: u64 = 1;

/// How it went.
pub(super) enum Answer {
    /// There is a result.
    Done,
    /// There is none, and another way has none either.
    Failed(Reason),
    /// Nobody holds the process.
    Nobody,
}

/// Has the process checked while this thread waits, at most about `limit_ms`.
pub(super) fn ask(limit_ms: u64) -> Answer {
    let Some(section) = Section::get() else {
        return Answer::Nobody;
    };
    section.write(word::TURN, turn::NOBODYS);
    section.write(word::WITHDRAWN, 0);
    if !link::ask_for_check(limit_ms) {
        return Answer::Nobody;
    }
    if !waits(ATTENTION_MS, || section.read(word::TURN) != turn::NOBODYS) {
        section.write(word::WITHDRAWN, 1);
        fence(Ordering::SeqCst);
        if section.read(word::TURN) == turn::NOBODYS {
            return Answer::Nobody;
        }
    }
    waits(limit_ms + GRACE_MS, || {
        section.read(word::TURN) != turn::TAKEN
    });
    match section.read(word::TURN) {
        turn::DONE => Answer::Done,
        turn::TAKEN if !link::is_lost() => Answer::Failed(Reason::TooLong),
        turn::TOO_LONG => Answer::Failed(Reason::TooLong),
        turn::DAMAGED => Answer::Failed(Reason::Damaged),
        _ => Answer::Nobody,
    }
}

/// Waits until `done`, while there is a daemon; false when that took longer than `ms`.
fn waits(ms: u64, done: impl Fn() -> bool) -> bool {
    const LOOKS: u32 = 64;
    let word = AtomicU32::new(0);
    let end = sys::fast_monotonic_ns() + ms * 1_000_000;
    for look in 1.. {
        if done() {
            return true;
        }
        let over = sys::fast_monotonic_ns() > end;
        if over || (look % LOOKS == 0 && link::is_lost()) {
            break;
        }
        sys::wait_while(&word, 0, POLL_MS);
    }
    false
}

/// A thread that waits in a signal's handler: where it was interrupted, and the stack it waits on.
pub(super) struct Interrupted {
    pub(super) own: Still,
    pub(super) stack: (usize, usize),
}

static INTERRUPTED: AtomicPtr<Interrupted> = AtomicPtr::new(ptr::null_mut());

impl Interrupted {
    /// Lets a search know while `run` waits for it.
    pub(super) fn known<T>(&self, run: impl FnOnce() -> T) -> T {
        INTERRUPTED.store(ptr::from_ref(self).cast_mut(), Ordering::Release);
        let result = run();
        INTERRUPTED.store(ptr::null_mut(), Ordering::Release);
        result
    }

    /// The one that waits; only while it does.
    pub(super) fn get() -> Option<&'static Self> {
        let at = INTERRUPTED.load(Ordering::Acquire);
        // SAFETY: known() keeps it there until the search it waits for has ended.
        unsafe { at.as_ref() }
    }
}
