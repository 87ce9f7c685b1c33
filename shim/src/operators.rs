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
use pageshim_core::whole::Family;
use pageshim_wire::thread::Api;

use crate::exports::{New, call, claim, free_as};
use crate::plain::{naked_give, naked_take};
use crate::whole::{self, Claim};
use crate::{quick, serve};

// The body of an operator that has no fast path.
macro_rules! naked_plain {
    ([$($line:literal),* $(,)?] $($operand:tt)*) => { naked_asm!($($line,)* $($operand)*) };
}

macro_rules! news {
    ($($name:literal $stub:ident $next:ident $symbol:literal $make:ident $body:ident;)*) => {$(
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
            $body!([
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
                ]
                make = sym make,
                next = sym $next,
            )
        }
    )*};
}

news! {
    "_Znwm" new_one NEXT_ONE c"_Znwm" plain naked_take;
    "_Znam" new_array NEXT_ARRAY c"_Znam" plain_array naked_take;
    "_ZnwmRKSt9nothrow_t" new_one_nothrow NEXT_ONE_NOTHROW c"_ZnwmRKSt9nothrow_t" plain naked_take;
    "_ZnamRKSt9nothrow_t" new_array_nothrow NEXT_ARRAY_NOTHROW c"_ZnamRKSt9nothrow_t" plain_array naked_take;
    "_ZnwmSt11align_val_t" new_aligned NEXT_ALIGNED c"_ZnwmSt11align_val_t" aligned naked_plain;
    "_ZnamSt11align_val_t" new_array_aligned NEXT_ARRAY_ALIGNED c"_ZnamSt11align_val_t" aligned_array naked_plain;
    "_ZnwmSt11align_val_tRKSt9nothrow_t" new_aligned_nothrow NEXT_ALIGNED_NOTHROW
        c"_ZnwmSt11align_val_tRKSt9nothrow_t" aligned naked_plain;
    "_ZnamSt11align_val_tRKSt9nothrow_t" new_array_aligned_nothrow NEXT_ARRAY_ALIGNED_NOTHROW
        c"_ZnamSt11align_val_tRKSt9nothrow_t" aligned_array naked_plain;
}

// The pointer comes first; sp and bp take the next two registers, and what the
// caller says about size and alignment moves behind them. A stub of the second
// kind hands on one such word, of the third two.
macro_rules! deletes {
    ($($name:literal $stub:ident $moves:literal $family:ident $claim:ident;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            extern "C" fn delete(
                pointer: *mut u8,
                sp: *const u64,
                bp: u64,
                first: usize,
                second: usize,
            ) {
                free_as(pointer, sp, bp, $claim(Family::$family, first, second));
            }
            naked_give!([$moves, "mov rsi, rsp", "mov rdx, rbp", "jmp {slow}"] slow = sym delete)
        }
    )*};
}

deletes! {
    "_ZdlPv" delete_one "" New nothing;
    "_ZdaPv" delete_array "" NewArray nothing;
    "_ZdlPvm" delete_one_sized "mov rcx, rsi" New sized;
    "_ZdaPvm" delete_array_sized "mov rcx, rsi" NewArray sized;
    "_ZdlPvRKSt9nothrow_t" delete_one_nothrow "" New nothing;
    "_ZdaPvRKSt9nothrow_t" delete_array_nothrow "" NewArray nothing;
    "_ZdlPvSt11align_val_t" delete_aligned "mov rcx, rsi" New at_align;
    "_ZdaPvSt11align_val_t" delete_array_aligned "mov rcx, rsi" NewArray at_align;
    "_ZdlPvmSt11align_val_t" delete_sized_aligned "mov rcx, rsi; mov r8, rdx" New both;
    "_ZdaPvmSt11align_val_t" delete_array_sized_aligned "mov rcx, rsi; mov r8, rdx" NewArray both;
    "_ZdlPvSt11align_val_tRKSt9nothrow_t" delete_aligned_nothrow "mov rcx, rsi" New at_align;
    "_ZdaPvSt11align_val_tRKSt9nothrow_t" delete_array_aligned_nothrow "mov rcx, rsi" NewArray at_align;
}

#[inline(always)]
fn nothing(family: Family, _first: usize, _second: usize) -> Claim {
    claim(family, None, None)
}

#[inline(always)]
fn sized(family: Family, bytes: usize, _second: usize) -> Claim {
    claim(family, Some(bytes), None)
}

#[inline(always)]
fn at_align(family: Family, align: usize, _second: usize) -> Claim {
    claim(family, None, Some(align))
}

#[inline(always)]
fn both(family: Family, bytes: usize, align: usize) -> Claim {
    claim(family, Some(bytes), Some(align))
}

fn plain_array(requested: usize, second: usize, sp: *const u64, bp: u64) -> *mut u8 {
    as_array(plain(requested, second, sp, bp))
}

fn aligned_array(requested: usize, align: usize, sp: *const u64, bp: u64) -> *mut u8 {
    as_array(aligned(requested, align, sp, bp))
}

#[inline(always)]
fn as_array(pointer: *mut u8) -> *mut u8 {
    if whole::checks() {
        whole::mark_array(pointer.addr());
    }
    pointer
}

fn plain(requested: usize, _second: usize, sp: *const u64, bp: u64) -> *mut u8 {
    quick::take::<New>(requested, sp, bp)
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
