//! Calls about this process: clock, ids, limits, files in /proc.

use pageshim_wire::filters;

use super::{EFAULT, EINVAL, Errno, call, number};

/// CLOCK_MONOTONIC or another clock, in ns.
fn clock_ns(clock: usize) -> u64 {
    let mut time = [0u64; 2];
    let args = [clock, time.as_mut_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: `time` has the size of a timespec and lives through the call.
    if unsafe { call(number::CLOCK_GETTIME, args) }.is_err() {
        return 0;
    }
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

/// CLOCK_MONOTONIC, ns.
pub fn monotonic_ns() -> u64 {
    clock_ns(1)
}

/// CLOCK_REALTIME, ns since the epoch.
pub fn realtime_ns() -> u64 {
    clock_ns(0)
}

/// This process's id.
pub fn process_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { call(number::GETPID, [0; 6]) }.map_or(0, |id| u32::try_from(id).unwrap_or(0))
}

/// This thread's id.
pub fn thread_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { call(number::GETTID, [0; 6]) }.map_or(0, |id| u32::try_from(id).unwrap_or(0))
}

/// Copies this process's own memory; answers how much could be read from `address` on,
/// `None` when the kernel does not let us ask. Memory that vanishes meanwhile does no harm.
pub fn copy_own(address: u64, into: &mut [u8]) -> Option<usize> {
    // A filter may answer an unusual call with death.
    if has_filter() {
        return None;
    }
    let from = usize::try_from(address).ok()?;
    match super::copy_range(from, into.as_mut_ptr().expose_provenance(), into.len()) {
        Ok(copied) => Some(copied),
        Err(Errno(EFAULT)) => Some(0),
        Err(_) => None,
    }
}

/// Gives the processor to another thread.
pub fn yield_now() {
    // SAFETY: no arguments.
    let _ = unsafe { call(number::SCHED_YIELD, [0; 6]) };
}

/// A random number, or one made of clock and address when the kernel has none to give.
pub fn random() -> u64 {
    let mut word = 0u64;
    let address = core::ptr::from_mut(&mut word).addr();
    // SAFETY: eight bytes of `word` are written; flag 1 = never block.
    let got = unsafe { call(number::GETRANDOM, [address, 8, 1, 0, 0, 0]) };
    if got == Ok(8) && word != 0 {
        return word;
    }
    let seed = realtime_ns() ^ (u64::from(process_id()) << 32) ^ address as u64;
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// The soft limit of a resource (9 = address space, 1 = file size, 2 = data), `u64::MAX` when none.
pub fn soft_limit(resource: usize) -> u64 {
    let mut limits = [0u64; 2];
    let args = [resource, limits.as_mut_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: `limits` has the size of a struct rlimit.
    if unsafe { call(number::GETRLIMIT, args) }.is_err() {
        return u64::MAX;
    }
    limits[0]
}
/// RLIMIT_AS.
pub const LIMIT_ADDRESS_SPACE: usize = 9;
/// RLIMIT_FSIZE.
pub const LIMIT_FILE_BYTES: usize = 1;

/// Lets process `pid` trace this one, which where Yama is set to 1 is what it takes
/// to read its memory.
pub fn consent(pid: u32) {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    let args = [PR_SET_PTRACER, pid as usize, 0, 0, 0, 0];
    // SAFETY: sets a number in the kernel; where Yama is absent it is refused.
    let _ = unsafe { call(number::PRCTL, args) };
}

/// Opens a file for reading; `path` ends with NUL.
pub fn open_read(path: &[u8]) -> Result<i32, Errno> {
    const AT_FDCWD: usize = (-100isize).cast_unsigned();
    const CLOEXEC: usize = 0o2_000_000;
    if path.last() != Some(&0) {
        return Err(Errno(EINVAL));
    }
    let args = [AT_FDCWD, path.as_ptr().addr(), CLOEXEC, 0, 0, 0];
    // SAFETY: the path is NUL terminated and lives through the call.
    unsafe { call(number::OPENAT, args) }.map(fd_of)
}

/// Reads from a descriptor.
pub fn read(fd: i32, into: &mut [u8]) -> Result<usize, Errno> {
    let args = [arg(fd)?, into.as_mut_ptr().addr(), into.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most `into.len()` bytes.
    unsafe { call(number::READ, args) }
}

/// Reads from a descriptor at a position.
pub fn read_at(fd: i32, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let at = usize::try_from(offset).map_err(|_| Errno(EINVAL))?;
    let args = [arg(fd)?, into.as_mut_ptr().addr(), into.len(), at, 0, 0];
    // SAFETY: the kernel writes at most `into.len()` bytes.
    unsafe { call(number::PREAD, args) }
}

/// Writes to a descriptor.
pub fn write(fd: i32, from: &[u8]) -> Result<usize, Errno> {
    let args = [arg(fd)?, from.as_ptr().addr(), from.len(), 0, 0, 0];
    // SAFETY: the kernel reads at most `from.len()` bytes.
    unsafe { call(number::WRITE, args) }
}

/// Closes a descriptor.
pub fn close(fd: i32) {
    if let Ok(fd) = arg(fd) {
        // SAFETY: closing touches no memory.
        let _ = unsafe { call(number::CLOSE, [fd, 0, 0, 0, 0, 0]) };
    }
}

/// Reads a symbolic link; `path` ends with NUL.
pub fn read_link(path: &[u8], into: &mut [u8]) -> Result<usize, Errno> {
    if path.last() != Some(&0) {
        return Err(Errno(EINVAL));
    }
    let args = [
        path.as_ptr().addr(),
        into.as_mut_ptr().addr(),
        into.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the path is NUL terminated; the kernel writes at most `into.len()` bytes.
    unsafe { call(number::READLINK, args) }
}

pub(super) fn fd_of(answer: usize) -> i32 {
    i32::try_from(answer).unwrap_or(-1)
}

pub(super) fn arg(fd: i32) -> Result<usize, Errno> {
    usize::try_from(fd).map_err(|_| Errno(EINVAL))
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    fn getauxval(kind: u64) -> u64;
}

/// The page size this kernel runs with, from the auxiliary vector.
pub fn os_page_bytes() -> usize {
    const PAGE_BYTES: u64 = 6;
    // SAFETY: reads what the kernel left on the stack at start; no allocation.
    let bytes = unsafe { getauxval(PAGE_BYTES) };
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| bytes.is_power_of_two())
        .unwrap_or(crate::OS_PAGE_BYTES)
}

fn vdso_clock_ns(clock: i32) -> u64 {
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: `time` is a timespec. libc's wrapper reads the vdso: no system call, no allocation.
    let _ = unsafe { clock_gettime(clock, &raw mut time) };
    let (seconds, rest) = (
        time.seconds.cast_unsigned(),
        time.nanoseconds.cast_unsigned(),
    );
    seconds.wrapping_mul(1_000_000_000).wrapping_add(rest)
}

/// CLOCK_MONOTONIC through the vdso, ns (about 20 ns).
pub fn fast_monotonic_ns() -> u64 {
    vdso_clock_ns(1)
}

/// CLOCK_MONOTONIC_COARSE through the vdso, ms (about 5 ns, 4 ms steps).
pub fn coarse_ms() -> u64 {
    vdso_clock_ns(6) / 1_000_000
}

/// Ends the process at once; answers only if the kernel refuses.
pub fn exit_group(status: i32) {
    let status = status.cast_unsigned() as usize;
    // SAFETY: nothing of the process is used afterwards.
    let _ = unsafe { call(number::EXIT_GROUP, [status, 0, 0, 0, 0, 0]) };
}

/// True when the page of an address is mapped (readable or not).
pub fn is_mapped(address: usize) -> bool {
    let mut seen = [0u8; 1];
    let page = address & !(crate::OS_PAGE_BYTES - 1);
    let args = [
        page,
        crate::OS_PAGE_BYTES,
        seen.as_mut_ptr().addr(),
        0,
        0,
        0,
    ];
    // SAFETY: one byte of `seen` is written.
    unsafe { call(number::MINCORE, args) }.is_ok()
}

/// Makes a copy of this process whose only thread is the caller's, and of whose end nobody is
/// told; 0 in the copy. It ends with the thread that made it.
///
/// # Safety
/// The copy takes no lock that another thread may hold, and ends by [`exit_group`].
pub unsafe fn copy_quietly() -> Result<u32, Errno> {
    const PR_SET_PDEATHSIG: usize = 1;
    const SIGKILL: usize = 9;
    // SAFETY: no shared memory and no new stack: both go on from here.
    let pid = unsafe { call(number::CLONE, [0; 6]) }?;
    if pid == 0 {
        // SAFETY: plain numbers.
        let _ = unsafe { call(number::PRCTL, [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0]) };
    }
    u32::try_from(pid).map_err(|_| Errno(EINVAL))
}

/// Ends a copy.
pub fn kill_copy(pid: u32) {
    const SIGKILL: usize = 9;
    // SAFETY: plain numbers.
    let _ = unsafe { call(number::KILL, [pid as usize, SIGKILL, 0, 0, 0, 0]) };
}

/// Reaps a child without an exit signal; false while it runs.
pub fn reap_clone(pid: u32) -> bool {
    const WNOHANG: usize = 1;
    const WCLONE: usize = 0x8000_0000;
    let args = [pid as usize, 0, WNOHANG | WCLONE, 0, 0, 0];
    // SAFETY: no pointer is passed.
    let reaped = unsafe { call(number::WAIT4, args) };
    !matches!(reaped, Ok(0))
}

/// Closes every descriptor, in a process that goes on without any.
pub fn close_all() {
    // SAFETY: nobody uses one any more.
    let _ = unsafe { call(number::CLOSE_RANGE, [0, u32::MAX as usize, 0, 0, 0, 0]) };
}

/// Says of each page of a mapped range whether the page cache or the process holds it; false
/// when the kernel does not tell.
pub fn in_core(address: usize, bytes: usize, into: &mut [u8]) -> bool {
    if into.len() < bytes.div_ceil(crate::OS_PAGE_BYTES) {
        return false;
    }
    let args = [address, bytes, into.as_mut_ptr().addr(), 0, 0, 0];
    // SAFETY: a byte a page is written, and there is room for them.
    unsafe { call(number::MINCORE, args) }.is_ok()
}

/// True in a process under a filter of system calls. One in strict mode does not come back,
/// but it could not have made the calls that brought it here either.
pub fn has_filter() -> bool {
    const PR_GET_SECCOMP: usize = 21;
    // SAFETY: reads a number from the kernel.
    let mode = unsafe { call(number::PRCTL, [PR_GET_SECCOMP, 0, 0, 0, 0, 0]) };
    mode != Ok(0)
}

/// Filters of system calls this thread is under; `None` when the kernel does not count them.
pub fn filter_count() -> Option<u64> {
    let mut text = [0; 4096];
    let Ok(fd) = super::open_read(b"/proc/thread-self/status\0") else {
        // No descriptor is left, or there is no /proc here: whether there is any is told anyway.
        return (!has_filter()).then_some(0);
    };
    let mut length = 0;
    while let Some(room) = text.get_mut(length..)
        && let Ok(more @ 1..) = super::read(fd, room)
    {
        length += more;
    }
    super::close(fd);
    filters::count(text.get(..length)?)
}

/// Threads of this process; `None` when the kernel does not tell.
pub fn thread_count() -> Option<usize> {
    const AT_FDCWD: usize = (-100isize).cast_unsigned();
    let mut stat = [0u64; 18];
    let path = b"/proc/self/task\0";
    let args = [
        AT_FDCWD,
        path.as_ptr().addr(),
        stat.as_mut_ptr().addr(),
        0,
        0,
        0,
    ];
    // SAFETY: the path is NUL terminated, and struct stat has 144 bytes.
    unsafe { call(number::NEWFSTATAT, args) }.ok()?;
    // A directory's links: itself, its entry above, and each directory in it.
    usize::try_from(stat[2]).ok()?.checked_sub(2)
}

/// Where the loader is mapped, from the auxiliary vector.
pub fn loader_base() -> u64 {
    const BASE: u64 = 7;
    // SAFETY: reads what the kernel left on the stack at start.
    unsafe { getauxval(BASE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the two ways to ask agree. Method: this process, whatever it is under.
    #[test]
    fn filters_are_seen_both_ways() {
        assert!(filter_count().is_none_or(|count| (count > 0) == has_filter()));
    }
}
