//! The C functions: a few lines each, glibc's edge semantics, no logic.
//!
//! # Design
//! Each export is a naked stub that hands its caller's stack and frame pointer
//! on, so that no frame of ours has to be unwound; the function behind it is
//! Rust. Stubs of malloc and free try the plain path first, see [`crate::plain`]. `errno` is set on failure and never touched otherwise (our system
//! calls are raw).
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

use pageshim_core::OS_PAGE_BYTES;
use pageshim_core::heap::gpa::Block;
use pageshim_core::heap::gpa::classes::{ALIGN, DIRECT_MAX, SLOT_MAX};
use pageshim_core::unwind::Regs;
use pageshim_core::whole::Family;
use pageshim_wire::thread::Api;

use crate::plain::{naked_give, naked_take};
use crate::serve::{self, Call};
use crate::whole::{self, Claim};
use crate::world::SPACES;
use crate::{foreign, quick, tls};

const EINVAL: c_int = 22;
const ENOMEM: c_int = 12;

/// The state of our caller: `sp` and `bp` as its call left them.
///
/// # Safety
/// `sp` is the stack pointer at the export's entry.
pub(crate) unsafe fn caller(sp: *const u64, bp: u64) -> Regs {
    Regs {
        // SAFETY: the return address is on top of the stack at a function's entry.
        pc: unsafe { sp.read() },
        sp: sp.addr() as u64 + 8,
        bp,
    }
}

pub(crate) fn call(api: Api, sp: *const u64, bp: u64) -> Call {
    Call {
        api,
        // SAFETY: the stubs pass their entry's stack pointer.
        regs: unsafe { caller(sp, bp) },
    }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = value };
}

pub(crate) fn or_enomem(pointer: *mut u8) -> *mut c_void {
    if pointer.is_null() {
        set_errno(ENOMEM);
    }
    pointer.cast()
}

// The stubs, by number of arguments: sp and bp become the next two.
macro_rules! stub {
    (take: $($name:literal $stub:ident => $target:path;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            naked_take!(["mov rsi, rsp", "mov rdx, rbp", "jmp {slow}"] slow = sym $target)
        }
    )*};
    (give: $($name:literal $stub:ident $moves:literal => $target:path;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            naked_give!([$moves, "jmp {slow}"] slow = sym $target)
        }
    )*};
    (1: $($name:literal $stub:ident => $target:path;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            naked_asm!("mov rsi, rsp", "mov rdx, rbp", "jmp {}", sym $target)
        }
    )*};
    (2: $($name:literal $stub:ident => $target:path;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            naked_asm!("mov rdx, rsp", "mov rcx, rbp", "jmp {}", sym $target)
        }
    )*};
    (3: $($name:literal $stub:ident => $target:path;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            naked_asm!("mov rcx, rsp", "mov r8, rbp", "jmp {}", sym $target)
        }
    )*};
}

stub! { take:
    "malloc" malloc_stub => malloc_recorded;
    "__libc_malloc" libc_malloc_stub => malloc_recorded;
}
stub! { give:
    "free" free_stub "mov rsi, rsp; mov rdx, rbp" => free_recorded;
    "__libc_free" libc_free_stub "mov rsi, rsp; mov rdx, rbp" => free_recorded;
    "cfree" cfree_stub "mov rsi, rsp; mov rdx, rbp" => free_recorded;
    "free_sized" free_sized_stub "mov rdx, rsp; mov rcx, rbp" => free_sized;
    "free_aligned_sized" free_aligned_sized_stub "mov rcx, rsp; mov r8, rbp" => free_aligned_sized;
}
stub! { 1:
    "valloc" valloc_stub => valloc;
    "__libc_valloc" libc_valloc_stub => valloc;
    "pvalloc" pvalloc_stub => pvalloc;
    "__libc_pvalloc" libc_pvalloc_stub => pvalloc;
}
stub! { 2:
    "calloc" calloc_stub => calloc;
    "__libc_calloc" libc_calloc_stub => calloc;
    "realloc" realloc_stub => realloc;
    "__libc_realloc" libc_realloc_stub => realloc;
    "aligned_alloc" aligned_alloc_stub => aligned_alloc;
    "memalign" memalign_stub => memalign;
    "__libc_memalign" libc_memalign_stub => memalign;
}
stub! { 3:
    "posix_memalign" posix_memalign_stub => posix_memalign;
    "__posix_memalign" libc_posix_memalign_stub => posix_memalign;
}

/// Tells the compiler that the branch it is called in is not the usual one.
#[cold]
#[inline(always)]
const fn unusual() {}

/// The plain fast path for calloc and realloc, see [`crate::plain`].
#[inline(always)]
fn fast_take(requested: usize) -> Option<NonNull<u8>> {
    let thread = tls::get()?;
    if requested > DIRECT_MAX {
        return None;
    }
    let block = if thread.gate() == 0 {
        thread.heap().take_fast(requested)?
    } else {
        // The plain path falls through: it is the one measured in mode off.
        unusual();
        thread.take_unsampled(requested)?
    };
    NonNull::new(block.pointer())
}

#[inline(never)]
extern "C" fn malloc_recorded(requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    quick::take::<Malloc>(requested, sp, bp).cast()
}

/// The ways to allocate that [`quick`] has an instance for, by what they are counted as.
struct Malloc;
struct Calloc;
struct Realloc;
pub(crate) struct New;

macro_rules! ways {
    ($($name:ident)*) => {$(
        impl quick::Way for $name {
            const API: Api = Api::$name;

            #[cold]
            #[inline(never)]
            extern "C" fn slow(requested: usize, sp: *const u64, bp: u64) -> *mut u8 {
                let call = call(Self::API, sp, bp);
                or_enomem(serve::allocate(requested, ALIGN, &call).pointer).cast()
            }
        }
    )*};
}

ways! { Malloc Calloc Realloc New }

#[inline(never)]
extern "C" fn free_recorded(pointer: *mut u8, sp: *const u64, bp: u64) {
    quick::give(pointer, sp, bp);
}

#[cold]
#[inline(never)]
pub(crate) extern "C" fn free_slow(pointer: *mut u8, sp: *const u64, bp: u64) {
    if whole::checks() {
        free_claimed(pointer, sp, bp, claim(Family::Malloc, None, None));
        return;
    }
    serve::free(pointer.expose_provenance(), &call(Api::Malloc, sp, bp));
}

/// Frees a block after its heap has heard what the caller says about it.
#[cold]
#[inline(never)]
fn free_claimed(pointer: *mut u8, sp: *const u64, bp: u64, claim: Claim) {
    let call = call(Api::Malloc, sp, bp);
    let address = pointer.expose_provenance();
    whole::check(address, &claim, &call);
    serve::free(address, &call);
}

pub(crate) fn claim(family: Family, bytes: Option<usize>, align: Option<usize>) -> Claim {
    Claim {
        family,
        bytes,
        align,
    }
}

/// `free`, when it is not plain, by a function that says more than the address.
#[inline(always)]
pub(crate) fn free_as(pointer: *mut u8, sp: *const u64, bp: u64, claim: Claim) {
    if whole::checks() {
        free_claimed(pointer, sp, bp, claim);
    } else {
        free_recorded(pointer, sp, bp);
    }
}

extern "C" fn free_sized(pointer: *mut u8, bytes: usize, sp: *const u64, bp: u64) {
    free_as(pointer, sp, bp, claim(Family::Malloc, Some(bytes), None));
}

extern "C" fn free_aligned_sized(
    pointer: *mut u8,
    align: usize,
    bytes: usize,
    sp: *const u64,
    bp: u64,
) {
    let claim = claim(Family::Malloc, Some(bytes), Some(align));
    free_as(pointer, sp, bp, claim);
}

extern "C" fn calloc(count: usize, bytes: usize, sp: *const u64, bp: u64) -> *mut c_void {
    let Some(requested) = count.checked_mul(bytes) else {
        return or_enomem(ptr::null_mut());
    };
    if let Some(pointer) = fast_take(requested) {
        // SAFETY: a fresh block of at least `requested` bytes.
        unsafe { pointer.write_bytes(0, requested) };
        return pointer.as_ptr().cast();
    }
    if requested <= SLOT_MAX {
        let pointer = quick::take::<Calloc>(requested, sp, bp);
        if !pointer.is_null() {
            // SAFETY: as above.
            unsafe { pointer.write_bytes(0, requested) };
        }
        return pointer.cast();
    }
    calloc_large(requested, sp, bp)
}

/// A block that may come from the kernel, and be zero already.
#[cold]
#[inline(never)]
fn calloc_large(requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    let taken = serve::allocate(requested, ALIGN, &call(Api::Calloc, sp, bp));
    if !taken.pointer.is_null() && !taken.zeroed {
        // SAFETY: a fresh block of at least `requested` bytes.
        unsafe { taken.pointer.write_bytes(0, requested) };
    }
    or_enomem(taken.pointer)
}

/// The plain path of a realloc: the block is one of this thread's heap, nothing is
/// recorded, and it fits where it is or a free slot waits. `None` when not plain.
#[inline(always)]
fn fast_resize(pointer: *mut u8, requested: usize) -> Option<NonNull<u8>> {
    let Some(block) = NonNull::new(pointer) else {
        return fast_take(requested);
    };
    let thread = tls::get().filter(|thread| thread.gate() == 0)?;
    let page = SPACES.first().page_of(pointer.addr())?;
    let usable = thread.heap().usable_fast(page, Block::at(block))?;
    if requested == 0 {
        return None;
    }
    if requested <= usable && requested >= usable / 2 {
        return Some(block);
    }
    let fresh = fast_take(requested)?;
    // SAFETY: two live blocks, each of at least the smaller of the sizes.
    unsafe { fresh.copy_from_nonoverlapping(block, requested.min(usable)) };
    thread.heap().give_own(page, Block::at(block));
    Some(fresh)
}

extern "C" fn realloc(pointer: *mut u8, requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    if let Some(plain) = fast_resize(pointer, requested) {
        return plain.as_ptr().cast();
    }
    let address = pointer.expose_provenance();
    if address == 0 {
        return quick::take::<Realloc>(requested, sp, bp).cast();
    }
    let call = call(Api::Realloc, sp, bp);
    if requested == 0 {
        serve::free(address, &call);
        return ptr::null_mut();
    }
    or_enomem(serve::reallocate(address, requested, &call))
}

fn aligned(align: usize, requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    let align = align.max(ALIGN);
    or_enomem(serve::allocate(requested, align, &call(Api::Aligned, sp, bp)).pointer)
}

extern "C" fn aligned_alloc(
    align: usize,
    requested: usize,
    sp: *const u64,
    bp: u64,
) -> *mut c_void {
    if !align.is_power_of_two() {
        set_errno(EINVAL);
        return ptr::null_mut();
    }
    aligned(align, requested, sp, bp)
}

extern "C" fn memalign(align: usize, requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(align, requested, sp, bp),
        None => {
            set_errno(EINVAL);
            ptr::null_mut()
        }
    }
}

extern "C" fn posix_memalign(
    into: *mut *mut c_void,
    align: usize,
    requested: usize,
    sp: *const u64,
    bp: u64,
) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return EINVAL;
    }
    let call = call(Api::Aligned, sp, bp);
    let taken = serve::allocate(requested, align.max(ALIGN), &call);
    if taken.pointer.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller passed a place for a pointer.
    unsafe { into.write(taken.pointer.cast()) };
    0
}

extern "C" fn valloc(requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    aligned(OS_PAGE_BYTES, requested, sp, bp)
}

extern "C" fn pvalloc(requested: usize, sp: *const u64, bp: u64) -> *mut c_void {
    match requested.max(1).checked_next_multiple_of(OS_PAGE_BYTES) {
        Some(rounded) => aligned(OS_PAGE_BYTES, rounded, sp, bp),
        None => or_enomem(ptr::null_mut()),
    }
}

/// Bytes usable in a block; 0 for NULL.
#[unsafe(no_mangle)]
extern "C" fn malloc_usable_size(pointer: *mut u8) -> usize {
    let address = pointer.addr();
    if address == 0 {
        return 0;
    }
    serve::usable(address).unwrap_or_else(|| foreign::usable(address))
}
