//! Where a thread goes that a tracer has stopped and lends for a check.
//!
//! # Design
//! The tracer stops all threads, writes their registers to [`THREADS`], what the lent
//! thread goes on with to [`SAVED`], and lets that one run [`entry`] on [`STACK`]. To
//! fork, the entry makes a copy of the process with no exit signal, which `wait` does
//! not see, and the copy marks; else the entry marks right here, while the others
//! stand still. Then it restores every register by itself: a tracer that dies in
//! between leaves a program that goes on.
//!
//! The thread may have been stopped anywhere, inside of us too. So nothing here knows
//! thread, heap or lock, and signals stay blocked until the last instructions.
//!
//! # Invariants
//! H1. One lent thread at a time: the daemon asks for one check after another.
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_core::sys;
use pageshim_wire::check::{Method, Trigger, saved, stopped};
use pageshim_wire::process::word;

use crate::check;
use crate::world::STATE;

/// Threads there is room for, the end mark included.
const THREADS_MAX: usize = 4096;
const STACK_BYTES: usize = 256 * 1024;

#[repr(C, align(64))]
struct Room<T>(UnsafeCell<T>);
// SAFETY: written by a tracer while the process stands still, or by the lent thread (H1).
unsafe impl<T> Sync for Room<T> {}

static STACK: Room<[u8; STACK_BYTES]> = Room(UnsafeCell::new([0; STACK_BYTES]));
static THREADS: Room<[[u64; stopped::WORDS]; THREADS_MAX]> =
    Room(UnsafeCell::new([[0; stopped::WORDS]; THREADS_MAX]));
static SAVED: Room<[u64; saved::WORDS]> = Room(UnsafeCell::new([0; saved::WORDS]));
/// The lent thread's signal mask; the mask that blocks all.
static MASKS: Room<[u64; 2]> = Room(UnsafeCell::new([0, u64::MAX]));
/// Vector and floating point registers: as large as any processor's so far.
static EXTENDED: Room<[u8; 16 * 1024]> = Room(UnsafeCell::new([0; 16 * 1024]));
/// The last copy made, until it was reaped.
static COPY: AtomicU64 = AtomicU64::new(0);

/// Tells the daemon where all of this lies.
pub(crate) fn publish() {
    let stack = STACK.0.get().addr() + STACK_BYTES;
    let words = [
        (word::HELD_ENTRY, entry as *const () as usize),
        (word::HELD_STACK, stack),
        (word::HELD_THREADS, THREADS.0.get().addr()),
        (word::HELD_THREADS_MAX, THREADS_MAX),
        (word::HELD_SAVED, SAVED.0.get().addr()),
    ];
    for (index, value) in words {
        STATE.set(index, value as u64);
    }
}

/// Reaps the last copy, if it has ended: it has no exit signal, so only we know of it.
pub(crate) fn reap() {
    let copy = COPY.load(Ordering::Relaxed);
    if copy != 0 && sys::reap_clone(copy as u32) {
        COPY.store(0, Ordering::Relaxed);
    }
}

/// In a forked child: the copy is its parent's.
pub(crate) fn forget() {
    COPY.store(0, Ordering::Relaxed);
}

/// See the module's text. rdi is a [`Method`], rsi a [`Trigger`].
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(
        "cld",
        "mov r12, rdi",
        "mov r13, rsi",
        // rt_sigprocmask(SIG_SETMASK, all, old, 8)
        "mov eax, 14",
        "mov edi, 2",
        "lea rsi, [rip + {masks} + 8]",
        "lea rdx, [rip + {masks}]",
        "mov r10d, 8",
        "syscall",
        "test r12, r12",
        "jnz 2f",
        "call {before}",
        // clone(0): a child without an exit signal, at this very place
        "mov eax, 56",
        "xor edi, edi",
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "syscall",
        "test rax, rax",
        "jz 3f",
        "mov qword ptr [rip + {saved} + {child}], rax",
        "mov qword ptr [rip + {copy}], rax",
        "test rax, rax",
        "jns 4f",
        "mov qword ptr [rip + {copy}], 0",
        "jmp 4f",
        // The copy.
        "3:",
        "mov rdi, r13",
        "call {forked}",
        "ud2",
        // In place.
        "2:",
        "mov eax, -1",
        "mov edx, -1",
        "xsave64 [rip + {extended}]",
        "mov rdi, r12",
        "mov rsi, r13",
        "call {in_place}",
        "mov eax, -1",
        "mov edx, -1",
        "xrstor64 [rip + {extended}]",
        "mov qword ptr [rip + {saved} + {child}], 1",
        // Back to where the thread was.
        "4:",
        "mov eax, 14",
        "mov edi, 2",
        "lea rsi, [rip + {masks}]",
        "xor edx, edx",
        "mov r10d, 8",
        "syscall",
        "lea rsp, [rip + {saved} + {flags}]",
        "popfq",
        "mov rax, qword ptr [rip + {saved}]",
        "mov rbx, qword ptr [rip + {saved} + 8]",
        "mov rcx, qword ptr [rip + {saved} + 16]",
        "mov rdx, qword ptr [rip + {saved} + 24]",
        "mov rsi, qword ptr [rip + {saved} + 32]",
        "mov rdi, qword ptr [rip + {saved} + 40]",
        "mov rbp, qword ptr [rip + {saved} + 48]",
        "mov r8, qword ptr [rip + {saved} + 56]",
        "mov r9, qword ptr [rip + {saved} + 64]",
        "mov r10, qword ptr [rip + {saved} + 72]",
        "mov r11, qword ptr [rip + {saved} + 80]",
        "mov r12, qword ptr [rip + {saved} + 88]",
        "mov r13, qword ptr [rip + {saved} + 96]",
        "mov r14, qword ptr [rip + {saved} + 104]",
        "mov r15, qword ptr [rip + {saved} + 112]",
        "mov rsp, qword ptr [rip + {saved} + {sp}]",
        "jmp qword ptr [rip + {saved} + {pc}]",
        masks = sym MASKS,
        saved = sym SAVED,
        copy = sym COPY,
        extended = sym EXTENDED,
        child = const saved::CHILD * 8,
        flags = const saved::FLAGS * 8,
        sp = const saved::SP * 8,
        pc = const saved::PC * 8,
        before = sym before,
        forked = sym forked,
        in_place = sym in_place,
    )
}

extern "C" fn before() {
    reap();
}

/// The threads the tracer has written down, and how many it could not.
fn threads() -> (&'static [[u64; stopped::WORDS]], u64) {
    // SAFETY: nobody writes while a check runs (H1).
    let all: &'static [[u64; stopped::WORDS]] = unsafe { &*THREADS.0.get() };
    let end = all.iter().position(|thread| thread[stopped::TID] == 0);
    match end.and_then(|end| all.split_at_checked(end)) {
        Some((threads, end)) => (threads, end.first().map_or(0, |end| end[stopped::MISSED])),
        None => (all, 0),
    }
}

extern "C" fn in_place(_method: u64, trigger: u64) {
    let (threads, missed) = threads();
    check::mark(Method::Held, trigger_of(trigger), threads, missed);
}

/// The copy: it lets go of the program's files first, so that who waits for their end does
/// not wait for it.
extern "C" fn forked(trigger: u64) -> ! {
    check::let_go_of_files();
    let (threads, missed) = threads();
    check::mark(Method::Fork, trigger_of(trigger), threads, missed);
    loop {
        sys::exit_group(0);
    }
}

fn trigger_of(word: u64) -> Trigger {
    if word == Trigger::Exit as u64 {
        Trigger::Exit
    } else {
        Trigger::Request
    }
}
