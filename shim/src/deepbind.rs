//! `dlopen` with `RTLD_DEEPBIND`: one heap for libraries that look to libc first.
//!
//! Such a library finds libc's malloc family before ours, frees blocks of ours with libc's
//! `free`, and the process ends (PHP loads its extensions so). Before the first is loaded,
//! libc's own names for the family are made to mean ours: in the memory of this process,
//! where the loader looks names up. The flag stays, and all other names mean what they did. Where
//! that cannot be done, the flag is taken off.
//!
//! `dlopen` is ours only to see the flag. It goes on to the loader's as a jump, because that
//! looks at who called: for the caller's search path.
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::ffi::{CStr, c_int, c_void};

use pageshim_core::OS_PAGE_BYTES;
use pageshim_core::symbols::Symbols;
use pageshim_core::sync::Lock;

use pageshim_core::sys::{self, PROT_EXEC, PROT_READ, PROT_READ_WRITE, each_mapping};
use pageshim_core::unwind::find_module;

use crate::{boot, foreign};

/// What both libc and we define of the family.
const NAMES: [&CStr; 25] = [
    c"malloc",
    c"free",
    c"calloc",
    c"realloc",
    c"memalign",
    c"aligned_alloc",
    c"posix_memalign",
    c"valloc",
    c"pvalloc",
    c"cfree",
    c"malloc_usable_size",
    c"malloc_trim",
    c"malloc_stats",
    c"malloc_info",
    c"mallopt",
    c"mallinfo",
    c"mallinfo2",
    c"__libc_malloc",
    c"__libc_free",
    c"__libc_calloc",
    c"__libc_realloc",
    c"__libc_memalign",
    c"__libc_valloc",
    c"__libc_pvalloc",
    c"__posix_memalign",
];

/// Whether libc's names mean ours; `None` before anybody asked.
static DONE: Lock<Option<bool>> = Lock::new(None);

/// Takes the lock for the time of a fork.
pub(crate) fn hold() {
    DONE.hold();
}

/// Opens it again.
///
/// # Safety
/// No other thread of this process is inside it.
pub(crate) unsafe fn release() {
    // SAFETY: the caller's duty.
    unsafe { DONE.release() };
}

/// The loader's `dlopen`, and the mode to call it with.
#[repr(C)]
struct Way {
    next: *mut c_void,
    mode: c_int,
}

/// The loader's `dlopen`, with one heap for all.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn dlopen(file: *const u8, mode: c_int) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 16",
        ".cfi_adjust_cfa_offset 16",
        "mov edi, esi",
        "call {way}",
        "add rsp, 16",
        ".cfi_adjust_cfa_offset -16",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "mov esi, edx",
        "test rax, rax",
        "jz 2f",
        "jmp rax",
        "2: ret", // there is no loader to ask
        ".cfi_endproc",
        way = sym way,
    )
}

extern "C" fn way(mode: c_int) -> Way {
    // SAFETY: a C string; the symbol found is the loader's dlopen.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) };
    let alone = mode & libc::RTLD_DEEPBIND != 0 && !boot::is_shadowed() && !redirected();
    let mode = if alone {
        mode & !libc::RTLD_DEEPBIND
    } else {
        mode
    };
    Way { next, mode }
}

fn redirected() -> bool {
    foreign::resolve();
    let mut done = DONE.lock();
    *done.get_or_insert_with(|| redirect().is_some())
}

/// Makes libc's names mean ours. Only system calls and reads: the lock is held.
fn redirect() -> Option<()> {
    // SAFETY: we stay loaded, and so does libc.
    let symbols = |inside: *const ()| unsafe { Symbols::of(&find_module(inside.addr() as u64)?) };
    let ours = symbols(way as *const ())?;
    let theirs = symbols(libc::gnu_get_libc_version as *const ())?;
    let pairs = || {
        NAMES.iter().filter_map(|name| {
            let (ours_is, theirs_is) = (ours.find(name)?, theirs.find(name)?);
            // SAFETY: a symbol of ours.
            let address = ours.address(unsafe { ours_is.as_ref() });
            Some(theirs.redirection(theirs_is, address))
        })
    };
    let places = || pairs().map(|(word, _)| word.addr().get());
    let page = |at: usize| at & !(OS_PAGE_BYTES - 1);
    let (first, last) = (page(places().min()?), page(places().max()?));
    let bytes = last + OS_PAGE_BYTES - first;
    let rights = rights_of(first, bytes)?;
    // SAFETY: all of it is a private mapping of libc's file, which nobody else changes.
    unsafe { sys::protect(first, bytes, rights | PROT_READ_WRITE) }.ok()?;
    for (word, value) in pairs() {
        // SAFETY: a word of libc's symbol table, writable now; the loader reads it whole.
        unsafe { word.as_ptr().write_volatile(value) };
    }
    // SAFETY: as before.
    let _ = unsafe { sys::protect(first, bytes, rights) };
    Some(())
}

/// What may be done with a range that one mapping covers.
fn rights_of(first: usize, bytes: usize) -> Option<usize> {
    let mut rights = None;
    each_mapping(|mapping| {
        let covers = mapping.start <= first && first + bytes <= mapping.end;
        if covers && !mapping.shared && mapping.readable {
            rights = Some(match (mapping.writable, mapping.executable) {
                (false, false) => PROT_READ,
                (false, true) => PROT_READ | PROT_EXEC,
                (true, false) => PROT_READ_WRITE,
                (true, true) => PROT_READ_WRITE | PROT_EXEC,
            });
        }
        mapping.end <= first
    });
    rights
}
