//! One pointer per thread, reached in two instructions.
//!
//! `thread_local!` in a shared library calls `__tls_get_addr`, which may call
//! malloc; the initial-exec model does not, and LD_PRELOAD has room for eight
//! bytes of static TLS.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::thread::Thread;

global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".balign 8",
    ".hidden pageshim_thread_slot",
    ".globl pageshim_thread_slot",
    ".type pageshim_thread_slot, @object",
    ".size pageshim_thread_slot, 8",
    "pageshim_thread_slot:",
    ".zero 8",
    ".previous",
);

/// This thread's state; `None` before its first allocation and after its end.
#[inline]
pub(crate) fn get() -> Option<&'static Thread> {
    let pointer: *const Thread;
    // SAFETY: reads this thread's own slot.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + pageshim_thread_slot@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) pointer,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: the slot holds null or a thread state, which lives for ever.
    unsafe { pointer.as_ref() }
}

/// Sets this thread's slot.
pub(crate) fn set(thread: Option<&'static Thread>) {
    let pointer = thread.map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: writes this thread's own slot.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + pageshim_thread_slot@GOTTPOFF]",
            "mov qword ptr fs:[{0}], {1}",
            out(reg) _,
            in(reg) pointer,
            options(nostack, preserves_flags),
        );
    }
}

/// Bytes of static storage below a control block, as the loader says.
static BELOW: AtomicUsize = AtomicUsize::new(64 << 10);
/// Of the control block itself: glibc's `struct pthread`.
const ABOVE: usize = 2432;

/// The first thread's control block.
static FIRST: AtomicUsize = AtomicUsize::new(0);

/// Asks the loader how much storage a thread has. Once, from the constructor, which the first thread runs.
pub(crate) fn learn() {
    FIRST.store(control_block(), Ordering::Relaxed);
    type Ask = unsafe extern "C" fn(*mut usize, *mut usize);
    let (mut bytes, mut align) = (0, 0);
    // SAFETY: a C string, and a function that has this type since threads have storage.
    unsafe {
        let ask = libc::dlsym(libc::RTLD_DEFAULT, c"_dl_get_tls_static_info".as_ptr());
        if ask.is_null() {
            // Nor does the program hear of it.
            libc::dlerror();
            return;
        }
        core::mem::transmute::<*mut c_void, Ask>(ask)(&raw mut bytes, &raw mut align);
    }
    if (1..1 << 30).contains(&bytes) {
        BELOW.store(bytes, Ordering::Relaxed);
    }
}

/// How much of a thread's storage lies below its control block, and how much from there on.
pub(crate) fn around() -> (usize, usize) {
    (BELOW.load(Ordering::Relaxed), ABOVE)
}

/// The control block of the process's first thread; of a forked child, that of its parent's.
pub(crate) fn first() -> usize {
    FIRST.load(Ordering::Relaxed)
}

/// The thread's control block: who this thread is, without a call.
#[inline]
pub(crate) fn control_block() -> usize {
    let address: usize;
    // SAFETY: fs:0 holds the control block's own address on x86-64.
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) address,
            options(pure, readonly, nostack, preserves_flags));
    }
    address
}
