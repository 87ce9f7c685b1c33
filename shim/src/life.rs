//! Thread ends and ways out.
//!
//! # Design
//! A pthread key's destructor parks a thread's state. Other destructors may run
//! after it and allocate, so it asks to be called again until the last round. A
//! thread that ends without destructors is found by the next one that gets its
//! control block. `exit` and main's return are seen by an `on_exit` handler,
//! `_exit` and its like by our own; whoever dies otherwise leaves a book that
//! says nothing of an exit, and the daemon holds it.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

use pageshim_core::sys;
use pageshim_wire::frame::Kind;
use pageshim_wire::process::word;

use crate::thread::Thread;
use crate::world::STATE;
use crate::{check, fork, link, tls, trace, whole, world};

const NO_KEY: u32 = u32::MAX;
// glibc runs destructors at most four times.
const ROUNDS: u32 = 3;
static KEY: AtomicU32 = AtomicU32::new(NO_KEY);

unsafe extern "C" {
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn pthread_atfork(
        prepare: extern "C" fn(),
        parent: extern "C" fn(),
        child: extern "C" fn(),
    ) -> c_int;
}

/// Registers for forks, exit and thread ends. Once, from the constructor.
pub(crate) fn register() {
    let mut key = 0;
    // SAFETY: plain libc registrations of functions that live as long as the library,
    // which is never unloaded. Early, so that the key's number is small: a value under
    // a small key is set without an allocation.
    unsafe {
        if libc::pthread_key_create(&raw mut key, Some(ended)) == 0 {
            KEY.store(key, Ordering::Release);
        }
        pthread_atfork(fork::prepare, fork::in_parent, fork::in_child);
        on_exit(exiting, core::ptr::null_mut());
    }
}

/// Asks to hear of the thread's end.
pub(crate) fn watch(thread: &'static Thread) {
    let key = KEY.load(Ordering::Acquire);
    if key != NO_KEY {
        let value = core::ptr::from_ref(thread).cast();
        // SAFETY: our own key; glibc keeps values of small keys in the thread itself.
        unsafe { libc::pthread_setspecific(key, value) };
    }
}

extern "C" fn ended(_value: *mut c_void) {
    let Some(thread) = tls::get() else { return };
    if thread.next_round() < ROUNDS {
        watch(thread);
    } else {
        thread.park();
    }
}

extern "C" fn exiting(status: c_int, _argument: *mut c_void) {
    note_exit(status);
}

/// Writes down how the process ends.
fn note_exit(status: c_int) {
    if !world::recording() || fork::is_copy() {
        return;
    }
    if let Some(thread) = tls::get()
        && let Some(_inside) = thread.enter()
    {
        thread.track.publish(&STATE);
        trace::flush_all();
        whole::at_exit();
    }
    STATE.advance_tick();
    check::at_exit();
    STATE.set(word::EXIT_STATUS, u64::from(status.cast_unsigned() & 0xff));
    STATE.set(word::EXIT_STATE, 1);
    link::send_words(Kind::Exit, &[u64::from(status.cast_unsigned() & 0xff)]);
}

/// Leaves at once, as POSIX says.
#[unsafe(no_mangle)]
extern "C" fn _exit(status: c_int) -> ! {
    note_exit(status);
    leave(status)
}

/// The same under C's name.
#[unsafe(no_mangle)]
extern "C" fn _Exit(status: c_int) -> ! {
    note_exit(status);
    leave(status)
}

/// C11's way out: handlers of its own, then the end.
#[unsafe(no_mangle)]
extern "C" fn quick_exit(status: c_int) -> ! {
    note_exit(status);
    // SAFETY: a C string; the symbol found is C's quick_exit.
    unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"quick_exit".as_ptr());
        if !next.is_null() {
            let next: unsafe extern "C" fn(c_int) = core::mem::transmute(next);
            next(status);
        }
    }
    leave(status)
}

fn leave(status: c_int) -> ! {
    loop {
        sys::exit_group(status);
    }
}

/// Stops the process after an internal error.
#[cfg(not(test))]
pub(crate) fn abort() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}
