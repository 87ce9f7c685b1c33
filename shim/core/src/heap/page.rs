//! The page layer: whole pages from the kernel, each call counted and timed.
//!
//! The parent of every other layer. It keeps no list and no lock: what is asked
//! for here costs a system call, and that is the point of showing it.
//! Each call is billed to the site at work (see [`super::billing`]), or to upkeep.
//! [`Pages`] are the calls, [`PageLayer`] makes a layer of them.
//!
//! # Failure
//! `None` or `false` when the kernel refuses; nothing changes then.
#![allow(unsafe_code)]

use pageshim_wire::calls::UPKEEP;
use pageshim_wire::process::word;
use pageshim_wire::thread::Syscall;

use super::accounts::Accounts;
use super::billing::Billed;
use crate::sys;

mod layer;

pub use layer::{Hint, PageLayer};

/// The kernel's pages, billed to one set of books.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    accounts: &'static Accounts,
    upkeep: bool,
    own: bool,
}

impl Pages {
    /// A page layer that writes to `accounts`.
    pub const fn new(accounts: &'static Accounts) -> Self {
        Self {
            accounts,
            upkeep: false,
            own: false,
        }
    }

    /// The same for what no request caused: its calls are billed to upkeep.
    pub const fn for_upkeep(self) -> Self {
        Self {
            upkeep: true,
            ..self
        }
    }

    /// The same for memory that holds no blocks: its calls are counted as our own, too.
    pub const fn for_own_tables(self) -> Self {
        Self {
            upkeep: true,
            own: true,
            ..self
        }
    }

    /// The books it writes to.
    pub const fn accounts(&self) -> &'static Accounts {
        self.accounts
    }

    fn timed<T>(&self, call: Syscall, bytes: usize, run: impl FnOnce() -> T) -> (T, Billed) {
        let start_ns = sys::fast_monotonic_ns();
        let answer = run();
        let end_ns = sys::fast_monotonic_ns();
        let site = if self.upkeep {
            UPKEEP
        } else {
            self.accounts.billing().site()
        };
        let billed = Billed {
            site,
            start_ns,
            end_ns,
        };
        self.accounts.count_call(call, &billed, bytes);
        if self.own {
            self.accounts.add(word::OWN_CALLS, 1);
        }
        (answer, billed)
    }

    /// A call that gets a range from the kernel.
    fn got(
        &self,
        call: Syscall,
        bytes: usize,
        run: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        let (address, billed) = self.timed(call, bytes, run);
        let billing = self.accounts.billing();
        address.inspect(|address| billing.got(*address, bytes, &billed))
    }

    /// A call that gives a range back.
    fn gave(
        &self,
        call: Syscall,
        address: usize,
        bytes: usize,
        run: impl FnOnce() -> bool,
    ) -> bool {
        let (done, billed) = self.timed(call, bytes, run);
        if done {
            self.accounts.billing().gave(address, bytes, &billed);
        }
        done
    }

    /// Address space without memory behind it.
    pub fn reserve(&self, bytes: usize) -> Option<usize> {
        self.got(Syscall::Mmap, bytes, || {
            // SAFETY: a new mapping at an address of the kernel's choice.
            unsafe { sys::map_anonymous(0, bytes, sys::PROT_NONE, false) }.ok()
        })
    }

    /// Fresh zeroed memory.
    pub fn map(&self, bytes: usize) -> Option<usize> {
        self.got(Syscall::Mmap, bytes, || {
            // SAFETY: a new mapping at an address of the kernel's choice.
            unsafe { sys::map_anonymous(0, bytes, sys::PROT_READ_WRITE, false) }.ok()
        })
    }

    /// Fresh zeroed memory, at `hint` if that is free.
    pub fn map_near(&self, hint: usize, bytes: usize) -> Option<usize> {
        self.got(Syscall::Mmap, bytes, || {
            // SAFETY: not fixed: the kernel picks another place when `hint` is taken.
            unsafe { sys::map_anonymous(hint, bytes, sys::PROT_READ_WRITE, false) }.ok()
        })
    }

    /// Grows or shrinks a mapping where it is.
    ///
    /// # Safety
    /// The range was mapped by this layer; nobody uses what a smaller one loses.
    pub unsafe fn resize(&self, address: usize, bytes: usize, new_bytes: usize) -> bool {
        let resize = || {
            // SAFETY: caller's duty.
            unsafe { sys::resize_mapping(address, bytes, new_bytes) }.is_ok()
        };
        self.timed(Syscall::Mremap, new_bytes, resize).0
    }

    /// Resizes a mapping, moving it when it must; content moves along.
    ///
    /// # Safety
    /// As [`Pages::resize`]; after an answer only the new place is in use.
    pub unsafe fn relocate(&self, address: usize, bytes: usize, new_bytes: usize) -> Option<usize> {
        let relocate = || {
            // SAFETY: caller's duty.
            unsafe { sys::move_mapping(address, bytes, new_bytes, None) }.ok()
        };
        self.timed(Syscall::Mremap, new_bytes, relocate).0
    }

    /// Makes reserved pages usable.
    ///
    /// # Safety
    /// The range was reserved by this layer.
    pub unsafe fn commit(&self, address: usize, bytes: usize) -> bool {
        let commit = || {
            // SAFETY: more access harms nobody; the range is the caller's.
            let done = unsafe { sys::protect(address, bytes, sys::PROT_READ_WRITE) }.is_ok();
            done.then_some(address)
        };
        self.got(Syscall::Mprotect, bytes, commit).is_some()
    }

    /// Gives the memory behind a range back; it reads as zeros afterwards when
    /// this answers true.
    ///
    /// # Safety
    /// Nobody needs the range's content.
    pub unsafe fn purge(&self, address: usize, bytes: usize) -> bool {
        self.gave(Syscall::Madvise, address, bytes, || {
            // SAFETY: caller's duty.
            unsafe { sys::advise(address, bytes, sys::DONTNEED) }.is_ok()
        })
    }

    /// Gives a range back for good.
    ///
    /// # Safety
    /// Nobody uses the range any more.
    pub unsafe fn release(&self, address: usize, bytes: usize) -> bool {
        self.gave(Syscall::Munmap, address, bytes, || {
            // SAFETY: caller's duty.
            unsafe { sys::unmap(address, bytes) }.is_ok()
        })
    }

    /// Fresh zeroed pages at a place of a reserve.
    ///
    /// # Safety
    /// The range was reserved by this layer, and nobody needs its content.
    pub unsafe fn map_at(&self, address: usize, bytes: usize) -> bool {
        let map = || {
            // SAFETY: caller's duty.
            let done = unsafe { sys::map_anonymous(address, bytes, sys::PROT_READ_WRITE, true) };
            done.is_ok().then_some(address)
        };
        self.got(Syscall::Mmap, bytes, map).is_some()
    }

    /// Turns pages back into reserved address space, which nobody can touch.
    ///
    /// # Safety
    /// As [`Pages::map_at`], and nobody uses the range any more.
    pub unsafe fn retire(&self, address: usize, bytes: usize) -> bool {
        self.gave(Syscall::Mmap, address, bytes, || {
            // SAFETY: caller's duty.
            unsafe { sys::map_anonymous(address, bytes, sys::PROT_NONE, true) }.is_ok()
        })
    }

    /// Moves the memory of `bytes` to `target`; the old range stays mapped and empty,
    /// so that no other mapping can land there.
    ///
    /// # Safety
    /// Both ranges lie in a reserve of this layer, and nobody uses either now.
    pub unsafe fn move_content(&self, address: usize, bytes: usize, target: usize) -> bool {
        let moved = || {
            // SAFETY: caller's duty.
            unsafe { sys::move_content(address, bytes, target) }.is_ok()
        };
        self.timed(Syscall::Mremap, bytes, moved).0
    }
}
