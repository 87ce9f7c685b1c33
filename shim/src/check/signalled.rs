//! A check when a signal is about to end the process.
//!
//! # Design
//! The thread may have been interrupted anywhere, inside of us too, and after a crash the memory
//! may be damaged. So a copy of the process is marked: the daemon's ([`helped`]) where there are other
//! threads, else one of our own ([`apart`]).
//!
//! # Failure
//! After [`LIMIT_MS`] the copy is given up: whoever sent the signal waits for the end.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::sync::atomic::Ordering;

use pageshim_core::leaks::Table;
use pageshim_core::sys;
use pageshim_wire::check::{Method, Reason, Trigger};

use super::apart::{self, Ground};
use super::helped::{self, Answer, Interrupted};
use super::{DONE, Facts, Order, STACK_BYTES, Section, fail, hold, obstacle, switch};
use crate::{boot, fork};

/// The longest that a process stays for its check.
const LIMIT_MS: u64 = 5000;

/// What the check goes by.
struct Ending {
    at: Interrupted,
    crashed: bool,
}

/// Checks, once, unless the process came by its end another way before.
///
/// # Safety
/// Called by a signal handler with the context it got.
pub(crate) unsafe fn at_signal(context: *const c_void, crashed: bool) {
    if !boot::config().is_some_and(|config| config.check)
        || Section::get().is_none()
        || fork::is_copy()
        || DONE.swap(true, Ordering::Relaxed)
    {
        return;
    }
    // The handler's own stack may be a few pages.
    let Some(stack) = Table::<u8>::new(STACK_BYTES) else {
        let mut facts = Facts::new(Trigger::Exit, Method::Alone);
        facts.reason = Reason::Memory;
        return fail(&facts);
    };
    let ending = Ending {
        at: Interrupted {
            // SAFETY: the caller's duty.
            own: unsafe { hold::interrupted(context) },
            stack: stack.range(),
        },
        crashed,
    };
    // SAFETY: the stack is ours and large enough; on_stack() gets what it expects.
    unsafe { switch(on_stack, stack.range().1, (&raw const ending).cast()) };
}

unsafe extern "C" fn on_stack(_low: usize, ending: *const c_void) {
    // SAFETY: at_signal() passed it, and waits for this call.
    let ending = unsafe { &*ending.cast::<Ending>() };
    let mut facts = Facts::new(Trigger::Exit, Method::Alone);
    facts.threads = 1;
    facts.reason = obstacle();
    if facts.reason != Reason::None {
        return fail(&facts);
    }
    if sys::thread_count() != Some(1) {
        match ending.at.known(|| helped::ask(LIMIT_MS)) {
            Answer::Done => return,
            Answer::Failed(reason) => {
                facts.reason = reason;
                return fail(&facts);
            }
            Answer::Nobody => facts.miss_the_others(),
        }
    }
    let mut order = Order {
        facts,
        threads: &[],
        ours: [(0, 0); 2],
        copied: true,
    };
    let ground = Ground {
        own: ending.at.own,
        stack: ending.at.stack,
        damaged: ending.crashed,
        limit_ns: LIMIT_MS * 1_000_000,
    };
    apart::look(&mut order, &ground);
}
