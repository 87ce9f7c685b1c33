//! Other threads, held by a signal while the process's heap is marked at its end.
//!
//! # Design
//! Each thread's handler writes the registers it was interrupted with into the thread's slot
//! and waits for [`WORD`] to change. The handler stays installed: a thread that had the signal
//! blocked may get it late, and then finds nothing to wait for.
//!
//! # Failure
//! A thread that does not come within [`PATIENCE_NS`] is counted as missed. Where the program
//! handles the signal itself, nothing is held.
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use pageshim_core::leaks::Table;
use pageshim_core::leaks::roots::{RED_ZONE, Still};
use pageshim_core::sys;

use crate::tls;

/// Threads there is room for.
const SLOTS: usize = 4096;
/// Words of a slot: tid, state, lowest address of the stack, 15 registers, control block.
const WORDS: usize = 19;
const CONTROL: usize = 18;
/// Where in a ucontext rax, rbx, rcx, rdx, rsi, rdi, rbp and r8 to r15 are.
const REGISTERS: [usize; 15] = [13, 11, 14, 12, 9, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
const STANDS: usize = 1;
/// How long threads may take to stand still.
const PATIENCE_NS: u64 = 300_000_000;
/// A thread goes on by itself after this.
const HOLD_MS: u64 = 12_000;
/// Looks for threads that have begun meanwhile.
const ROUNDS: usize = 8;

/// What held threads wait on: odd while they are to stand still, and never the same again, so
/// that one that wakes late does not take the next hold for its own.
static WORD: AtomicU32 = AtomicU32::new(0);
static TABLE: AtomicPtr<AtomicUsize> = AtomicPtr::new(ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The other threads of this process, as far as they stand still. They go on when it is dropped.
pub(crate) struct Held {
    /// Threads that stand still.
    pub(crate) stands: usize,
    /// Threads that do not.
    pub(crate) missed: usize,
    /// The slots' memory.
    pub(crate) range: (usize, usize),
}

fn word(slot: usize, index: usize) -> Option<&'static AtomicUsize> {
    let table = TABLE.load(Ordering::Acquire);
    if table.is_null() || slot >= SLOTS {
        return None;
    }
    // SAFETY: hold() mapped so many words and never unmaps them.
    Some(unsafe { &*table.add(slot * WORDS + index) })
}

fn read(slot: usize, index: usize) -> usize {
    word(slot, index).map_or(0, |word| word.load(Ordering::Acquire))
}

/// Holds all threads but the calling one. `None` without memory, or where the kernel refuses.
pub(crate) fn hold(signal: c_int) -> Option<Held> {
    let handler = sys::handler_of(signal).ok()?;
    if handler != 0 && handler != (stand as *const ()).addr() {
        return None;
    }
    let range = clear()?;
    sys::handle(signal, stand, restore).ok()?;
    WORD.store(WORD.load(Ordering::Relaxed) | 1, Ordering::SeqCst);
    let end = sys::fast_monotonic_ns() + PATIENCE_NS;
    let own = sys::thread_id();
    for _ in 0..ROUNDS {
        let before = COUNT.load(Ordering::Relaxed);
        let listed = sys::each_thread(|tid| {
            if tid != own {
                call(tid, signal);
            }
        });
        if !listed {
            break;
        }
        wait(end);
        if COUNT.load(Ordering::Relaxed) == before {
            break;
        }
    }
    let mut held = Held {
        stands: 0,
        missed: 0,
        range,
    };
    for slot in 0..COUNT.load(Ordering::Relaxed).min(SLOTS) {
        if read(slot, 1) == STANDS {
            held.stands += 1;
        } else if is_there(slot) {
            held.missed += 1;
        }
    }
    held.missed += COUNT.load(Ordering::Relaxed).saturating_sub(SLOTS);
    Some(held)
}

/// Empties the table, mapped at first for good: a late handler may still look.
fn clear() -> Option<(usize, usize)> {
    if TABLE.load(Ordering::Acquire).is_null() {
        let table = Table::<usize>::new(SLOTS * WORDS)?;
        TABLE.store(table.first().cast(), Ordering::Release);
        core::mem::forget(table);
    }
    for slot in 0..COUNT.swap(0, Ordering::SeqCst).min(SLOTS) {
        for index in 0..2 {
            if let Some(word) = word(slot, index) {
                word.store(0, Ordering::Release);
            }
        }
    }
    let at = TABLE.load(Ordering::Acquire).addr();
    Some((at, at + SLOTS * WORDS * size_of::<usize>()))
}

fn is_there(slot: usize) -> bool {
    let tid = u32::try_from(read(slot, 0)).unwrap_or(0);
    sys::signal_thread(tid, 0).is_ok()
}

/// Gives a thread a slot and the signal, if it has none yet.
fn call(tid: u32, signal: c_int) {
    let count = COUNT.load(Ordering::Relaxed);
    if (0..count.min(SLOTS)).any(|slot| read(slot, 0) == tid as usize) {
        return;
    }
    if let Some(word) = word(count, 0) {
        word.store(tid as usize, Ordering::Release);
    }
    // The slot is known before its thread looks for it.
    COUNT.store(count + 1, Ordering::SeqCst);
    if count < SLOTS {
        let _ = sys::signal_thread(tid, signal);
    }
}

/// Waits until each thread stands still, or is gone, or time is over.
fn wait(end: u64) {
    for slot in 0..COUNT.load(Ordering::Relaxed).min(SLOTS) {
        while read(slot, 1) != STANDS && is_there(slot) {
            if sys::fast_monotonic_ns() > end {
                return;
            }
            sys::yield_now();
        }
    }
}

impl Held {
    /// Writes the threads that stand still, as far as there is room; how many.
    pub(crate) fn copy_to(&self, room: &mut [Still]) -> usize {
        let mut count = 0;
        self.each(|still| {
            if let Some(place) = room.get_mut(count) {
                *place = still;
                count += 1;
            }
        });
        count
    }

    /// The threads that stand still.
    fn each(&self, mut each: impl FnMut(Still)) {
        for slot in 0..COUNT.load(Ordering::Relaxed).min(SLOTS) {
            if read(slot, 1) == STANDS {
                each(Still {
                    low: read(slot, 2),
                    registers: core::array::from_fn(|index| read(slot, 3 + index)),
                    tid: u32::try_from(read(slot, 0)).unwrap_or(0),
                    control: read(slot, CONTROL),
                });
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        WORD.store(
            WORD.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::SeqCst,
        );
        sys::wake_all(&WORD);
    }
}

/// The calling thread, as its handler's context tells of it.
///
/// # Safety
/// The context is the one the kernel made for a handler.
pub(super) unsafe fn interrupted(context: *const c_void) -> Still {
    // In a ucontext: flags, link, the signal stack (three words), then the general registers,
    // of which the stack pointer is the sixteenth.
    let registers = context.cast::<usize>().wrapping_add(5);
    // SAFETY: the kernel's own frame, which has all of them.
    let register = |index: usize| unsafe { registers.add(index).read() };
    Still {
        low: register(15).wrapping_sub(RED_ZONE),
        registers: REGISTERS.map(register),
        tid: sys::thread_id(),
        control: tls::control_block(),
    }
}

/// The signal's handler.
extern "C" fn stand(_signal: c_int, _info: *mut c_void, context: *mut c_void) {
    let hold = WORD.load(Ordering::SeqCst);
    if hold & 1 == 0 {
        return;
    }
    let tid = sys::thread_id() as usize;
    let count = COUNT.load(Ordering::SeqCst).min(SLOTS);
    let Some(slot) = (0..count).find(|slot| read(*slot, 0) == tid) else {
        return;
    };
    // SAFETY: the kernel's own frame.
    let still = unsafe { interrupted(context) };
    let words = [still.low].into_iter().chain(still.registers);
    for (index, value) in words.chain([still.control]).enumerate() {
        if let Some(word) = word(slot, 2 + index) {
            word.store(value, Ordering::Relaxed);
        }
    }
    if let Some(state) = word(slot, 1) {
        state.store(STANDS, Ordering::Release);
    }
    let began = sys::coarse_ms();
    while WORD.load(Ordering::SeqCst) == hold && sys::coarse_ms() - began < HOLD_MS {
        sys::wait_while(&WORD, hold, 1000);
    }
}

/// What a handler returns to.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn restore() {
    naked_asm!("mov eax, 15", "syscall")
}
