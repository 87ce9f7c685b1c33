//! Pointers that are not ours: blocks of another allocator in the process.
//!
//! A library opened with RTLD_DEEPBIND binds libc's own malloc and may hand its
//! blocks to code that calls our free. Such pointers go to the next `free` in
//! line. A pointer into a stack or into a file's data was never a block.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use pageshim_core::sys;
use pageshim_core::unwind::find_module;
use pageshim_wire::process::Misuse;

use crate::misuse;
use crate::serve::{self, Call};
use crate::thread::Thread;

static NEXT_FREE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static NEXT_USABLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

fn next(cache: &AtomicPtr<c_void>, name: &CStr) -> Option<*mut c_void> {
    let mut found = cache.load(Ordering::Acquire);
    if found.is_null() {
        // SAFETY: a C string. dlsym may allocate; the thread is inside, so that is served.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        cache.store(found, Ordering::Release);
    }
    (!found.is_null()).then_some(found)
}

/// Finds the next allocator while its names still mean its own functions.
pub(crate) fn resolve() {
    next(&NEXT_FREE, c"free");
    next(&NEXT_USABLE, c"malloc_usable_size");
}

/// True for addresses no allocator hands out: this stack, or a loaded file.
fn is_never_a_block(address: usize, sp: u64) -> bool {
    const STACK_REACH: u64 = 8 << 20;
    let at = address as u64;
    let on_stack = at.abs_diff(sp) < STACK_REACH && at >= sp - 4096;
    on_stack || find_module(at).is_some() || !looks_like_a_chunk(address)
}

/// A word of memory that may not be there.
fn probe(at: usize) -> Option<usize> {
    const WORD: usize = size_of::<usize>();
    if !at.is_multiple_of(WORD) || !sys::is_mapped(at) {
        return None;
    }
    // Mapped is not readable: a block may begin right behind a page nobody may touch.
    let mut word = [0; WORD];
    match sys::copy_own(at as u64, &mut word) {
        Some(WORD) => Some(usize::from_ne_bytes(word)),
        Some(_) => None,
        // SAFETY: mapped, and aligned; under a filter of system calls there is no way to ask.
        None => Some(unsafe { ptr::with_exposed_provenance::<usize>(at).read() }),
    }
}

/// True when a glibc chunk in use could begin 16 bytes before `address`: its size is
/// one, and where it ends the next chunk says so, or it fills a mapping of its own.
fn looks_like_a_chunk(address: usize) -> bool {
    const SMALLEST: usize = 32;
    const IN_USE: usize = 1;
    const MAPPED: usize = 2;
    const FLAGS: usize = 7;
    let Some(chunk) = address.checked_sub(16).filter(|at| at.is_multiple_of(16)) else {
        return false;
    };
    let (Some(before), Some(word)) = (probe(chunk), probe(chunk + 8)) else {
        return false;
    };
    let size = word & !FLAGS;
    if !(SMALLEST..1 << 47).contains(&size) || !size.is_multiple_of(16) {
        return false;
    }
    let whole = |at: usize| at.is_multiple_of(pageshim_core::OS_PAGE_BYTES);
    if word & MAPPED != 0 {
        return whole(chunk.wrapping_sub(before)) && whole(size.wrapping_add(before));
    }
    probe(chunk + size + 8).is_some_and(|next| next & IN_USE != 0 && next & !FLAGS >= 16)
}

/// Frees a block of the next allocator, or reports what is none.
#[cold]
pub(crate) fn free(thread: &'static Thread, address: usize, call: &Call) {
    if is_never_a_block(address, call.regs.sp) {
        misuse::report(thread, Misuse::ForeignFree, address, 0, call);
        return;
    }
    if let Some(found) = next(&NEXT_FREE, c"free") {
        // SAFETY: the symbol is C's free; the pointer is the host's to free.
        unsafe {
            let free: unsafe extern "C" fn(*mut c_void) = mem::transmute(found);
            free(ptr::with_exposed_provenance_mut(address));
        }
    }
}

/// Usable bytes as the next allocator sees them; 0 when there is none to ask.
#[cold]
pub(crate) fn usable(address: usize) -> usize {
    let here = 0u8;
    if is_never_a_block(address, ptr::from_ref(&here).addr() as u64) {
        return 0;
    }
    match next(&NEXT_USABLE, c"malloc_usable_size") {
        // SAFETY: the symbol is C's malloc_usable_size; the pointer is the host's.
        Some(found) => unsafe {
            let usable: unsafe extern "C" fn(*mut c_void) -> usize = mem::transmute(found);
            usable(ptr::with_exposed_provenance_mut(address))
        },
        None => 0,
    }
}

/// Moves a foreign block into our heap; null, and a report, for what is no block.
#[cold]
pub(crate) fn reallocate(address: usize, requested: usize, call: &Call) -> *mut u8 {
    let held = usable(address);
    if held == 0 {
        serve::misused(Misuse::ForeignFree, address, call);
        return ptr::null_mut();
    }
    let taken = serve::allocate(requested, 16, call);
    if !taken.pointer.is_null() {
        let old = ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: both are live blocks of at least that many bytes.
        unsafe { ptr::copy_nonoverlapping(old, taken.pointer, held.min(requested)) };
        serve::free(address, call);
    }
    taken.pointer
}
