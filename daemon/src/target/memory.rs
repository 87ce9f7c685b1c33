//! Another process's memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::directory::directory;

/// What reads a process's memory; tests have one over bytes.
pub trait Peek {
    /// Fills `into` from `address`; false when any of it is not readable.
    fn peek(&self, address: u64, into: &mut [u8]) -> bool;
}

/// The memory of a process as it was when this was opened: a later process with
/// the same id, or an exec, is never read.
#[derive(Debug)]
pub struct Memory {
    file: File,
}

impl Memory {
    /// Opens it. Fails with `PermissionDenied` where the kernel wants the process's
    /// consent (Yama) or it belongs to someone else.
    pub fn open(pid: u32) -> io::Result<Self> {
        let file = File::open(directory(pid).join("mem"))?;
        Ok(Self { file })
    }
}

impl Peek for Memory {
    fn peek(&self, address: u64, into: &mut [u8]) -> bool {
        self.file.read_exact_at(into, address).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: memory is read, and what is not there is refused. Method: our own, and page zero.
    #[test]
    fn memory_is_read() {
        let memory = Memory::open(std::process::id()).expect("our own");
        let bytes = *b"a block of memory";
        let mut copy = [0; 17];
        assert!(memory.peek((&raw const bytes).addr() as u64, &mut copy));
        assert_eq!(copy, bytes);
        assert!(!memory.peek(8, &mut copy));
        assert!(Memory::open(u32::MAX).is_err());
    }
}
