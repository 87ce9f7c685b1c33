//! The 20 C++ operators.
//!
//! `new` that fails is handed on to the C++ library's own `operator new`, which
//! calls malloc again, runs the program's new-handler and throws: the stub jumps
//! there with the caller's frame as it was, so that nothing of ours is unwound.
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::ffi::{CStr, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use pageshim_core::heap::gpa::classes::ALIGN;
use pageshim_wire::thread::Api;

use crate::exports::{call, fast_take, free, stub};
use crate::serve;

macro_rules! news {
    ($($name:literal $stub:ident $next:ident $symbol:literal $make:ident;)*) => {$(
        static $next: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            extern "C" fn make(
                requested: usize,
                align: usize,
                sp: *const u64,
                bp: u64,
            ) -> *mut u8 {
                let pointer = $make(requested, align, sp, bp);
                if pointer.is_null() {
                    resolve(&$next, $symbol);
                }
                pointer
            }
            naked_asm!(
                "push rdi",
                "push rsi",
                "sub rsp, 8",
                "lea rdx, [rsp + 24]",
                "mov rcx, rbp",
                "call {make}",
                "add rsp, 8",
                "pop rsi",
                "pop rdi",
                "test rax, rax",
                "jz 2f",
                "ret",
                "2:",
                "mov rax, qword ptr [rip + {next}]",
                "test rax, rax",
                "jz 3f",
                "jmp rax",
                "3:",
                "xor eax, eax",
                "ret",
                make = sym make,
                next = sym $next,
            )
        }
    )*};
}

news! {
    "_Znwm" new_one NEXT_ONE c"_Znwm" plain;
    "_Znam" new_array NEXT_ARRAY c"_Znam" plain;
    "_ZnwmRKSt9nothrow_t" new_one_nothrow NEXT_ONE_NOTHROW c"_ZnwmRKSt9nothrow_t" plain;
    "_ZnamRKSt9nothrow_t" new_array_nothrow NEXT_ARRAY_NOTHROW c"_ZnamRKSt9nothrow_t" plain;
    "_ZnwmSt11align_val_t" new_aligned NEXT_ALIGNED c"_ZnwmSt11align_val_t" aligned;
    "_ZnamSt11align_val_t" new_array_aligned NEXT_ARRAY_ALIGNED c"_ZnamSt11align_val_t" aligned;
    "_ZnwmSt11align_val_tRKSt9nothrow_t" new_aligned_nothrow NEXT_ALIGNED_NOTHROW
        c"_ZnwmSt11align_val_tRKSt9nothrow_t" aligned;
    "_ZnamSt11align_val_tRKSt9nothrow_t" new_array_aligned_nothrow NEXT_ARRAY_ALIGNED_NOTHROW
        c"_ZnamSt11align_val_tRKSt9nothrow_t" aligned;
}

// One register argument or more: the pointer is first, the rest is not needed.
macro_rules! deletes {
    ($($name:literal $stub:ident;)*) => { stub! { 1: $($name $stub => free;)* } };
}

deletes! {
    "_ZdlPv" delete_one;
    "_ZdaPv" delete_array;
    "_ZdlPvm" delete_one_sized;
    "_ZdaPvm" delete_array_sized;
    "_ZdlPvRKSt9nothrow_t" delete_one_nothrow;
    "_ZdaPvRKSt9nothrow_t" delete_array_nothrow;
    "_ZdlPvSt11align_val_t" delete_aligned;
    "_ZdaPvSt11align_val_t" delete_array_aligned;
    "_ZdlPvmSt11align_val_t" delete_sized_aligned;
    "_ZdaPvmSt11align_val_t" delete_array_sized_aligned;
    "_ZdlPvSt11align_val_tRKSt9nothrow_t" delete_aligned_nothrow;
    "_ZdaPvSt11align_val_tRKSt9nothrow_t" delete_array_aligned_nothrow;
}

fn plain(requested: usize, _second: usize, sp: *const u64, bp: u64) -> *mut u8 {
    match fast_take(requested) {
        Some(pointer) => pointer.as_ptr(),
        None => serve::allocate(requested, ALIGN, &call(Api::New, sp, bp)).pointer,
    }
}

fn aligned(requested: usize, align: usize, sp: *const u64, bp: u64) -> *mut u8 {
    if !align.is_power_of_two() {
        return ptr::null_mut();
    }
    serve::allocate(requested, align.max(ALIGN), &call(Api::New, sp, bp)).pointer
}

#[cold]
fn resolve(next: &AtomicPtr<c_void>, name: &CStr) {
    // SAFETY: a C string; asked from outside our own paths, after an allocation failed.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    next.store(found, Ordering::Release);
}
