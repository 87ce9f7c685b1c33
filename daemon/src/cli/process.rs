//! The two things of a Unix process that safe crates do not offer.
//!
//! # Safety
//! `signal` with `SIG_DFL` and `raise` take no pointer and cannot break memory;
//! they change how this process ends, which is what they are called for, by a
//! thread that does nothing else afterwards.
#![allow(unsafe_code)]

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Ends this process by the signal its child died of, so that whoever waits sees the same.
///
/// Leaves no core of ours: the child left its own. Returns only when the signal
/// does not end a process; the answer is what a shell would show.
pub(crate) fn die_of(signal: i32) -> u8 {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // A core pattern that is a pipe does not ask for the limit; it asks for this.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // SAFETY: SIG_DFL is a valid disposition for any number; a bad number fails with EINVAL.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: no pointer; a bad number fails with EINVAL.
    unsafe { libc::raise(signal) };
    u8::try_from(128 + signal).unwrap_or(255)
}
