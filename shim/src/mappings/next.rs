//! Another library's function of the same name, preloaded behind ours.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use pageshim_core::sys::Errno;
use pageshim_core::unwind::find_module;

/// A function of another library, preloaded behind ours, that wants these calls; null where it is
/// libc's own, whose call we make ourselves.
pub(super) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

/// What all of them take, and more than each reads.
type Function = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> usize;

impl Next {
    pub(super) const fn of(name: &'static CStr) -> Self {
        Self {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Looks for one. From the constructor.
    pub(super) fn learn(&self) {
        // SAFETY: a C string; asked outside our own paths.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        let module = |address: u64| find_module(address).map(|module| module.start);
        let libc = module(libc::gnu_get_libc_version as *const () as u64);
        if !found.is_null() && module(found.addr() as u64) != libc {
            self.found.store(found, Ordering::Release);
        }
    }

    /// Makes the call by it; `None` where there is none.
    pub(super) fn call(&self, args: [usize; 6]) -> Option<Result<usize, Errno>> {
        let found = self.found.load(Ordering::Acquire);
        if found.is_null() {
            return None;
        }
        // SAFETY: a function of that name takes that many words at most.
        let function: Function = unsafe { mem::transmute(found) };
        let [first, second, third, fourth, fifth, sixth] = args;
        // SAFETY: the program's own call.
        let answer = unsafe { function(first, second, third, fourth, fifth, sixth) };
        // munmap's is an int; no address of a page ends so.
        Some(match answer as u32 {
            // SAFETY: this thread's errno, which the function has just set.
            u32::MAX => Err(Errno(unsafe { *libc::__errno_location() })),
            _ => Ok(answer),
        })
    }
}
