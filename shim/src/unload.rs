//! `dlclose`: who unloads code says so to the unwinder.
//!
//! Rows and memos of code that is gone must not serve other code at its place, and
//! nobody may read a module's tables while they are unmapped (`core/unwind/closing`).
//! glibc tells nobody of an unload, so this one function of the loader is ours; what
//! libc unloads without it (name services, character sets) is found out when another
//! file is first met at that place.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::mem;

use crate::world::{self, MODULES, STATE};
use crate::{thread, tls};

type Close = unsafe extern "C" fn(*mut c_void) -> c_int;

/// The loader's `dlclose`, with the unwinder knowing.
#[unsafe(no_mangle)]
unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    // SAFETY: a C string; the symbol found is the loader's dlclose.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlclose".as_ptr()) };
    if next.is_null() {
        return -1; // there is no loader to have given a handle
    }
    // SAFETY: as above.
    let next: Close = unsafe { mem::transmute(next) };
    // SAFETY: the caller's handle, as it would have been handed over without us.
    let close = || unsafe { next(handle) };
    let Some(rows) = world::rows() else {
        return close();
    };
    let answer = rows.while_closing(close);
    if let Some(thread) = tls::get().or_else(thread::attach)
        && let Some(_inside) = thread.enter()
    {
        MODULES.sweep(&STATE);
    }
    answer
}
