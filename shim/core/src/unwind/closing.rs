//! Modules that go while their tables are read.
//!
//! A thread stands on the code whose rules it looks up, so that code stays; unless
//! what it took for a return address is not one: a frame guessed by rbp, a stack the
//! program wrote over. Such a word may name a module that another thread is just
//! unloading.
//!
//! # Design
//! Who unloads says so first and waits until nobody reads. Whoever comes meanwhile
//! copies through the kernel instead, which survives what is no longer there. The
//! unloading thread itself reads directly: its destructors run before anything goes.
//!
//! # Invariants
//! C1: inside [`Closing::direct`] no `dlclose` of another thread unmaps anything.
//!
//! # Concurrency
//! `reading` then `closing` in a reader, `closing` then `reading` in who unloads, all
//! SeqCst: one of the two sees the other. The wait is bounded, because a reader may have
//! been left by a jump or a fork.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::sys;

/// How often who unloads looks for readers, giving way each time, before going on.
const LOOKS_MAX: u32 = 2000;

/// All zeros: nobody unloads, nobody reads.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Closing {
    closers: AtomicU64,
    /// The only closer's thread, or 0.
    only: AtomicU64,
    readers: AtomicU64,
}

impl Closing {
    /// Reads directly, unless another thread is unloading: then `None`, nothing done.
    pub(crate) fn direct<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        self.readers.fetch_add(1, SeqCst);
        let closers = self.closers.load(SeqCst);
        let free = closers == 0 || closers == 1 && self.only.load(SeqCst) == this_thread();
        let answer = free.then(read);
        self.readers.fetch_sub(1, SeqCst);
        answer
    }

    /// Does `close`, which may unmap modules (C1).
    pub(crate) fn close<T>(&self, close: impl FnOnce() -> T) -> T {
        let alone = self.closers.fetch_add(1, SeqCst) == 0;
        self.only
            .store(if alone { this_thread() } else { 0 }, SeqCst);
        for _ in 0..LOOKS_MAX {
            if self.readers.load(SeqCst) == 0 {
                break;
            }
            sys::yield_now();
        }
        let answer = close();
        self.only.store(0, SeqCst);
        self.closers.fetch_sub(1, SeqCst);
        answer
    }

    /// In a forked child: the other threads are not here.
    pub(crate) fn forget(&self) {
        for count in [&self.readers, &self.only, &self.closers] {
            count.store(0, SeqCst);
        }
    }
}

/// A number of the calling thread, never 0: its control block's address.
fn this_thread() -> u64 {
    let own: u64;
    // SAFETY: the ABI keeps the control block's own address at fs:0.
    unsafe {
        core::arch::asm!("mov {}, fs:0", out(reg) own, options(nostack, readonly, preserves_flags));
    }
    own
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    // Goal: nobody reads directly while another unloads, the unloading thread may, and who
    // unloads waits for readers. Method: two threads in turn.
    #[test]
    fn readers_and_closers_see_each_other() {
        let closing = Closing::default();
        assert_eq!(closing.direct(|| 1), Some(1));
        closing.close(|| {
            assert_eq!(closing.direct(|| 2), Some(2), "its own destructors");
            std::thread::scope(|scope| {
                let other = scope.spawn(|| closing.direct(|| 3));
                assert_eq!(other.join().expect("no panic"), None);
                let other = scope.spawn(|| closing.close(|| closing.direct(|| 4)));
                assert_eq!(other.join().expect("no panic"), None, "either may unmap");
            });
        });
        assert_eq!(closing.direct(|| 5), Some(5));
        let order = std::sync::Mutex::new(std::vec![]);
        std::thread::scope(|scope| {
            closing.direct(|| {
                scope.spawn(|| closing.close(|| order.lock().expect("sound").push("closed")));
                while closing.closers.load(SeqCst) == 0 {
                    std::thread::yield_now();
                }
                order.lock().expect("sound").push("read");
            });
        });
        assert_eq!(*order.lock().expect("sound"), ["read", "closed"]);
    }
}
