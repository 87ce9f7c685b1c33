//! Sites: stack hash to id, and the log that says what each id means.
//!
//! # Design
//! A private open-addressed table maps a stack's 64-bit hash to its id. Finding
//! is lock-free; adding happens under a lock, which also covers the log and the
//! site entries in the shared state. A table three quarters full is copied to one
//! twice its size; old tables stay mapped for readers still in them, which
//! costs at most as much again.
//!
//! # Concurrency
//! A slot's id is written before its hash (Release); readers load the hash
//! (Acquire) first. `table` is published with Release.
//!
//! # Failure
//! A full table or log answers [`SITE_OVERFLOW`], counted.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use pageshim_wire::process::{Drop, SITE_FIRST, SITE_OVERFLOW, word};
use pageshim_wire::stack::{End, RECORD_WORDS, Record};

use crate::heap::page::Pages;
use crate::state::State;
use crate::sync::Lock;

const FIRST_SLOTS: usize = 1 << 10;

#[derive(Debug)]
#[repr(C)]
struct Slot {
    hash: AtomicU64,
    site: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct Table {
    slots: usize,
    _padding: u64,
}

impl Table {
    fn slot(&self, index: usize) -> &Slot {
        let first = ptr::from_ref(self).wrapping_add(1).cast::<Slot>();
        // SAFETY: a table is mapped with `slots` (a power of two) slots behind it.
        unsafe { &*first.add(index & (self.slots - 1)) }
    }

    fn find(&self, hash: u64) -> Result<u32, usize> {
        let mut index = (hash >> 20) as usize;
        loop {
            let slot = self.slot(index);
            match slot.hash.load(Ordering::Acquire) {
                0 => return Err(index),
                found if found == hash => {
                    return Ok(u32::try_from(slot.site.load(Ordering::Relaxed)).unwrap_or(0));
                }
                _ => index = index.wrapping_add(1),
            }
        }
    }

    fn put(&self, hash: u64, site: u32) {
        if let Err(index) = self.find(hash) {
            let slot = self.slot(index);
            slot.site.store(u64::from(site), Ordering::Relaxed);
            slot.hash.store(hash, Ordering::Release);
        }
    }
}

#[derive(Debug)]
struct Log {
    sites: u32,
    used: u64,
    filled: usize,
}

/// A stack that may be new.
#[derive(Clone, Copy, Debug)]
pub struct Stack<F> {
    /// Hash of the whole path, never 0.
    pub hash: u64,
    /// Frames in all.
    pub depth: usize,
    /// Older site that shares frames, or 0.
    pub prefix: u32,
    /// Outermost frames shared with it.
    pub shared: usize,
    /// How it ended.
    pub end: End,
    /// Slot of the thread that sees it.
    pub thread: u16,
    /// Program counter of a frame, leaf = 0.
    pub frame: F,
}

/// See the module's text.
#[derive(Debug)]
pub struct Sites {
    table: AtomicPtr<Table>,
    log: Lock<Log>,
    pages: Pages,
}

impl Sites {
    /// No sites yet.
    pub const fn new(pages: Pages) -> Self {
        Self {
            table: AtomicPtr::new(ptr::null_mut()),
            log: Lock::new(Log {
                sites: SITE_FIRST,
                used: 0,
                filled: 0,
            }),
            pages,
        }
    }

    fn table(&self) -> Option<&Table> {
        // SAFETY: published tables stay mapped for ever.
        unsafe { self.table.load(Ordering::Acquire).as_ref() }
    }

    /// The id of a stack seen before.
    #[inline]
    pub fn find(&self, hash: u64) -> Option<u32> {
        self.table()?.find(hash).ok()
    }

    /// The id of a stack, written to the log when it is new.
    pub fn intern(&self, state: &State, stack: &Stack<impl Fn(usize) -> u64>) -> u32 {
        let mut log = self.log.lock();
        if let Some(site) = self.find(stack.hash) {
            return site;
        }
        match self.append(&mut log, state, stack) {
            Some(site) => site,
            None => {
                state.count_drop(Drop::Sites);
                state.add(word::SITES_OVERFLOWED, 1);
                SITE_OVERFLOW
            }
        }
    }

    fn append(
        &self,
        log: &mut Log,
        state: &State,
        stack: &Stack<impl Fn(usize) -> u64>,
    ) -> Option<u32> {
        let layout = state.layout()?;
        let site = log.sites;
        // A prefix must be a real site that is older than this one.
        let real = stack.prefix >= SITE_FIRST && stack.prefix < site;
        let shared = if real {
            stack.shared.min(stack.depth)
        } else {
            0
        };
        let new_frames = stack.depth - shared;
        let bytes = ((RECORD_WORDS + new_frames) * 8) as u64;
        let fits = u64::from(site) < layout.site_capacity && log.used + bytes <= layout.log_bytes;
        fits.then_some(())?;
        self.make_room(log)?;
        let record = Record {
            site,
            new_frames: u16::try_from(new_frames).ok()?,
            shared_frames: u16::try_from(shared).ok()?,
            prefix: if shared > 0 { stack.prefix } else { 0 },
            thread: stack.thread,
            end: stack.end,
            tick: state.moment(),
            frames_at: 0,
        };
        let at = layout.log() + log.used;
        for (index, value) in record.words().into_iter().enumerate() {
            state.put(at + index as u64 * 8, value, Ordering::Relaxed);
        }
        let frames_at = at + RECORD_WORDS as u64 * 8;
        for index in 0..new_frames {
            let pc = (stack.frame)(index);
            state.put(frames_at + index as u64 * 8, pc, Ordering::Relaxed);
        }
        let entry = layout.site(u64::from(site));
        state.put(entry + 8, log.used, Ordering::Relaxed);
        state.put(entry, stack.hash, Ordering::Release);
        log.used += bytes;
        log.sites += 1;
        state.set(word::LOG_USED, log.used);
        state.set(word::SITE_COUNT, u64::from(log.sites));
        self.table()?.put(stack.hash, site);
        log.filled += 1;
        Some(site)
    }

    /// Makes sure the table has a free quarter.
    fn make_room(&self, log: &Log) -> Option<()> {
        let old = self.table();
        let slots = old.map_or(0, |table| table.slots);
        if log.filled < slots / 4 * 3 {
            return Some(());
        }
        let wanted = (slots * 2).max(FIRST_SLOTS);
        let bytes = size_of::<Table>() + wanted * size_of::<Slot>();
        let at = self
            .pages
            .map(bytes.next_multiple_of(crate::OS_PAGE_BYTES))?;
        self.pages
            .accounts()
            .add(word::METADATA, i64::try_from(bytes).ok()?);
        let new = ptr::with_exposed_provenance_mut::<Table>(at);
        // SAFETY: fresh zeroed memory of the size of a table and its slots.
        let table = unsafe {
            new.write(Table {
                slots: wanted,
                _padding: 0,
            });
            &*new
        };
        for index in 0..slots {
            let slot = old?.slot(index);
            let hash = slot.hash.load(Ordering::Relaxed);
            if hash != 0 {
                let site = slot.site.load(Ordering::Relaxed);
                table.put(hash, u32::try_from(site).ok()?);
            }
        }
        self.table.store(new, Ordering::Release);
        Some(())
    }

    /// Site ids handed out and log bytes used, for copying them in a child.
    pub fn extent(&self) -> (u32, u64) {
        let log = self.log.lock();
        (log.sites, log.used)
    }

    /// Takes the lock for the time of a fork.
    pub fn hold(&self) {
        self.log.hold();
    }

    /// Opens it again.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty.
        unsafe { self.log.release() };
    }
}
