//! `sigaction` and its like, as the program calls them: our handler is not seen, and is put back
//! where the program sets the default.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::{__sigaction, default_action, handler, our_action, watches};

type SigAction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
type Signal = unsafe extern "C" fn(c_int, usize) -> usize;

/// A function that would be called without us. It is looked up when the library is loaded: these
/// are called in signal handlers too, where the loader must not be asked.
struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn of(name: &'static CStr) -> Self {
        Self {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn get(&self) -> *mut c_void {
        let known = self.found.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        // SAFETY: a C string; a constructor before ours may come here, asked outside our own paths.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Release);
        found
    }
}

static SIGACTION: Next = Next::of(c"sigaction");
static SIGNAL: Next = Next::of(c"signal");

/// Looks all of them up. From the constructor.
pub(super) fn learn() {
    for next in [&SIGACTION, &SIGNAL].into_iter().chain(LIKE_SIGNAL) {
        next.get();
    }
}

pub(super) fn next_sigaction() -> SigAction {
    let found = SIGACTION.get();
    if found.is_null() {
        return __sigaction;
    }
    // SAFETY: a function of that name has that type.
    unsafe { mem::transmute::<*mut c_void, SigAction>(found) }
}

/// POSIX `sigaction`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    let next = next_sigaction();
    if !watches(signal) {
        // SAFETY: the program's own call.
        return unsafe { next(signal, new, old) };
    }
    let ours = our_action();
    // SAFETY: null, or the program's action.
    let default = unsafe { new.as_ref() }.is_some_and(|new| new.sa_sigaction == libc::SIG_DFL);
    // SAFETY: the program's own call, with our action in place of the default one.
    let answer = unsafe { next(signal, if default { &raw const ours } else { new }, old) };
    // SAFETY: null, or what the call has just written.
    if let Some(old) = unsafe { old.as_mut() }
        && answer == 0
        && old.sa_sigaction == handler()
    {
        *old = default_action();
    }
    answer
}

/// C's `signal`.
#[unsafe(no_mangle)]
unsafe extern "C" fn signal(signal: c_int, wanted: usize) -> usize {
    if wanted == libc::SIG_DFL && watches(signal) {
        let (new, mut old) = (default_action(), default_action());
        // SAFETY: our own variables.
        return match unsafe { sigaction(signal, &raw const new, &raw mut old) } {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        };
    }
    // SAFETY: the program's own call.
    unsafe { passed_on(&SIGNAL, signal, wanted) }
}

/// # Safety
/// `next` is a function with `signal`'s type; the rest is the program's call.
unsafe fn passed_on(next: &Next, signal: c_int, wanted: usize) -> usize {
    let found = next.get();
    if found.is_null() {
        return libc::SIG_ERR;
    }
    // SAFETY: the caller's duty.
    let old = unsafe { mem::transmute::<*mut c_void, Signal>(found)(signal, wanted) };
    if old == handler() { libc::SIG_DFL } else { old }
}

macro_rules! like_signal {
    ($($next:ident $name:ident $text:literal)*) => {
        static LIKE_SIGNAL: [&Next; [$($text),*].len()] = [$(&$next),*];
        $(
            static $next: Next = Next::of($text);

            #[doc = "Like `signal`, with other habits; a default set by it is the kernel's."]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(signal: c_int, wanted: usize) -> usize {
                // SAFETY: the program's own call.
                unsafe { passed_on(&$next, signal, wanted) }
            }
        )*
    };
}

like_signal! {
    BSD_SIGNAL bsd_signal c"bsd_signal"
    SSIGNAL ssignal c"ssignal"
    SYSV_SIGNAL sysv_signal c"sysv_signal"
    SYSV_SIGNAL_TOO __sysv_signal c"__sysv_signal"
    SIGSET sigset c"sigset"
}
