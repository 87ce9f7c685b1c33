//! The section of the shared state that a check's result is written to.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use pageshim_core::leaks::{Live, Sink, Sums};
use pageshim_core::sys;
use pageshim_wire::check::{
    CHECK_HEADER_BYTES, CLASSES, Class, Method, ROW_BYTES, Reason, State, Trigger, option, row,
    word,
};
use pageshim_wire::process::SITE_UNKNOWN;

use super::filter;
use crate::boot;
use crate::world::STATE;

static AT: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The mapped section.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    words: *mut AtomicU64,
    bytes: usize,
}

/// Maps the section of a state that is this process's own.
pub(crate) fn map() {
    filter::learn();
    if let Some((at, bytes)) = STATE.map_check() {
        BYTES.store(bytes, Ordering::Relaxed);
        AT.store(at, Ordering::Release);
    }
}

/// In a forked child: the section is the parent's.
pub(crate) fn unmap() {
    let at = AT.swap(ptr::null_mut(), Ordering::AcqRel);
    if !at.is_null() {
        // SAFETY: our own mapping, in a process whose only thread is here.
        let _ = unsafe { sys::unmap(at.addr(), BYTES.load(Ordering::Relaxed)) };
    }
}

/// What a check went by and how it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) reason: Reason,
    pub(crate) trigger: Trigger,
    pub(crate) method: Method,
    pub(crate) options: u64,
    pub(crate) threads: u64,
    pub(crate) missed: u64,
    pub(crate) began_ns: u64,
}

impl Facts {
    /// A check that begins now.
    pub(crate) fn new(trigger: Trigger, method: Method) -> Self {
        Self {
            reason: Reason::None,
            trigger,
            method,
            options: wanted(trigger),
            threads: 0,
            missed: 0,
            began_ns: sys::fast_monotonic_ns(),
        }
    }

    /// Of a process with several threads only one is known, in a copy.
    pub(super) fn miss_the_others(&mut self) {
        self.method = Method::Fork;
        self.threads = 1;
        self.missed = sys::thread_count().map_or(1, |all| all.saturating_sub(1)) as u64;
    }
}

/// Which roots: as the environment says, or as who asks does.
fn wanted(trigger: Trigger) -> u64 {
    let own = boot::config().is_some_and(|config| config.strict);
    let asked = match trigger {
        Trigger::Exit => 0,
        Trigger::Request => Section::get().map_or(0, |section| section.read(word::WANTED)),
    };
    (asked & option::STRICT) | if own { option::STRICT } else { 0 }
}

impl Section {
    /// The section, when it is mapped.
    pub(crate) fn get() -> Option<Self> {
        let words = AT.load(Ordering::Acquire);
        (!words.is_null()).then(|| Self {
            words,
            bytes: BYTES.load(Ordering::Relaxed),
        })
    }

    /// Its mapping.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.words.addr(), self.words.addr() + self.bytes)
    }

    fn at(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: the mapping has so many words.
        (index < self.bytes / 8).then(|| unsafe { &*self.words.add(index) })
    }

    /// Reads a word of the header.
    pub(crate) fn read(&self, index: usize) -> u64 {
        self.at(index)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Writes a word of the header.
    pub(crate) fn write(&self, index: usize, value: u64) {
        if let Some(word) = self.at(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// How many whole results there were so far.
    pub(crate) fn results(&self) -> u64 {
        self.read(word::SEQUENCE) / 2
    }

    /// Begins a result: readers see that it is being written, and what was before is gone.
    pub(crate) fn begin(&self) {
        self.write(word::SEQUENCE, self.read(word::SEQUENCE) | 1);
        fence(Ordering::SeqCst);
        self.write(word::STATE, State::Running as u64);
        for index in word::REASON..=word::CHAIN_INTO {
            self.write(index, 0);
        }
        let header = usize::try_from(CHECK_HEADER_BYTES).unwrap_or(0);
        let from = self.words.addr() + header;
        // SAFETY: the rows of our own section, which nobody else writes.
        if unsafe { sys::advise(from, self.bytes - header, sys::REMOVE) }.is_err() {
            self.clear_rows();
        }
    }

    /// Where the kernel makes no hole: the rows of sites there are.
    fn clear_rows(&self) {
        let sites = STATE.get(pageshim_wire::process::word::SITE_COUNT);
        for index in 0..usize::try_from(sites * ROW_BYTES / 8).unwrap_or(0) {
            let index = usize::try_from(CHECK_HEADER_BYTES / 8).unwrap_or(0) + index;
            if self.read(index) != 0 {
                self.write(index, 0);
            }
        }
    }

    /// Ends a result.
    pub(crate) fn end(&self, facts: &Facts, sums: Option<&Sums>) {
        let took = sys::fast_monotonic_ns().saturating_sub(facts.began_ns);
        let state = if sums.is_some() {
            State::Done
        } else {
            State::Failed
        };
        for (index, value) in [
            (word::STATE, state as u64),
            (word::REASON, facts.reason as u64),
            (word::TRIGGER, facts.trigger as u64),
            (word::METHOD, facts.method as u64),
            (word::OPTIONS, facts.options),
            (word::THREADS, facts.threads),
            (word::THREADS_MISSED, facts.missed),
            (word::TICK, STATE.tick()),
            (word::DURATION_NS, took),
            (word::PAUSE_NS, took),
        ] {
            self.write(index, value);
        }
        if let Some(sums) = sums {
            self.write(word::SCANNED_BYTES, sums.scanned_bytes);
            self.write(word::ROOT_BYTES, sums.root_bytes);
            self.write(word::UNRECORDED, sums.unrecorded);
            for (class, (blocks, bytes)) in sums.classes.iter().enumerate() {
                self.write(word::CLASSES + class * 2, *blocks);
                self.write(word::CLASSES + class * 2 + 1, *bytes);
            }
        }
        fence(Ordering::SeqCst);
        self.write(word::SEQUENCE, (self.read(word::SEQUENCE) | 1) + 1);
    }

    /// First word of a site's row.
    fn row(&self, site: u32) -> usize {
        let site = u64::from(site);
        let sites = STATE.layout().map_or(0, |layout| layout.site_capacity);
        let site = if site < sites {
            site
        } else {
            u64::from(SITE_UNKNOWN)
        };
        usize::try_from((CHECK_HEADER_BYTES + site * ROW_BYTES) / 8).unwrap_or(0)
    }

    fn add(&self, index: usize, amount: u64) -> u64 {
        let before = self.read(index);
        self.write(index, before.wrapping_add(amount));
        before
    }
}

impl Sink for Section {
    fn block(&mut self, class: Class, block: &Live) {
        let row = self.row(block.site);
        let pair = |class: usize| row + row::CLASSES + class * 2;
        let class = class as usize;
        let before = self.add(pair(class), 1);
        self.add(pair(class) + 1, block.requested as u64);
        let oldest = row + row::OLDEST + class;
        if before == 0 || block.birth < self.read(oldest) {
            self.write(oldest, block.birth);
        }
        let worse = (0..class).any(|worse| self.read(pair(worse)) != 0);
        if before == 0 && !worse {
            self.write(row + row::EXAMPLE, block.address as u64);
        }
    }

    fn held(&mut self, leader: &Live, block: &Live) {
        let row = self.row(leader.site) + row::HELD;
        self.add(row, 1);
        self.add(row + 1, block.requested as u64);
    }
}

const _: () = assert!(CLASSES * 2 <= row::HELD && row::EXAMPLE < (ROW_BYTES / 8) as usize);
