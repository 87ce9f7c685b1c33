//! Calls about this process's other threads: who they are, signals, waiting.

use core::ffi::{c_int, c_void};
use core::sync::atomic::AtomicU32;

use super::{EINVAL, Errno, call, close, number, open_read, process_id};

/// A signal's handler as the kernel calls it.
pub type Handler = extern "C" fn(c_int, *mut c_void, *mut c_void);
/// What it returns to, which ends the signal.
pub type Restorer = unsafe extern "C" fn();

#[repr(C)]
struct Action {
    handler: Handler,
    flags: u64,
    restorer: Restorer,
    mask: u64,
}

/// Has a signal handled, on the alternate stack of threads that have one, with all other
/// signals put off.
pub fn handle(signal: c_int, handler: Handler, restorer: Restorer) -> Result<(), Errno> {
    const INFO_RESTORER_ONSTACK_RESTART: u64 = 4 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000;
    let action = Action {
        handler,
        flags: INFO_RESTORER_ONSTACK_RESTART,
        restorer,
        mask: u64::MAX,
    };
    let signal = usize::try_from(signal).map_err(|_| Errno(EINVAL))?;
    let args = [signal, (&raw const action).addr(), 0, 8, 0, 0];
    // SAFETY: the action has the kernel's layout; handler and restorer are code of ours.
    unsafe { call(number::RT_SIGACTION, args) }.map(|_| ())
}

/// Address of a signal's handler; 0 for what the kernel does by itself.
pub fn handler_of(signal: c_int) -> Result<usize, Errno> {
    let mut action = [0usize; 4];
    let signal = usize::try_from(signal).map_err(|_| Errno(EINVAL))?;
    let args = [signal, 0, action.as_mut_ptr().addr(), 8, 0, 0];
    // SAFETY: the kernel writes an action of four words.
    unsafe { call(number::RT_SIGACTION, args) }.map(|_| action[0])
}

/// Sends a signal to a thread of this process; signal 0 asks whether it is there.
pub fn signal_thread(tid: u32, signal: c_int) -> Result<(), Errno> {
    let signal = usize::try_from(signal).map_err(|_| Errno(EINVAL))?;
    let args = [process_id() as usize, tid as usize, signal, 0, 0, 0];
    // SAFETY: plain numbers.
    unsafe { call(number::TGKILL, args) }.map(|_| ())
}

/// Has the kernel do with a signal what it does by itself.
pub fn handle_by_default(signal: c_int) {
    let action = [0usize; 4];
    let signal = usize::try_from(signal).unwrap_or(0);
    let args = [signal, action.as_ptr().addr(), 0, 8, 0, 0];
    // SAFETY: an action of zeros is the default one.
    let _ = unsafe { call(number::RT_SIGACTION, args) };
}

/// Lets a signal reach this thread.
pub fn unblock(signal: c_int) {
    const SIG_UNBLOCK: usize = 1;
    let mask = 1u64 << u32::try_from(signal - 1).unwrap_or(0).min(63);
    let args = [SIG_UNBLOCK, (&raw const mask).addr(), 0, 8, 0, 0];
    // SAFETY: the mask lives through the call.
    let _ = unsafe { call(number::RT_SIGPROCMASK, args) };
}

/// Sends this very thread a signal with the facts it came with before.
///
/// # Safety
/// `info` is a siginfo as the kernel hands it to a handler.
pub unsafe fn signal_self_again(signal: c_int, info: *const c_void) -> Result<(), Errno> {
    let (own, tid) = (process_id() as usize, super::thread_id());
    let number = usize::try_from(signal).map_err(|_| Errno(EINVAL))?;
    let args = [own, tid as usize, number, info.addr(), 0, 0];
    // SAFETY: the caller's duty; the kernel reads the siginfo.
    match unsafe { call(number::RT_TGSIGQUEUEINFO, args) } {
        Ok(_) => Ok(()),
        Err(_) => signal_thread(tid, signal),
    }
}

/// Waits, at most so long, while `word` is `value`; may end sooner.
pub fn wait_while(word: &AtomicU32, value: u32, ms: u64) {
    const WAIT_PRIVATE: usize = 128;
    let time = [ms / 1000, ms % 1000 * 1_000_000];
    let (at, time_at) = (word.as_ptr().addr(), time.as_ptr().addr());
    let args = [at, WAIT_PRIVATE, value as usize, time_at, 0, 0];
    // SAFETY: the word and the time live through the call.
    let _ = unsafe { call(number::FUTEX, args) };
}

/// Wakes all who wait on `word`.
pub fn wake_all(word: &AtomicU32) {
    const WAKE_PRIVATE: usize = 129;
    let args = [
        word.as_ptr().addr(),
        WAKE_PRIVATE,
        i32::MAX as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the word is only an address here.
    let _ = unsafe { call(number::FUTEX, args) };
}

/// Calls `each` with the id of every thread of this process; false when the kernel does not tell.
pub fn each_thread(mut each: impl FnMut(u32)) -> bool {
    each_number(b"/proc/self/task\0", |_, tid| each(tid))
}

/// Closes every descriptor by the plainest calls there are, in a process that goes on without any.
pub fn close_each() {
    const LOW: i32 = 1024;
    let all = || {
        each_number(b"/proc/self/fd\0", |own, fd| {
            if let Ok(fd) = i32::try_from(fd)
                && fd != own
            {
                close(fd);
            }
        })
    };
    // Who has no descriptor left cannot open the list of them.
    if !all() {
        (0..LOW).for_each(close);
        all();
    }
}

/// Calls `each` with the directory's descriptor and every name in it that is a number.
fn each_number(directory: &[u8], mut each: impl FnMut(i32, u32)) -> bool {
    let Ok(fd) = open_read(directory) else {
        return false;
    };
    let mut entries = [0u8; 2048];
    let mut whole = false;
    while let Some(count) = list(fd, &mut entries) {
        if count == 0 {
            whole = true;
            break;
        }
        let mut at = 0;
        while let Some(entry) = entries.get(at..count)
            && let Some(length @ 19..) = entry.get(16..18).map(length_of)
        {
            let name = entry.get(19..length).unwrap_or(&[]);
            let digits = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
            if let Some(number) = core::str::from_utf8(digits)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                each(fd, number);
            }
            at += length;
        }
    }
    close(fd);
    whole
}

fn length_of(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn list(fd: i32, into: &mut [u8]) -> Option<usize> {
    let args = [
        usize::try_from(fd).ok()?,
        into.as_mut_ptr().addr(),
        into.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes at most `into.len()` bytes.
    unsafe { call(number::GETDENTS64, args) }.ok()
}

/// Copies memory of this process that may vanish meanwhile; answers the bytes copied.
pub fn copy_range(from: usize, into: usize, bytes: usize) -> Result<usize, Errno> {
    let (local, remote) = ([into, bytes], [from, bytes]);
    let (local, remote) = (local.as_ptr().addr(), remote.as_ptr().addr());
    // By the thread: of a process whose first thread has ended the kernel finds no memory.
    let args = [super::thread_id() as usize, local, 1, remote, 1, 0];
    // SAFETY: the caller owns the place the bytes go to; a place that is gone is an error.
    unsafe { call(number::PROCESS_VM_READV, args) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    // Goal: all threads are listed, and only threads. Method: a few of our own.
    #[test]
    fn threads_are_listed() {
        let gate = std::sync::Barrier::new(41);
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    gate.wait();
                    gate.wait();
                });
            }
            gate.wait();
            let mut seen = Vec::new();
            assert!(each_thread(|tid| seen.push(tid)));
            assert!(seen.len() >= 41 && seen.contains(&crate::sys::thread_id()));
            assert!(
                seen.iter()
                    .all(|tid| signal_thread(*tid, 0).is_ok() || seen.len() > 41)
            );
            assert!(crate::sys::thread_count().is_some_and(|count| count >= 41));
            gate.wait();
        });
    }

    // Goal: memory that is gone is an error, other memory is copied. Method: both.
    #[test]
    fn own_memory_is_copied_with_care() {
        let (from, mut into) = ([1u64, 2, 3], [0u64; 3]);
        let at = into.as_mut_ptr().expose_provenance();
        assert_eq!(
            copy_range(from.as_ptr().expose_provenance(), at, 24),
            Ok(24)
        );
        assert_eq!(into, from);
        assert!(copy_range(4096, at, 24).is_err());
    }
}
