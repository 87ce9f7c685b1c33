//! The program's own suppressions: what its `__lsan_default_suppressions` returns.
//!
//! Asked once, from our constructor, when LeakSanitizer would ask too; the text goes into the
//! section of checks, where the daemon reads it. The function is bound by the loader through a
//! weak reference: no dlsym, which leaves an error behind for the program where there is none.
//!
//! # Concurrency
//! The constructor runs before the program has threads; a forked child publishes before it
//! counts anew, under the lock of its own growing up.
#![allow(unsafe_code)]

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::ffi::c_char;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use pageshim_core::sys;
use pageshim_core::unwind::find_module;
use pageshim_wire::check::{CHECK_HEADER_BYTES, SUPPRESSIONS_AT, SUPPRESSIONS_MAX, word};

use crate::world::STATE;

const MAX: usize = SUPPRESSIONS_MAX as usize;
const HEADER: usize = CHECK_HEADER_BYTES as usize;
const _: () = assert!(SUPPRESSIONS_AT + SUPPRESSIONS_MAX <= CHECK_HEADER_BYTES);

struct Text(UnsafeCell<[u8; MAX]>);
// SAFETY: written by the constructor alone, before LEN says that there is something.
unsafe impl Sync for Text {}
static TEXT: Text = Text(UnsafeCell::new([0; MAX]));
static LEN: AtomicUsize = AtomicUsize::new(0);

// Where the function is, or 0; and a jump to it, for when it is there.
global_asm!(
    ".pushsection .text.pageshim_suppressions,\"ax\",@progbits",
    ".weak __lsan_default_suppressions",
    ".local pageshim_suppressions_at",
    ".type pageshim_suppressions_at, @function",
    "pageshim_suppressions_at:",
    ".cfi_startproc",
    "mov rax, qword ptr [rip + __lsan_default_suppressions@GOTPCREL]",
    "ret",
    ".cfi_endproc",
    ".size pageshim_suppressions_at, . - pageshim_suppressions_at",
    ".local pageshim_suppressions",
    ".type pageshim_suppressions, @function",
    "pageshim_suppressions:",
    ".cfi_startproc",
    "jmp qword ptr [rip + __lsan_default_suppressions@GOTPCREL]",
    ".cfi_endproc",
    ".size pageshim_suppressions, . - pageshim_suppressions",
    ".popsection",
);

unsafe extern "C" {
    fn pageshim_suppressions_at() -> usize;
    fn pageshim_suppressions() -> *const c_char;
}

/// Asks the program, and publishes what it says.
pub(crate) fn ask() {
    if !STATE.exists() {
        return;
    }
    // SAFETY: two instructions above.
    let at = unsafe { pageshim_suppressions_at() };
    if at == 0 || find_module(at as u64).is_none() {
        return;
    }
    // SAFETY: the loader bound this name to a loaded file's function; its type is LeakSanitizer's contract.
    let text = unsafe { pageshim_suppressions() }.cast::<u8>();
    if text.is_null() {
        return;
    }
    // SAFETY: nobody else is here yet, see Concurrency.
    let kept = unsafe { &mut *TEXT.0.get() };
    let mut len = 0;
    while len < MAX {
        // SAFETY: a C string: all bytes to its NUL can be read, and none was NUL before.
        let byte = unsafe { text.add(len).read() };
        if byte == 0 {
            break;
        }
        kept[len] = byte;
        len += 1;
    }
    if len == MAX {
        // A rule cut short would match more than was meant.
        len = kept.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    }
    LEN.store(len, Ordering::Release);
    publish();
}

/// Writes the text into the state there is now.
pub(crate) fn publish() {
    let len = LEN.load(Ordering::Acquire);
    let Some((fd, layout)) = STATE.fd().zip(STATE.layout()).filter(|_| len > 0) else {
        return;
    };
    // SAFETY: a new mapping; only this function uses it.
    let Ok(at) = (unsafe { sys::map_shared(fd, layout.check(), HEADER, None) }) else {
        return;
    };
    let section = ptr::with_exposed_provenance_mut::<u8>(at);
    // SAFETY: `SUPPRESSIONS_AT + len` and the word lie within HEADER (asserted above); TEXT does not change any more.
    unsafe {
        let from = TEXT.0.get().cast::<u8>();
        ptr::copy_nonoverlapping(from, section.add(SUPPRESSIONS_AT as usize), len);
        let word = section.cast::<u64>().add(word::SUPPRESSIONS_BYTES);
        word.write_volatile(len as u64);
        let _ = sys::unmap(at, HEADER);
    }
}
