//! Descriptors, in a process that has none left.
#![allow(unsafe_code)]

use super::{Errno, call, close, number, open_read};

/// RLIMIT_NOFILE.
const LIMIT_FILES: usize = 7;
/// Descriptors a check has open at a time, and some.
const SPARE: u64 = 8;
/// Too many open files, of this process.
const EMFILE: i32 = 24;

/// While it lives a few more descriptors can be opened than the program's soft limit says, where
/// none is left and the hard limit has room. Nobody else may change limits meanwhile.
#[derive(Debug)]
pub struct Spare(Option<[u64; 2]>);

impl Spare {
    /// Raises the limit if that is what it takes to open `path`, which ends with NUL.
    pub fn to_open(path: &[u8]) -> Self {
        match open_read(path) {
            Ok(fd) => close(fd),
            Err(Errno(EMFILE)) => return Self(raise()),
            Err(_) => {}
        }
        Self(None)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(limits) = self.0 {
            set(limits);
        }
    }
}

/// Raises the soft limit; answers what the limits were.
fn raise() -> Option<[u64; 2]> {
    let mut limits = [0u64; 2];
    let args = [LIMIT_FILES, limits.as_mut_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: `limits` has the size of a struct rlimit.
    unsafe { call(number::GETRLIMIT, args) }.ok()?;
    let [soft, hard] = limits;
    let more = hard.min(soft.saturating_add(SPARE));
    (more > soft && set([more, hard])).then_some(limits)
}

fn set(limits: [u64; 2]) -> bool {
    let args = [LIMIT_FILES, limits.as_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: the kernel reads a struct rlimit, which lives through the call.
    unsafe { call(number::SETRLIMIT, args) }.is_ok()
}
