//! Where the layers write down what they hold: header words of the shared state.
//!
//! # Design
//! A private page serves until a shared state exists ([`Accounts::attach`]), and
//! again in a forked child ([`Accounts::detach`]), so that a layer never asks
//! whether someone is listening. Only slow paths write here.
//!
//! # Concurrency
//! Relaxed atomic adds: each word stands for itself. The pointer is published
//! with Release and read with Acquire.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use pageshim_wire::calls::Party;
use pageshim_wire::layout::HEADER_BYTES;
use pageshim_wire::process::{CLASS_WORDS, class, word};
use pageshim_wire::thread::{self, SYSCALLS, Syscall};

use super::billing::{Billed, Billing};

const HEADER_WORDS: usize = HEADER_BYTES as usize / 8;
type Words = [AtomicU64; HEADER_WORDS];
type Calls = [AtomicU64; 2 * SYSCALLS];

/// The words and where they are now.
#[derive(Debug)]
pub struct Accounts {
    private: Words,
    private_calls: Calls,
    header: AtomicPtr<Words>,
    calls: AtomicPtr<Calls>,
    billing: Billing,
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Accounts {
    /// Empty books in private memory.
    pub const fn new() -> Self {
        Self {
            private: [const { AtomicU64::new(0) }; HEADER_WORDS],
            private_calls: [const { AtomicU64::new(0) }; 2 * SYSCALLS],
            header: AtomicPtr::new(core::ptr::null_mut()),
            calls: AtomicPtr::new(core::ptr::null_mut()),
            billing: Billing::new(),
        }
    }

    /// Header word `index`.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        let shared = self.header.load(Ordering::Acquire);
        // SAFETY: attach()'s caller vouched for the pointer.
        let words = unsafe { shared.as_ref() }.unwrap_or(&self.private);
        &words[index]
    }

    /// Adds to a header word; negative amounts wrap, as two's complement wants.
    pub fn add(&self, index: usize, amount: i64) {
        self.word(index)
            .fetch_add(amount.cast_unsigned(), Ordering::Relaxed);
    }

    /// The heap holds more bytes (or, negative, less).
    pub fn add_committed(&self, bytes: i64) {
        let before = self
            .word(word::HEAP_COMMITTED)
            .fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
        if bytes > 0 {
            self.raise_bytes_max(before.wrapping_add(bytes.cast_unsigned()));
        }
    }

    /// The heap held so many bytes.
    pub fn raise_bytes_max(&self, bytes: u64) {
        self.word(word::HEAP_BYTES_MAX)
            .fetch_max(bytes, Ordering::Relaxed);
    }

    /// Adds to one of the words of size class `index` (see [`class`]).
    pub fn add_class(&self, index: usize, field: usize, amount: i64) {
        self.add(word::CLASSES + index * CLASS_WORDS + field, amount);
    }

    /// A page run of `page_bytes` begins (or, negative, ends) serving a class.
    pub fn add_page(&self, index: usize, page_bytes: i64) {
        self.add_class(index, class::PAGE_BYTES, page_bytes);
        self.add_class(index, class::PAGES, page_bytes.signum());
    }

    /// Whom system calls are billed to.
    pub const fn billing(&self) -> &Billing {
        &self.billing
    }

    /// Counts one system call for `bytes`.
    pub fn count_call(&self, call: Syscall, billed: &Billed, bytes: usize) {
        let shared = self.calls.load(Ordering::Acquire);
        // SAFETY: as in word().
        let calls = unsafe { shared.as_ref() }.unwrap_or(&self.private_calls);
        calls[call as usize * 2].fetch_add(1, Ordering::Relaxed);
        calls[call as usize * 2 + 1].fetch_add(billed.ns(), Ordering::Relaxed);
        self.billing.count(call, Party::Layers, billed, bytes);
    }

    /// How often a system call was made, and the ns it took in all.
    pub fn calls(&self, call: Syscall) -> (u64, u64) {
        let shared = self.calls.load(Ordering::Acquire);
        // SAFETY: as in word().
        let calls = unsafe { shared.as_ref() }.unwrap_or(&self.private_calls);
        let read = |index: usize| calls[index].load(Ordering::Relaxed);
        (read(call as usize * 2), read(call as usize * 2 + 1))
    }

    /// Moves the books into a shared state: `header`, the header of its thread slot 0,
    /// whose system call words serve the whole process, and the rows of the bill.
    ///
    /// # Safety
    /// All point to mapped, 8-byte aligned words of the sizes wire gives them,
    /// for as long as the process lives or until [`Accounts::detach`].
    pub unsafe fn attach(
        &self,
        header: *mut AtomicU64,
        slot: *mut AtomicU64,
        rows: *mut AtomicU64,
    ) {
        let calls = slot.wrapping_add(thread::word::SYSCALLS).cast::<Calls>();
        let words = header.cast::<Words>();
        // SAFETY: the caller vouched for both.
        let (shared, shared_calls) = unsafe { (&*words, &*calls) };
        for (from, to) in self.private.iter().zip(shared) {
            to.fetch_add(from.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        let made = |call: usize| {
            let read = |index: usize| self.private_calls[index].load(Ordering::Relaxed);
            (read(call * 2), read(call * 2 + 1))
        };
        // SAFETY: as above.
        unsafe { self.billing.begin(rows, made) };
        for (from, to) in self.private_calls.iter().zip(shared_calls) {
            to.fetch_add(from.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        self.header.store(words, Ordering::Release);
        self.calls.store(calls, Ordering::Release);
    }

    /// Goes on in other words that already hold what these did (a forked child's).
    ///
    /// # Safety
    /// As [`Accounts::attach`].
    pub unsafe fn follow(
        &self,
        header: *mut AtomicU64,
        slot: *mut AtomicU64,
        rows: *mut AtomicU64,
    ) {
        let calls = slot.wrapping_add(thread::word::SYSCALLS).cast::<Calls>();
        self.header.store(header.cast(), Ordering::Release);
        self.calls.store(calls, Ordering::Release);
        // SAFETY: the caller's duty.
        unsafe { self.billing.begin(rows, |_| (0, 0)) };
    }

    /// Goes back to private words (in a forked child, whose parent owns the
    /// state). What the heap holds is copied, what it counts starts at zero.
    pub fn detach(&self) {
        for index in word::HEAP_BASE..=word::METADATA {
            self.private[index].store(self.word(index).load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for index in word::CLASS_COUNT..=word::DEPTH_LIMIT {
            self.private[index].store(self.word(index).load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for index in word::HEAP_STRUCTS..=word::HEAP_RECORDS {
            self.private[index].store(self.word(index).load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for index in word::CLASSES..HEADER_WORDS / 2 {
            self.private[index].store(self.word(index).load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let held = self.private[word::HEAP_COMMITTED].load(Ordering::Relaxed);
        self.private[word::HEAP_BYTES_MAX].store(held, Ordering::Relaxed);
        self.header.store(core::ptr::null_mut(), Ordering::Release);
        self.calls.store(core::ptr::null_mut(), Ordering::Release);
        // SAFETY: none.
        unsafe { self.billing.begin(core::ptr::null_mut(), |_| (0, 0)) };
    }
}
