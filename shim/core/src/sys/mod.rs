//! The only code that talks to the kernel: raw system calls, no errno, no libc.
//!
//! libc's wrappers are avoided because the host may have replaced them, because
//! they write `errno`, and because some of them allocate.
//!
//! # Failure
//! Every call answers `Err(Errno)`; nothing is retried here.
#![allow(unsafe_code)]

use core::arch::asm;

mod files;
mod maps;
mod net;
mod process;
mod threads;

pub use files::Spare;
pub use maps::{Mapping, each_mapping, mapped_file};
pub use net::*;
pub use process::*;
pub use threads::*;

/// A kernel error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Out of memory, or out of mappings.
pub const ENOMEM: i32 = 12;
/// Bad address.
pub const EFAULT: i32 = 14;
/// Invalid argument.
pub const EINVAL: i32 = 22;
/// Try again (a non-blocking call would block).
pub const EAGAIN: i32 = 11;
/// Interrupted.
pub const EINTR: i32 = 4;

/// No access.
pub const PROT_NONE: usize = 0;
/// Readable and writable.
pub const PROT_READ_WRITE: usize = 3;
/// Readable.
pub const PROT_READ: usize = 1;
/// Can be run.
pub const PROT_EXEC: usize = 4;

pub(crate) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const FSTAT: usize = 5;
    pub(crate) const POLL: usize = 7;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const MPROTECT: usize = 10;
    pub(crate) const MUNMAP: usize = 11;
    pub(crate) const SCHED_YIELD: usize = 24;
    pub(crate) const MREMAP: usize = 25;
    pub(crate) const MINCORE: usize = 27;
    pub(crate) const MADVISE: usize = 28;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const SOCKET: usize = 41;
    pub(crate) const CONNECT: usize = 42;
    pub(crate) const RECVFROM: usize = 45;
    pub(crate) const SENDMSG: usize = 46;
    pub(crate) const GETSOCKOPT: usize = 55;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const FTRUNCATE: usize = 77;
    pub(crate) const READLINK: usize = 89;
    pub(crate) const GETRLIMIT: usize = 97;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const SETRLIMIT: usize = 160;
    pub(crate) const GETTID: usize = 186;
    pub(crate) const FUTEX: usize = 202;
    pub(crate) const GETDENTS64: usize = 217;
    pub(crate) const TGKILL: usize = 234;
    pub(crate) const PROCESS_VM_READV: usize = 310;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const RT_TGSIGQUEUEINFO: usize = 297;
    pub(crate) const NEWFSTATAT: usize = 262;
    pub(crate) const GETRANDOM: usize = 318;
    pub(crate) const MEMFD_CREATE: usize = 319;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const PREAD: usize = 17;
    pub(crate) const CLOSE_RANGE: usize = 436;
}

/// One system call.
///
/// # Safety
/// The arguments must be what the kernel expects of `number`: pointers must be
/// valid for the call, and the call must not pull memory from under live Rust
/// references.
#[inline]
pub(crate) unsafe fn call(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    let answer: isize;
    // SAFETY: the syscall instruction clobbers rcx and r11 only; the rest is the caller's duty.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&answer) {
        return Err(Errno(i32::try_from(-answer).unwrap_or(EINVAL)));
    }
    Ok(answer.cast_unsigned())
}

const MAP_SHARED: usize = 1;
const MAP_PRIVATE: usize = 2;
const MAP_FIXED: usize = 0x10;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_NORESERVE: usize = 0x4000;
const NO_FD: usize = usize::MAX;

/// Maps fresh anonymous private memory; `fixed` replaces what is at `hint`.
///
/// # Safety
/// With `fixed`, nobody may use what the range held before.
pub unsafe fn map_anonymous(
    hint: usize,
    bytes: usize,
    protection: usize,
    fixed: bool,
) -> Result<usize, Errno> {
    let place = if fixed { MAP_FIXED } else { 0 };
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | place;
    // SAFETY: a new private mapping touches no Rust object unless fixed (caller's duty).
    unsafe { call(number::MMAP, [hint, bytes, protection, flags, NO_FD, 0]) }
}

/// Maps `bytes` of a file shared, readable and writable; at `place` when given,
/// which is replaced.
///
/// # Safety
/// The caller alone decides how the new memory is used; others may write to it.
/// Nobody needs what `place` held.
pub unsafe fn map_shared(
    fd: i32,
    offset: u64,
    bytes: usize,
    place: Option<usize>,
) -> Result<usize, Errno> {
    let offset = usize::try_from(offset).map_err(|_| Errno(EINVAL))?;
    let fd = usize::try_from(fd).map_err(|_| Errno(EINVAL))?;
    let flags = MAP_SHARED | MAP_NORESERVE | if place.is_some() { MAP_FIXED } else { 0 };
    let at = place.unwrap_or(0);
    // SAFETY: a mapping at an address of the kernel's choice, or the caller's.
    unsafe {
        call(
            number::MMAP,
            [at, bytes, PROT_READ_WRITE, flags, fd, offset],
        )
    }
}

/// `mmap` with arguments that are not ours.
///
/// # Safety
/// The program that gave them answers for what they do.
pub unsafe fn pass_mmap(args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's duty.
    unsafe { call(number::MMAP, args) }
}

/// `mremap` with arguments that are not ours.
///
/// # Safety
/// As [`pass_mmap`].
pub unsafe fn pass_mremap(args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's duty.
    unsafe { call(number::MREMAP, args) }
}

/// Unmaps a range.
///
/// # Safety
/// Nothing may use the range any more.
pub unsafe fn unmap(address: usize, bytes: usize) -> Result<(), Errno> {
    // SAFETY: caller's duty.
    unsafe { call(number::MUNMAP, [address, bytes, 0, 0, 0, 0]) }.map(|_| ())
}

/// Changes the protection of a range.
///
/// # Safety
/// The range is ours, and no live reference relies on the old protection.
pub unsafe fn protect(address: usize, bytes: usize, protection: usize) -> Result<(), Errno> {
    // SAFETY: caller's duty.
    unsafe { call(number::MPROTECT, [address, bytes, protection, 0, 0, 0]) }.map(|_| ())
}

/// Moves a mapping to `target` (which is replaced); content and identity move along.
///
/// # Safety
/// Nobody uses either range during the call, nor the old one after it.
pub unsafe fn move_mapping(
    address: usize,
    bytes: usize,
    new_bytes: usize,
    target: Option<usize>,
) -> Result<usize, Errno> {
    const MAYMOVE: usize = 1;
    const FIXED: usize = 2;
    let flags = MAYMOVE | if target.is_some() { FIXED } else { 0 };
    let args = [address, bytes, new_bytes, flags, target.unwrap_or(0), 0];
    // SAFETY: caller's duty.
    unsafe { call(number::MREMAP, args) }
}

/// Grows or shrinks a mapping where it is.
///
/// # Safety
/// Nobody uses what a smaller mapping loses.
pub unsafe fn resize_mapping(
    address: usize,
    bytes: usize,
    new_bytes: usize,
) -> Result<usize, Errno> {
    // SAFETY: caller's duty; flags 0 = the mapping stays where it is.
    unsafe { call(number::MREMAP, [address, bytes, new_bytes, 0, 0, 0]) }
}

/// Moves the content of a mapping to `target` (which is replaced); the old range
/// stays mapped and reads as zeros. Linux 5.7 or newer, one mapping only.
///
/// # Safety
/// Nobody uses either range during the call.
pub unsafe fn move_content(address: usize, bytes: usize, target: usize) -> Result<usize, Errno> {
    const MAYMOVE_FIXED_DONTUNMAP: usize = 1 | 2 | 4;
    let args = [address, bytes, bytes, MAYMOVE_FIXED_DONTUNMAP, target, 0];
    // SAFETY: caller's duty.
    unsafe { call(number::MREMAP, args) }
}

/// Advice on a range: 4 drops its content, 14 asks for huge pages, 16 keeps it
/// out of core dumps, 18 wipes it in a forked child.
///
/// # Safety
/// The caller owns the range and accepts that its content may be dropped.
pub unsafe fn advise(address: usize, bytes: usize, advice: usize) -> Result<(), Errno> {
    // SAFETY: caller's duty.
    unsafe { call(number::MADVISE, [address, bytes, advice, 0, 0, 0]) }.map(|_| ())
}
/// Drop the content now; the next touch reads zeros.
pub const DONTNEED: usize = 4;
/// Pages are asked for in no order: read none ahead.
pub const RANDOM: usize = 1;
/// Back with huge pages.
pub const HUGEPAGE: usize = 14;
/// Leave out of core dumps.
pub const DONTDUMP: usize = 16;
/// Punch a hole: the next touch reads zeros, for all who share the file.
pub const REMOVE: usize = 9;
/// Zero in a forked child.
pub const WIPEONFORK: usize = 18;
