//! A process's shared state, read and (two words) written through its descriptor.

use std::os::fd::OwnedFd;

use pageshim_wire::layout::Layout;
use pageshim_wire::process::{Control, word};
use pageshim_wire::{Memory, check};
use rustix::fs::{SealFlags, SeekFrom};

use super::Refusal;
use crate::books::view::View;

/// A sealed memfd whose layout was checked.
///
/// It is never mapped. Reads copy; what was copied is checked by the books.
#[derive(Debug)]
pub struct SharedState {
    fd: OwnedFd,
    inode: u64,
    layout: Layout,
}

impl SharedState {
    /// Checks seals, size and header of what a client sent.
    pub fn check(fd: OwnedFd) -> Result<Self, Refusal> {
        // Only memory files have seals; the call fails on anything else.
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| Refusal::Unsealed)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Refusal::Unsealed);
        }
        let facts = rustix::fs::fstat(&fd).map_err(|_| Refusal::Unsealed)?;
        let bytes = u64::try_from(facts.st_size).unwrap_or(0);
        let layout = Layout::of(&Descriptor(&fd), bytes)?;
        let inode = facts.st_ino;
        Ok(Self { fd, inode, layout })
    }

    /// What tells the file from any other of its name.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Where things lie.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A header word; 0 when it cannot be read.
    pub fn header(&self, index: usize) -> u64 {
        self.word(index as u64 * 8).unwrap_or(0)
    }

    /// Writes the clock. A state sealed against writing keeps its own time.
    pub fn set_tick(&self, tick: u64) {
        let offset = word::TICK as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &tick.to_le_bytes(), offset);
    }
}

impl SharedState {
    /// Asks the process for something; answers the word it writes to CONTROL_DONE
    /// when it has. It looks from its slow paths: an idle one answers late.
    pub fn ask(&self, what: Control) -> u64 {
        let number = (self.header(word::CONTROL) >> 32).wrapping_add(1);
        let asked = number << 32 | what as u64;
        let offset = word::CONTROL as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &asked.to_le_bytes(), offset);
        asked
    }

    /// A word of the last check's header.
    pub fn check_word(&self, index: usize) -> u64 {
        let offset = self.layout.check() + index as u64 * 8;
        self.word(offset).unwrap_or(0)
    }

    /// Says which options the next check is to go by, see [`check::option`].
    pub fn want(&self, options: u64) {
        let offset = self.layout.check() + check::word::WANTED as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &options.to_le_bytes(), offset);
    }

    /// Says whose chain of pointers the next check is to look for; 0 for none.
    pub fn ask_why(&self, wanted: u64) {
        let offset = self.layout.check() + check::word::ASKED as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &wanted.to_le_bytes(), offset);
    }

    /// Tells a process that waits for its last check what became of it, a word of [`check::turn`].
    pub fn set_turn(&self, turn: u64) {
        let offset = self.layout.check() + check::word::TURN as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &turn.to_le_bytes(), offset);
    }

    /// Notes how long a check kept the process waiting, which only its tracer knows.
    pub fn note_pause(&self, ns: u64) {
        let offset = self.layout.check() + check::word::PAUSE_NS as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &ns.to_le_bytes(), offset);
    }

    /// Notes why a check was made in no copy, which only who asked for one knows; a
    /// [`check::Reason`].
    pub fn note_reason(&self, reason: u64) {
        let offset = self.layout.check() + check::word::REASON as u64 * 8;
        let _ = rustix::io::pwrite(&self.fd, &reason.to_le_bytes(), offset);
    }
}

impl Memory for SharedState {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        Descriptor(&self.fd).read(offset, into)
    }
}

impl View for SharedState {
    fn data(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(from)) {
            Ok(start) => start.max(from),
            // ENXIO: nothing but hole up to the end.
            Err(rustix::io::Errno::NXIO) => return None,
            Err(_) => from,
        };
        if start >= to {
            return None;
        }
        let end = rustix::fs::seek(&self.fd, SeekFrom::Hole(start)).unwrap_or(to);
        Some((start, end.clamp(start + 1, to)))
    }
}

/// Reads by position; the file's own position is of no use to anyone.
struct Descriptor<'a>(&'a OwnedFd);

impl Memory for Descriptor<'_> {
    fn read(&self, mut offset: u64, mut into: &mut [u8]) -> bool {
        while !into.is_empty() {
            match rustix::io::pread(self.0, &mut *into, offset) {
                Ok(0) => return false,
                Ok(count) => {
                    offset += count as u64;
                    into = &mut into[count..];
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}
