//! `trace` mode: every allocation and free, in batches over the socket.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr;

use pageshim_core::sys;
use pageshim_wire::frame::{EVENT_BYTES, Event, Kind};
use pageshim_wire::process::word;

use crate::link;
use crate::thread::{Thread, all_threads};
use crate::world::{ACCOUNTS, OWN, STATE};

const HEAD_WORDS: usize = 3;
const BATCH_BYTES: usize = 64 * 1024;
const EVENTS: usize = (BATCH_BYTES - HEAD_WORDS * 8) / EVENT_BYTES;

/// A thread's events that are not sent yet. All zeros is an empty one.
#[derive(Debug)]
pub(crate) struct Buffer {
    words: Cell<*mut u64>,
    events: Cell<usize>,
}

impl Buffer {
    /// Where it lies, which is no place for the program's pointers.
    pub(crate) fn range(&self) -> (usize, usize) {
        let at = self.words.get().addr();
        (at, at + if at == 0 { 0 } else { BATCH_BYTES })
    }
}

/// Notes an allocation.
pub(crate) fn allocated(thread: &Thread, address: usize, requested: usize, site: u32) {
    push(thread, address, requested, site, false);
}

/// Notes a free.
pub(crate) fn freed(thread: &Thread, address: usize, requested: usize, site: u32) {
    push(thread, address, requested, site, true);
}

fn push(thread: &Thread, address: usize, requested: usize, site: u32, free: bool) {
    let buffer = &thread.trace;
    if buffer.words.get().is_null() {
        let Some(at) = OWN.map(BATCH_BYTES) else {
            return;
        };
        ACCOUNTS.add(word::METADATA, BATCH_BYTES as i64);
        buffer.words.set(ptr::with_exposed_provenance_mut(at));
    }
    let words = buffer.words.get();
    let count = buffer.events.get();
    if count == 0 {
        // SAFETY: the buffer has room for a head.
        unsafe {
            words.write(thread.slot());
            words.add(1).write(sys::fast_monotonic_ns());
        }
    }
    let event = Event {
        address: address as u64,
        bytes: requested as u64,
        site,
        free,
        tick: u32::try_from(STATE.tick()).unwrap_or(0),
    };
    for (index, value) in event.encode().into_iter().enumerate() {
        // SAFETY: count < EVENTS, so the event lies within the buffer.
        unsafe { words.add(HEAD_WORDS + count * 3 + index).write(value) };
    }
    buffer.events.set(count + 1);
    if count + 1 == EVENTS {
        flush(thread);
    }
}

/// Sends what a thread has collected.
pub(crate) fn flush(thread: &Thread) {
    let buffer = &thread.trace;
    let (words, count) = (buffer.words.get(), buffer.events.replace(0));
    if words.is_null() || count == 0 {
        return;
    }
    // SAFETY: as in push(); the bytes up to the last event are written.
    let bytes = unsafe {
        words.add(2).write(sys::fast_monotonic_ns());
        core::slice::from_raw_parts(words.cast::<u8>(), HEAD_WORDS * 8 + count * EVENT_BYTES)
    };
    link::send(Kind::Batch, bytes);
}

/// At exit: what all threads have collected.
pub(crate) fn flush_all() {
    all_threads().for_each(flush);
}
