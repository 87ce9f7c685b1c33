//! Filters of system calls (seccomp), and whether a check may make its calls under one.
//!
//! A filter a program began under is part of its surroundings (a container, a service manager):
//! made for programs that fork and have threads. One that a program sets for itself may
//! end it for any call it does not know, so such a program is left alone.

use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_core::sys;
use pageshim_wire::process::word;

use crate::world::STATE;

/// Filters when the program began, and 1; 0 where the kernel does not count them.
static AT_START: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: u64 = u64::MAX;

/// Counts them, while booting; a forked child goes by what its parent began under.
pub(super) fn learn() {
    let mut count = AT_START.load(Ordering::Relaxed);
    if count == UNKNOWN {
        count = sys::filter_count().map_or(0, |count| count + 1);
        AT_START.store(count, Ordering::Relaxed);
    }
    STATE.set(word::FILTERS, count);
}

/// True under any filter.
pub(super) fn is_any() -> bool {
    sys::filter_count() != Some(0)
}

/// True where a filter came since the program began, or may have.
pub(super) fn is_own() -> bool {
    match (sys::filter_count(), AT_START.load(Ordering::Relaxed)) {
        (Some(0), _) => false,
        (Some(now), before) => now + 1 != before,
        (None, _) => sys::has_filter(),
    }
}
