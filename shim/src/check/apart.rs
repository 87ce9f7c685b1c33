//! A mark in a copy of the process: what the search dies of, the process does not.
//!
//! # Failure
//! Where no copy can be made, the process is marked in place, unless its memory may be damaged or a
//! filter of system calls may end who marks. A copy that takes too long is given up.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicU32;

use pageshim_core::leaks::roots::Still;
use pageshim_core::sys;
use pageshim_wire::check::Reason;

use super::{Facts, Order, Section, fail, filter, run};

/// Between two looks whether the copy is done.
const POLL_MS: u64 = 1;

/// Where and how long.
pub(super) struct Ground {
    /// The calling thread.
    pub(super) own: Still,
    /// The stack this runs on.
    pub(super) stack: (usize, usize),
    /// The process's memory may be.
    pub(super) damaged: bool,
    /// The longest the process waits for its copy.
    pub(super) limit_ns: u64,
}

/// Has a copy marked, or marks here. The calling thread alone runs.
pub(super) fn look(order: &mut Order<'_>, ground: &Ground) {
    let Some(section) = Section::get() else {
        return;
    };
    let before = section.results();
    order.copied = true;
    // SAFETY: the copy does nothing but mark, which takes no lock, and ends.
    match unsafe { sys::copy_quietly() } {
        Ok(0) => {
            let_go_of_files();
            run(order, Some(ground.own), ground.stack);
            loop {
                sys::exit_group(0);
            }
        }
        Ok(copy) => {
            let reason = match wait(copy, order.facts.began_ns + ground.limit_ns) {
                false => Reason::TooLong,
                true if filter::is_any() => Reason::Filter,
                true => Reason::Damaged,
            };
            if section.results() == before {
                fail(&Facts {
                    reason,
                    ..order.facts
                });
            }
        }
        Err(_) if ground.damaged || filter::is_any() => fail(&Facts {
            reason: Reason::Fork,
            ..order.facts
        }),
        Err(_) => {
            order.copied = false;
            order.facts.reason = Reason::Fork;
            run(order, Some(ground.own), ground.stack);
        }
    }
}

/// In a copy: who waits for the end of the program's files does not wait for it.
pub(crate) fn let_go_of_files() {
    match filter::is_any() {
        true => sys::close_each(),
        false => sys::close_all(),
    }
}

/// Waits for the copy's end; false when it had to be ended.
fn wait(copy: u32, end_ns: u64) -> bool {
    let word = AtomicU32::new(0);
    while !sys::reap_clone(copy) {
        if sys::fast_monotonic_ns() > end_ns {
            sys::kill_copy(copy);
            while !sys::reap_clone(copy) {
                sys::wait_while(&word, 0, POLL_MS);
            }
            return false;
        }
        sys::wait_while(&word, 0, POLL_MS);
    }
    true
}
