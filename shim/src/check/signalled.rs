//! A check when a signal is about to end the process.
//!
//! # Design
//! The thread may have been interrupted anywhere, inside of us too, and after a crash the memory
//! may be damaged. So the other threads are held, and a copy of the process is marked ([`apart`]).
//!
//! # Failure
//! After [`LIMIT_NS`] the copy is given up: whoever sent the signal waits for the end.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::sync::atomic::Ordering;

use pageshim_core::leaks::Table;
use pageshim_core::leaks::roots::Still;
use pageshim_core::sys;
use pageshim_wire::check::{Method, Reason, Trigger};

use super::apart::{self, Ground};
use super::{DONE, Facts, Order, STACK_BYTES, Section, fail, hold, obstacle, switch};
use crate::{boot, fork};

/// The longest that a process stays for its check.
const LIMIT_NS: u64 = 5_000_000_000;

/// What the check goes by.
struct Ending {
    own: Still,
    crashed: bool,
    stack: (usize, usize),
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
        // SAFETY: the caller's duty.
        own: unsafe { hold::interrupted(context) },
        crashed,
        stack: stack.range(),
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
    let look = |facts, threads: &[Still], ours| {
        let mut order = Order {
            facts,
            threads,
            ours,
            copied: true,
        };
        let ground = Ground {
            own: ending.own,
            stack: ending.stack,
            damaged: ending.crashed,
            limit_ns: LIMIT_NS,
        };
        apart::look(&mut order, &ground);
    };
    if sys::thread_count() == Some(1) {
        return look(facts, &[], [(0, 0); 2]);
    }
    facts.method = Method::Signal;
    let signal = boot::config().map_or(0, |config| config.signal);
    let held = hold::hold(signal);
    let (stands, missed) = held
        .as_ref()
        .map_or((0, 1), |held| (held.stands, held.missed));
    facts.threads += stands as u64;
    facts.missed = missed as u64;
    let Some(mut threads) = Table::<Still>::new(stands) else {
        facts.reason = Reason::Memory;
        return fail(&facts);
    };
    let count = held.as_ref().map_or(0, |held| held.copy_to(threads.all()));
    let ours = [
        held.as_ref().map_or((0, 0), |held| held.range),
        threads.range(),
    ];
    look(facts, &threads.all()[..count], ours);
    // They stay where they are: their process ends now.
    core::mem::forget(held);
}
