//! What only the debug heap asks: does a call fit the block it is about?
//!
//! Every finding is reported, and the program goes on.

use core::sync::atomic::Ordering;

use pageshim_core::whole::{Family, Past, Stale};
use pageshim_wire::process::{Heap, Misuse};

use super::{CHOSEN, DEBUG};
use crate::serve::{self, Call};
use crate::thread::Thread;
use crate::{misuse, thread, tls};

/// What a free says about its block.
#[derive(Clone, Copy)]
pub(crate) struct Claim {
    /// Functions that free such a block.
    pub(crate) family: Family,
    /// Its requested bytes, when the caller said.
    pub(crate) bytes: Option<usize>,
    /// Its alignment, when the caller said.
    pub(crate) align: Option<usize>,
}

/// True on the heap that checks.
#[inline]
pub(crate) fn checks() -> bool {
    CHOSEN.load(Ordering::Relaxed) == Heap::Debug as u8
}

/// Compares what a free says with what is known of a live block.
#[cold]
pub(crate) fn check(address: usize, claim: &Claim, call: &Call) {
    if !super::holds(address) || super::usable_past(address).is_none() {
        return;
    }
    let Some(thread) = tls::get().or_else(thread::attach) else {
        return;
    };
    let Some(_inside) = thread.enter() else {
        return;
    };
    let Some(past) = super::usable_past(address) else {
        return;
    };
    let wrong = [
        (past.family != claim.family as u8, Misuse::KindMismatch),
        (
            claim.bytes.is_some_and(|bytes| bytes != past.requested),
            Misuse::SizeMismatch,
        ),
        (
            claim.align.is_some_and(|align| align.max(16) != past.align),
            Misuse::AlignmentMismatch,
        ),
    ];
    for (_, kind) in wrong.iter().filter(|(is, _)| *is) {
        misuse::report(thread, *kind, address, past.born, call);
    }
}

/// Says that a block was made by `new[]`.
#[cold]
pub(crate) fn mark_array(address: usize) {
    if super::holds(address) {
        DEBUG.set_family(address, Family::NewArray);
    }
}

/// Frees a block whose record was taken.
pub(super) fn give(thread: &'static Thread, address: usize, born: u32, call: &Call) {
    if !DEBUG.is_intact(address) {
        misuse::report(thread, Misuse::Overflow, address, born, call);
    }
    let mut stale = Stale::default();
    DEBUG.give(address, born, serve::site_of(thread, call), &mut stale);
    report_stale(thread, &stale, call);
}

/// Reports blocks found written after their free.
pub(super) fn report_stale(thread: &'static Thread, stale: &Stale, call: &Call) {
    for Past {
        address,
        born,
        freed,
        ..
    } in stale.iter()
    {
        let kind = Misuse::WriteAfterFree;
        misuse::report_past(thread, kind, *address, (*born, *freed), call);
    }
}

/// The last look at freed blocks, from inside.
pub(crate) fn at_exit() {
    if !checks() {
        return;
    }
    let mut stale = Stale::default();
    DEBUG.check_all(&mut stale);
    for past in stale.iter() {
        let sites = [past.born, past.freed, 0];
        misuse::tell(Misuse::WriteAfterFree, past.address, sites, 0);
    }
}
