//! Placeholder of the reachability check.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
use core::sync::atomic::Ordering;
use pageshim_core::sys;
use pageshim_wire::check::{Method, State, Trigger, stopped, word};

use crate::world::STATE;

pub(crate) fn mark(method: Method, trigger: Trigger, threads: &[[u64; stopped::WORDS]]) {
    let Some((fd, layout)) = STATE.fd().zip(STATE.layout()) else {
        return;
    };
    let Ok(at) = (unsafe { sys::map_shared(fd, layout.check(), 4096, None) }) else {
        return;
    };
    let at = core::ptr::with_exposed_provenance_mut::<u64>(at);
    unsafe {
        at.add(word::METHOD).write_volatile(method as u64);
        at.add(word::TRIGGER).write_volatile(trigger as u64);
        at.add(word::THREADS).write_volatile(threads.len() as u64);
        at.add(word::STATE).write_volatile(State::Done as u64);
        at.add(word::SEQUENCE)
            .write_volatile(at.add(word::SEQUENCE).read_volatile() + 2);
    }
    let _ = Ordering::Relaxed;
}
