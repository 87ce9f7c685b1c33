//! Signals that would end the process: it is checked for leaks first.
//!
//! # Design
//! With `PAGESHIM_CHECK=exit`, signals in [`ENDING`] that the program leaves to the kernel get
//! a handler: it checks, sets the kernel's own action again and sends the signal to its thread
//! once more, with all it came with, so that status, core and `siginfo` are what they would have
//! been. The kernel delivers it where the handler returns to, before the program runs on.
//!
//! The program sees none of it: `sigaction`, `signal` and their like are exported, and say
//! `SIG_DFL` where the handler is ours; a program that sets `SIG_DFL` gets ours again. `exec` and
//! `posix_spawn` set handlers back by themselves; what is ignored stays so.
//!
//! # Failure
//! Process 1, which the kernel spares such signals, programs in Go, and one where another library
//! handles `sigaction`, are left alone. A raw `rt_sigaction` sees our handler.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use pageshim_core::modules::has_note;
use pageshim_core::sys;
use pageshim_core::unwind::find_module;

use crate::thread::Thread;
use crate::world::STATE;
use crate::{boot, check, fork, tls, world};

mod exports;

/// Asked to end by somebody, by time or by a pipe without a reader; then crashes.
const ENDING: [c_int; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGALRM,
    libc::SIGPIPE,
    libc::SIGXCPU,
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
];
/// From here on they are crashes.
const CRASHES: usize = 7;

/// Ours are in place.
static WATCHING: AtomicBool = AtomicBool::new(false);
/// The thread that checks; 0 before.
static CHECKER: AtomicU32 = AtomicU32::new(0);
/// What it came for.
static FIRST: AtomicI32 = AtomicI32::new(0);
static FIRST_INFO: [AtomicU64; INFO_WORDS] = [const { AtomicU64::new(0) }; INFO_WORDS];
/// Words of a siginfo.
const INFO_WORDS: usize = 16;
/// 1 when it is done.
static CHECKED: AtomicU32 = AtomicU32::new(0);
/// A thread that waits for it goes on after this.
const WAIT_MS: u64 = 6_000;

unsafe extern "C" {
    /// libc's own, whoever else exports `sigaction`.
    fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
}

/// Puts handlers where the program has none. Once, from the constructor.
pub(crate) fn watch() {
    exports::learn();
    let wanted = boot::config().is_some_and(|config| config.check_signals);
    let shared = exports::next_sigaction() as *const () != __sigaction as *const ();
    if !wanted || shared || is_go() || !check::is_possible() || sys::process_id() == 1 {
        return;
    }
    WATCHING.store(true, Ordering::Release);
    let ours = our_action();
    for signal in ENDING {
        let mut old = default_action();
        // SAFETY: our own variables.
        let known = unsafe { __sigaction(signal, ptr::null(), &raw mut old) } == 0;
        if known && old.sa_sigaction == libc::SIG_DFL {
            // SAFETY: as above.
            unsafe { __sigaction(signal, &raw const ours, ptr::null_mut()) };
        }
    }
}

/// Go's runtime asks the kernel itself which handlers there were, and would hand ours signals that
/// it treats otherwise where there was none.
fn is_go() -> bool {
    // SAFETY: plain numbers from the kernel.
    let program = find_module(unsafe { libc::getauxval(libc::AT_ENTRY) });
    program.is_some_and(|program| has_note(&program, *b"Go\0\0", 4))
}

fn default_action() -> libc::sigaction {
    // SAFETY: plain numbers, for which zeros mean the default.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// With all signals put off but the one that holds threads, and those of a fault in the check.
fn our_action() -> libc::sigaction {
    let mut action = default_action();
    action.sa_sigaction = handler();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    let holds = boot::config().map_or(0, |config| config.signal);
    // SAFETY: our own variable.
    unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        for signal in [
            holds,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
        ] {
            libc::sigdelset(&raw mut action.sa_mask, signal);
        }
    }
    action
}

fn handler() -> usize {
    (end as *const ()).addr()
}

/// True for signals that are ours to see, as long as nobody ends yet.
fn watches(signal: c_int) -> bool {
    WATCHING.load(Ordering::Acquire)
        && CHECKER.load(Ordering::Relaxed) == 0
        && ENDING.contains(&signal)
}

/// The handler.
extern "C" fn end(signal: c_int, info: *mut c_void, context: *mut c_void) {
    if CHECKER.load(Ordering::SeqCst) == sys::thread_id() {
        give_up();
    }
    before_the_end(signal, info, context);
    sys::handle_by_default(signal);
    // A filter knows the call that `raise` makes.
    if sys::has_filter() {
        let _ = sys::signal_thread(sys::thread_id(), signal);
        return;
    }
    // SAFETY: what the kernel gave us.
    let _ = unsafe { sys::signal_self_again(signal, info) };
}

/// Has the process checked by the first thread that comes; others wait for it.
fn before_the_end(signal: c_int, info: *const c_void, context: *const c_void) {
    let own = sys::thread_id();
    let first = CHECKER.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst);
    if first.is_ok() {
        FIRST.store(signal, Ordering::Relaxed);
        for (index, word) in FIRST_INFO.iter().enumerate() {
            // SAFETY: a siginfo has so many words.
            word.store(
                unsafe { info.cast::<u64>().add(index).read() },
                Ordering::Relaxed,
            );
        }
        // In a child of vfork all of this is its parent's.
        if fork::is_copy() {
            CHECKER.store(0, Ordering::SeqCst);
            return;
        }
        let crashed = ENDING.iter().skip(CRASHES).any(|crash| *crash == signal);
        if !crashed {
            publish();
        }
        // SAFETY: the kernel's own context.
        unsafe { check::at_signal(context, crashed) };
        CHECKED.store(1, Ordering::SeqCst);
        sys::wake_all(&CHECKED);
        return;
    }
    let began = sys::coarse_ms();
    while CHECKED.load(Ordering::SeqCst) == 0 && sys::coarse_ms() - began < WAIT_MS {
        sys::wait_while(&CHECKED, 0, 1000);
    }
}

/// The check met a fault, in memory that is damaged: the process ends as it would have.
#[cold]
fn give_up() {
    let first = FIRST.load(Ordering::Relaxed);
    sys::handle_by_default(first);
    sys::unblock(first);
    // SAFETY: a copy of what the kernel gave us.
    let _ = unsafe { sys::signal_self_again(first, FIRST_INFO.as_ptr().cast()) };
}

/// What this thread has counted, if it was not about to.
fn publish() {
    if world::recording()
        && let Some(thread) = tls::get()
        && let Some(_inside) = Thread::enter(thread)
    {
        thread.track.publish(&STATE);
        STATE.advance_tick();
    }
}

/// In a forked child: nobody ends yet.
pub(crate) fn forget() {
    CHECKER.store(0, Ordering::Relaxed);
    CHECKED.store(0, Ordering::Relaxed);
}
