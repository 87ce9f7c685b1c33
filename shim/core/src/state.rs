//! The process's shared state: one sealed memfd, mapped for writing.
//!
//! # Design
//! The part before the thread regions is mapped once; each thread's region when
//! its slot is taken. Site numbers and log positions are counted here, in
//! private memory, and mirrored to the header: in a forked child the state is
//! the parent's, and must not be written.
//!
//! # Invariants
//! T1. `head` is null or points to a mapping of `layout.thread(0)` bytes.
//! T2. Nothing is written to a state by a process that did not make it.
//!
//! # Concurrency
//! Words are atomics. Modules and sites are appended under locks of their rooms.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use pageshim_wire::layout::{self, Layout, THREAD_HEADER_BYTES};
use pageshim_wire::process::{self, SITE_FIRST, word};
use pageshim_wire::{VERSION, thread as wire_thread};

use crate::heap::accounts::Accounts;
use crate::heap::gpa::classes;
use crate::sync::Lock;
use crate::sys;

const WIDE: (u64, u64, u64) = (1 << 20, 256 << 20, 4096);
const NARROW: (u64, u64, u64) = (1 << 14, 8 << 20, 64);
const TINY: (u64, u64, u64) = (1 << 11, 1 << 20, 16);
const FD_LOWEST: i32 = 900;
const NAME: &[u8] = b"pageshim\0";

/// What the header says about a process from its start.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Mode of the process.
    pub mode: process::Mode,
    /// Layer that serves it.
    pub heap: process::Heap,
    /// Token of the parent, or 0.
    pub parent: u64,
    /// Path of the executable.
    pub exe: &'a [u8],
    /// Arguments, NUL separated.
    pub command: &'a [u8],
    /// PAGESHIM_SERVICE.
    pub service: &'a [u8],
    /// Depth limit of stacks.
    pub depth: u64,
    /// Mean bytes between samples, 0 when every block is looked at.
    pub interval: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct State {
    pub(crate) head: AtomicPtr<AtomicU64>,
    site_capacity: AtomicU64,
    log_bytes: AtomicU64,
    thread_capacity: AtomicU64,
    pub(crate) fd: AtomicI32,
    fd_device: AtomicU64,
    fd_inode: AtomicU64,
    start_ms: AtomicU64,
    private_tick: AtomicU64,
    parted: AtomicU64,
    pub(crate) parent: Lock<Option<Parent>>,
}

/// Where a forked child still reads its parent's sites from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    pub(crate) head: usize,
    pub(crate) sites: u32,
    pub(crate) log_used: u64,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// No state yet.
    pub const fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            site_capacity: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            thread_capacity: AtomicU64::new(0),
            fd: AtomicI32::new(-1),
            fd_device: AtomicU64::new(0),
            fd_inode: AtomicU64::new(0),
            start_ms: AtomicU64::new(0),
            private_tick: AtomicU64::new(1),
            parted: AtomicU64::new(0),
            parent: Lock::new(None),
        }
    }

    /// True while there is a state of this process.
    #[inline]
    pub fn exists(&self) -> bool {
        !self.head.load(Ordering::Relaxed).is_null()
    }

    /// The layout, when there is a state.
    pub fn layout(&self) -> Option<Layout> {
        if !self.exists() {
            return None;
        }
        Layout::new(
            self.site_capacity.load(Ordering::Relaxed),
            self.log_bytes.load(Ordering::Relaxed),
            self.thread_capacity.load(Ordering::Relaxed),
        )
    }

    /// Makes and maps a state; false when the process's limits forbid it.
    pub fn create(&self, identity: &Identity<'_>, accounts: &Accounts) -> bool {
        let Some((layout, fd)) = memfd_within_limits() else {
            return false;
        };
        let Ok(length) = usize::try_from(layout.thread(0)) else {
            return false;
        };
        // SAFETY: our own fresh file; the daemon only reads it, the tick word aside.
        let Ok(at) = (unsafe { sys::map_shared(fd, 0, length, None) }) else {
            sys::close(fd);
            return false;
        };
        // SAFETY: advice on our own mapping.
        let _ = unsafe { sys::advise(at, length, sys::DONTDUMP) };
        self.site_capacity
            .store(layout.site_capacity, Ordering::Relaxed);
        self.log_bytes.store(layout.log_bytes, Ordering::Relaxed);
        self.thread_capacity
            .store(layout.thread_capacity, Ordering::Relaxed);
        self.remember(fd);
        let head = ptr::with_exposed_provenance_mut::<AtomicU64>(at);
        self.head.store(head, Ordering::Release);
        self.write_header(&layout, identity);
        let Some(slot) = self.map_slot(0) else {
            return false;
        };
        // SAFETY: T1, and slot 0 was just mapped; both live until detach().
        unsafe { accounts.attach(head, slot, self.rows(head)) };
        true
    }

    /// The rows of the bill of system calls, in a head of this layout.
    pub fn rows(&self, head: *mut AtomicU64) -> *mut AtomicU64 {
        let offset = self.layout().map_or(0, |layout| layout.calls(0));
        head.wrapping_byte_add(usize::try_from(offset).unwrap_or(0))
    }

    pub(crate) fn remember(&self, fd: i32) {
        if let Some((device, inode)) = sys::identity(fd) {
            self.fd_device.store(device, Ordering::Relaxed);
            self.fd_inode.store(inode, Ordering::Relaxed);
        }
        self.fd.store(fd, Ordering::Release);
    }

    /// The memfd, unless the program has closed it or put another file there.
    pub fn fd(&self) -> Option<i32> {
        let fd = self.fd.load(Ordering::Acquire);
        let (device, inode) = sys::identity(fd)?;
        let same = device == self.fd_device.load(Ordering::Relaxed)
            && inode == self.fd_inode.load(Ordering::Relaxed);
        same.then_some(fd)
    }

    fn write_header(&self, layout: &Layout, identity: &Identity<'_>) {
        let set = |index, value| self.set(index, value);
        set(word::TOKEN, sys::random());
        set(word::PID, u64::from(sys::process_id()));
        set(word::PARENT, identity.parent);
        set(word::START_REALTIME_NS, sys::realtime_ns());
        let now = sys::monotonic_ns();
        set(word::START_MONOTONIC_NS, now);
        self.start_ms.store(now / 1_000_000, Ordering::Relaxed);
        set(word::MODE, identity.mode as u64);
        set(word::HEAP, identity.heap as u64);
        set(word::TICK, 1);
        set(word::SITE_COUNT, u64::from(SITE_FIRST));
        set(word::OS_PAGE_BYTES, crate::OS_PAGE_BYTES as u64);
        set(word::DEPTH_LIMIT, identity.depth);
        set(word::SAMPLE_INTERVAL, identity.interval);
        set(word::CLASS_COUNT, classes::CLASSES as u64);
        for class in 0..classes::SLOT_CLASSES {
            let at = word::CLASSES + class * process::CLASS_WORDS + process::class::SLOT_BYTES;
            set(at, classes::slot_bytes(class) as u64);
        }
        let texts = [
            (process::EXE_TEXT, identity.exe, word::EXE_LEN),
            (process::COMMAND_TEXT, identity.command, word::COMMAND_LEN),
            (process::SERVICE_TEXT, identity.service, word::SERVICE_LEN),
        ];
        for ((offset, room), text, length_word) in texts {
            let text = text.get(..text.len().min(room)).unwrap_or(text);
            self.put_bytes(offset, text);
            set(length_word, text.len() as u64);
        }
        set(layout::word::SITE_CAPACITY, layout.site_capacity);
        set(layout::word::LOG_BYTES, layout.log_bytes);
        set(layout::word::THREAD_CAPACITY, layout.thread_capacity);
        set(layout::word::VERSION, u64::from(VERSION));
        set(layout::word::MAGIC, layout::MAGIC);
    }

    /// Header word `index`, when there is a state.
    #[inline]
    pub fn word(&self, index: usize) -> Option<&AtomicU64> {
        debug_assert!(index < (layout::HEADER_BYTES / 8) as usize);
        self.at(index as u64 * 8)
    }

    /// The word at a byte offset of the part before the threads.
    pub(crate) fn at(&self, offset: u64) -> Option<&AtomicU64> {
        let head = self.head.load(Ordering::Acquire);
        if head.is_null() {
            return None;
        }
        // SAFETY: T1; offsets come from Layout, below thread(0).
        Some(unsafe { &*head.byte_add(usize::try_from(offset).ok()?) })
    }

    /// Sets a header word.
    pub fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.word(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Reads a header word; 0 without a state.
    pub fn get(&self, index: usize) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Adds to a header word.
    pub fn add(&self, index: usize, amount: u64) {
        if let Some(word) = self.word(index) {
            word.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Counts something that was not recorded.
    pub fn count_drop(&self, reason: process::Drop) {
        self.add(word::DROPPED + reason as usize, 1);
    }

    /// Counts a misuse.
    pub fn count_misuse(&self, kind: process::Misuse) {
        self.add(word::MISUSE + kind as usize, 1);
    }

    /// Writes a word at a byte offset of the part before the threads.
    pub fn put(&self, offset: u64, value: u64, order: Ordering) {
        if let Some(word) = self.at(offset) {
            word.store(value, order);
        }
    }

    /// Writes bytes at an 8-aligned offset of the part before the threads.
    pub fn put_bytes(&self, offset: u64, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            let at = offset + index as u64 * 8;
            self.put(at, u64::from_le_bytes(padded), Ordering::Relaxed);
        }
    }

    /// Maps the region of thread slot `slot`; private memory while the state is.
    pub fn map_slot(&self, slot: u64) -> Option<*mut AtomicU64> {
        let layout = self.layout()?;
        let length = usize::try_from(layout.thread_stride()).ok()?;
        if self.parent.lock().is_some() {
            // SAFETY: a new mapping at an address of the kernel's choice.
            let at = unsafe { sys::map_anonymous(0, length, sys::PROT_READ_WRITE, false) }.ok()?;
            return Some(ptr::with_exposed_provenance_mut(at));
        }
        let fd = self.fd()?;
        // SAFETY: our own file, a region nobody else maps for writing.
        let at = unsafe { sys::map_shared(fd, layout.thread(slot), length, None) }.ok()?;
        // SAFETY: advice on our own mapping.
        let _ = unsafe { sys::advise(at, length, sys::DONTDUMP) };
        Some(ptr::with_exposed_provenance_mut(at))
    }

    /// Maps the section of the last check's result, which ends the file; answers where, and its
    /// bytes. `None` while the state is private memory.
    pub fn map_check(&self) -> Option<(*mut AtomicU64, usize)> {
        let layout = self.layout()?;
        let length = usize::try_from(layout.total_bytes() - layout.check()).ok()?;
        let fd = self.fd()?;
        // SAFETY: our own file, a part of it that nothing else maps.
        let at = unsafe { sys::map_shared(fd, layout.check(), length, None) }.ok()?;
        // SAFETY: advice on our own mapping.
        let _ = unsafe { sys::advise(at, length, sys::DONTDUMP) };
        Some((ptr::with_exposed_provenance_mut(at), length))
    }

    /// The innermost frame of a site's stack: where the block was asked for.
    pub fn leaf(&self, site: u32) -> Option<u64> {
        let layout = self.layout()?;
        let mut site = site;
        let read = |offset: u64| Some(self.at(offset)?.load(Ordering::Relaxed));
        // A prefix is always an older site, so this ends.
        while u64::from(site) < layout.site_capacity {
            let entry = layout.site(u64::from(site));
            if read(entry)? == 0 {
                return None;
            }
            let offset = read(entry + 8)?;
            if offset.checked_add(32)? > layout.log_bytes {
                return None;
            }
            let at = layout.log() + offset;
            if read(at)? >> 32 & 0xffff > 0 {
                return read(at + pageshim_wire::stack::RECORD_WORDS as u64 * 8);
            }
            let prefix = u32::try_from(read(at + 8)? & 0xffff_ffff).ok()?;
            if prefix >= site {
                return None;
            }
            site = prefix;
        }
        None
    }

    /// Takes the next thread slot's number.
    pub fn new_slot(&self) -> Option<u64> {
        let count = self.word(word::THREAD_COUNT)?;
        let capacity = self.thread_capacity.load(Ordering::Relaxed);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < capacity).then_some(n + 1)
            })
            .ok()
    }

    /// The current tick, as the daemon or a slow path last wrote it.
    #[inline]
    pub fn tick(&self) -> u64 {
        match self.word(word::TICK) {
            Some(word) => word.load(Ordering::Relaxed),
            None => self.private_tick.load(Ordering::Relaxed),
        }
    }

    /// The tick, but never before [`Self::part`]: for what is told apart by time.
    pub fn moment(&self) -> u64 {
        self.tick().max(self.parted.load(Ordering::Relaxed))
    }

    /// Parts what was from what comes: their moments differ by more than the slack that
    /// readers allow for. Not by the tick itself, which the daemon writes too.
    pub fn part(&self) {
        let next = (self.moment() + 2).min(process::TICK_MAX);
        self.parted.fetch_max(next, Ordering::Relaxed);
    }

    /// Moves the tick on from a slow path; never back.
    pub fn advance_tick(&self) {
        let passed = sys::coarse_ms().saturating_sub(self.start_ms.load(Ordering::Relaxed));
        let now = process::tick_from_ms(passed).max(1);
        let word = self.word(word::TICK).unwrap_or(&self.private_tick);
        if now > word.load(Ordering::Relaxed) {
            word.store(now, Ordering::Relaxed);
        }
    }
}

/// The widest state that the process's limits allow.
fn memfd_within_limits() -> Option<(Layout, i32)> {
    let room = sys::soft_limit(sys::LIMIT_ADDRESS_SPACE);
    let widest = if room == u64::MAX { WIDE } else { NARROW };
    [widest, NARROW, TINY]
        .into_iter()
        .find_map(|(sites, log, threads)| {
            let layout = Layout::new(sites, log, threads)?;
            Some((layout, memfd(&layout)?))
        })
}

pub(crate) fn memfd(layout: &Layout) -> Option<i32> {
    let total = layout.total_bytes();
    // Past this limit ftruncate would not fail but kill (SIGXFSZ).
    if sys::soft_limit(sys::LIMIT_FILE_BYTES) < total {
        return None;
    }
    let fd = sys::sealed_memfd(NAME, total).ok()?;
    Some(sys::move_high(fd, FD_LOWEST))
}

const _: () = assert!(THREAD_HEADER_BYTES as usize > wire_thread::word::CLASSES * 8);
