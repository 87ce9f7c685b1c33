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

/// True for addresses no allocator hands out: this stack, or a loaded file.
fn is_never_a_block(address: usize, call: &Call) -> bool {
    const STACK_REACH: u64 = 8 << 20;
    let at = address as u64;
    let on_stack = at.abs_diff(call.regs.sp) < STACK_REACH && at >= call.regs.sp - 4096;
    on_stack || find_module(at).is_some() || !looks_like_a_chunk(address)
}

/// True when the word before `address` could be the size of a glibc chunk.
fn looks_like_a_chunk(address: usize) -> bool {
    const SMALLEST: usize = 32;
    let Some(size_at) = address.checked_sub(size_of::<usize>()) else {
        return false;
    };
    if !address.is_multiple_of(16) || !sys::is_mapped(size_at) {
        return false;
    }
    // SAFETY: mapped, and aligned; memory that no program can read is not what a
    // pointer that was ever written through points at.
    let size = unsafe { ptr::with_exposed_provenance::<usize>(size_at).read() } & !7;
    (SMALLEST..1 << 47).contains(&size) && size.is_multiple_of(16)
}

/// Frees a block of the next allocator, or reports what is none.
#[cold]
pub(crate) fn free(thread: &'static Thread, address: usize, call: &Call) {
    if is_never_a_block(address, call) {
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
    if find_module(address as u64).is_some() || !looks_like_a_chunk(address) {
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

/// Moves a foreign block into our heap.
#[cold]
pub(crate) fn reallocate(address: usize, requested: usize, call: &Call) -> *mut u8 {
    let held = usable(address);
    let taken = serve::allocate(requested, 16, call);
    if !taken.pointer.is_null() && held > 0 {
        let old = ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: both are live blocks of at least that many bytes.
        unsafe { ptr::copy_nonoverlapping(old, taken.pointer, held.min(requested)) };
        serve::free(address, call);
    }
    taken.pointer
}
