//! What pageshim's shim and daemon agree on: the layout of a process's shared
//! state, and the frames that travel over the Unix socket.
//!
//! Nothing here allocates or touches the operating system, so that the shim can
//! use it inside `malloc`. The daemon treats every byte it decodes with this
//! crate as hostile: every decoder checks before it answers.
//!
//! # Design
//! *State is shared, events are streamed.* One memfd per process, described by
//! [`layout`], holds everything that must survive a kill: counters, sites, the
//! stack log, modules, threads. [`frame`] describes what is streamed beside it.
//! A reader needs nothing but the memfd to report on a process.
#![no_std]
#![forbid(unsafe_code)]

pub mod calls;
pub mod check;
pub mod filters;
pub mod frame;
pub mod heap;
pub mod layout;
pub mod process;
pub mod sampled;
pub mod stack;
pub mod thread;

/// Version of the shared state and of the frames. Both sides must match.
pub const VERSION: u32 = 1;

/// A reader's view of shared state: a memfd, a capture, or bytes in a test.
///
/// Reads past the end answer `false` and leave `into` unspecified. A hole in a
/// sparse file reads as zeros.
pub trait Memory {
    /// Copies `into.len()` bytes from `offset`; false when they are not there.
    fn read(&self, offset: u64, into: &mut [u8]) -> bool;

    /// One 64-bit word at a byte offset, or `None` when it is not there.
    fn word(&self, offset: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }
}

impl Memory for [u8] {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let Ok(start) = usize::try_from(offset) else {
            return false;
        };
        let Some(end) = start.checked_add(into.len()) else {
            return false;
        };
        let Some(from) = self.get(start..end) else {
            return false;
        };
        into.copy_from_slice(from);
        true
    }
}

/// Reads the little-endian word at `index` (in words, not bytes) of `bytes`;
/// zero past the end.
pub fn word_at(bytes: &[u8], index: usize) -> u64 {
    let start = index.saturating_mul(8);
    match bytes.get(start..start.saturating_add(8)) {
        Some(slice) => u64::from_le_bytes(slice.try_into().unwrap_or([0; 8])),
        None => 0,
    }
}
