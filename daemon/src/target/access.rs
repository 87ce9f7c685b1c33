//! The way into a process: its memory and page table, opened once its books make
//! sense, and the records of a run.

use std::io::{self, ErrorKind};

use pageshim_wire::heap::SLICE_SHIFT;
use thiserror::Error;

use super::memory::{Memory, Peek};
use super::pagemap::Pagemap;
use super::snapshot::{Place, Run, Use};

/// Largest heap a process may claim: twice what the shim reserves.
const COMMITTED_MAX: u64 = 1 << 40;

/// Why a heap cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Trouble {
    /// It is not there any more.
    #[error("the process is gone")]
    Gone,
    /// The kernel says no.
    #[error(
        "the kernel does not let the daemon read the process (kernel.yama.ptrace_scope, or another user); run the daemon as the same user with ptrace_scope 0 or 1, or as root"
    )]
    Refused,
    /// Nothing to read.
    #[error("its heap keeps no page structs; only those of PAGESHIM_HEAP=gpa can be looked into")]
    NoBooks,
    /// Its header says what cannot be.
    #[error("its shared state makes no sense")]
    Nonsense,
    /// Too large.
    #[error("reading it took longer than 30 s")]
    TooLong,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::Refused,
            _ => Self::Gone,
        }
    }
}

/// A process whose heap can be read.
#[derive(Debug)]
pub struct Access {
    /// Its memory.
    pub memory: Memory,
    /// Its page table.
    pub pages: Pagemap,
}

impl Access {
    /// Opens process `pid`, whose books are said to lie at `place`.
    pub fn open(pid: u32, place: &Place, page_bytes: u64) -> Result<Self, Trouble> {
        check(place)?;
        Ok(Self {
            memory: Memory::open(pid)?,
            pages: Pagemap::open(pid, page_bytes)?,
        })
    }
}

fn check(place: &Place) -> Result<(), Trouble> {
    if place.structs == 0 {
        return Err(Trouble::NoBooks);
    }
    let sound = place.structs < place.base
        && place.committed <= COMMITTED_MAX
        && place.base.checked_add(place.reserved).is_some();
    sound.then_some(()).ok_or(Trouble::Nonsense)
}

/// Bytes of whole slices in use, from the first.
pub fn committed(place: &Place) -> u64 {
    place.committed.min(place.reserved) >> SLICE_SHIFT << SLICE_SHIFT
}

/// The records of one run at a time.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    words: Vec<u64>,
}

impl Records {
    /// Reads the records of a run of slots; false when they are not where it says.
    pub fn read(&mut self, memory: &impl Peek, place: &Place, run: &Run) -> bool {
        self.words.clear();
        let Use::Slots { carved, .. } = run.used else {
            return true;
        };
        if run.records == 0 || carved == 0 {
            return true;
        }
        self.bytes.resize(carved as usize * 8, 0);
        let books = place.structs..place.base;
        let read = books.contains(&run.records) && memory.peek(run.records, &mut self.bytes);
        if read {
            let all = self.bytes.chunks_exact(8);
            let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            self.words.extend(all.map(word));
        }
        read
    }

    /// Those read last, one a carved slot; none for runs without.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        base: 0x10_0000,
        reserved: 1 << 30,
        committed: 5 << 15,
        structs: 0x1000,
        records: 0x2000,
        single: 40,
    };

    // Goal: places that cannot be are refused before anything is opened. Method: one wrong word each.
    #[test]
    fn places_are_checked() {
        let refused = |place: Place| Access::open(std::process::id(), &place, 4096).err();
        assert_eq!(refused(PLACE), None);
        let structs = |structs| Place { structs, ..PLACE };
        assert_eq!(refused(structs(0)), Some(Trouble::NoBooks));
        assert_eq!(refused(structs(PLACE.base)), Some(Trouble::Nonsense));
        let committed = COMMITTED_MAX + 1;
        let huge = Place { committed, ..PLACE };
        assert_eq!(refused(huge), Some(Trouble::Nonsense));
        let reserved = u64::MAX;
        let wrapping = Place { reserved, ..PLACE };
        assert_eq!(refused(wrapping), Some(Trouble::Nonsense));
        assert_eq!(super::committed(&PLACE), 2 << SLICE_SHIFT);
    }
}
