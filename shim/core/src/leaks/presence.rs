//! Which pages of a range hold anything: reading a page the program never touched
//! would give it memory, and past the end of a mapped file it would be fatal.
#![allow(unsafe_code)]

use crate::OS_PAGE_BYTES;
use crate::sys;

/// Pages asked about at once.
const PAGES: usize = 512;
/// Bytes of shared memory taken at once: as much as is asked about at once.
const WINDOW: usize = PAGES * OS_PAGE_BYTES;
/// Memory the kernel's page table knows nothing of yet, or that a guard holds.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;
const GUARD: u64 = 1 << 58;

/// What is behind a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private memory: what is not in the page table was not touched.
    Private,
    /// Shared memory: the page table may have forgotten what the page cache has.
    Shared,
}

/// Takes the next piece off what is `left` of a root, of private memory at most `bytes`.
///
/// Shared memory is taken from its end: the kernel reads ahead of who reads a file, and what it
/// has read would look like held pages when asked about later, so that a check would read a whole
/// file, its holes too, into memory.
pub(super) fn take(
    left: &mut (usize, usize),
    backing: Backing,
    bytes: usize,
) -> Option<(usize, usize)> {
    let (from, to) = *left;
    if from >= to {
        return None;
    }
    match backing {
        Backing::Private => left.0 = to.min((from & !(bytes - 1)) + bytes),
        Backing::Shared => left.1 = from.max((to - 1) & !(WINDOW - 1)),
    }
    Some(match backing {
        Backing::Private => (from, left.0),
        Backing::Shared => (left.1, to),
    })
}

/// In a copy: has the kernel read nothing ahead of who reads this shared memory next.
pub(super) fn read_no_further((from, to): (usize, usize)) {
    let from = from & !(OS_PAGE_BYTES - 1);
    // SAFETY: says how the kernel is to fetch pages; their content stays. Where it is refused, more is read.
    let _ = unsafe { sys::advise(from, to - from, sys::RANDOM) };
}

/// Answers about pages, some at a time.
#[derive(Debug)]
pub(super) struct Presence {
    pagemap: Option<i32>,
    from: usize,
    to: usize,
    backing: Backing,
    held: [bool; PAGES],
}

impl Presence {
    /// Ready to ask; without a page table to read every private page counts as held.
    pub(super) fn open() -> Self {
        Self {
            pagemap: sys::open_read(b"/proc/thread-self/pagemap\0").ok(),
            from: 0,
            to: 0,
            backing: Backing::Private,
            held: [true; PAGES],
        }
    }

    /// One that is never asked.
    pub(super) const fn closed() -> Self {
        Self {
            pagemap: None,
            from: 0,
            to: 0,
            backing: Backing::Private,
            held: [true; PAGES],
        }
    }

    /// Calls `each` for the parts of `from..to` that hold something.
    pub(super) fn each(
        &mut self,
        (from, to): (usize, usize),
        backing: Backing,
        mut each: impl FnMut(usize, usize),
    ) {
        let mut start = from;
        let mut at = from;
        while at < to {
            let next = (at & !(OS_PAGE_BYTES - 1)) + OS_PAGE_BYTES;
            if !self.is_held(at, to, backing) {
                if start < at {
                    each(start, at);
                }
                start = next;
            }
            at = next;
        }
        if start < to {
            each(start, to);
        }
    }

    fn is_held(&mut self, at: usize, end: usize, backing: Backing) -> bool {
        let page = at & !(OS_PAGE_BYTES - 1);
        if backing != self.backing || page < self.from || page >= self.to {
            // The page table may be asked past the end of a mapping, the page cache not.
            let pages = match backing {
                Backing::Private => PAGES,
                Backing::Shared => end.div_ceil(OS_PAGE_BYTES) - page / OS_PAGE_BYTES,
            };
            self.fetch(page, pages.min(PAGES), backing);
        }
        let index = (page - self.from) / OS_PAGE_BYTES;
        self.held.get(index).copied().unwrap_or(true)
    }

    fn fetch(&mut self, from: usize, pages: usize, backing: Backing) {
        self.from = from;
        self.to = from + pages * OS_PAGE_BYTES;
        self.backing = backing;
        self.held = [true; PAGES];
        match backing {
            Backing::Private => self.fetch_private(pages),
            Backing::Shared => {
                let mut seen = [1; PAGES];
                if sys::in_core(from, pages * OS_PAGE_BYTES, &mut seen) {
                    for (held, seen) in self.held.iter_mut().zip(seen) {
                        *held = seen & 1 != 0;
                    }
                }
            }
        }
    }

    fn fetch_private(&mut self, pages: usize) {
        let Some(fd) = self.pagemap else { return };
        let mut entries = [0; PAGES * 8];
        let offset = (self.from / OS_PAGE_BYTES * 8) as u64;
        let Some(room) = entries.get_mut(..pages * 8) else {
            return;
        };
        let read = sys::read_at(fd, room, offset).unwrap_or(0);
        for (held, entry) in self.held.iter_mut().zip(room[..read].chunks_exact(8)) {
            let entry = u64::from_le_bytes(entry.try_into().unwrap_or([0xff; 8]));
            *held = entry & PRESENT_OR_SWAPPED != 0 && entry & GUARD == 0;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(fd) = self.pagemap {
            sys::close(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    // Goal: only touched pages are named. Method: a mapping of 1,200 pages, a few of them written.
    #[test]
    fn untouched_pages_are_passed_over() {
        let bytes = 1200 * OS_PAGE_BYTES;
        // SAFETY: a new mapping, used by this test alone.
        let at = unsafe { sys::map_anonymous(0, bytes, sys::PROT_READ_WRITE, false) };
        let at = at.expect("memory");
        for page in [0, 1, 600, 1199] {
            let word = core::ptr::with_exposed_provenance_mut::<u64>(at + page * OS_PAGE_BYTES);
            // SAFETY: within the mapping.
            unsafe { word.write(1) };
        }
        let mut seen = Vec::new();
        let mut presence = Presence::open();
        presence.each((at + 8, at + bytes), Backing::Private, |from, to| {
            seen.push(((from - at) / 8, (to - at) / 8));
        });
        let page = OS_PAGE_BYTES / 8;
        let expected = [
            (1, 2 * page),
            (600 * page, 601 * page),
            (1199 * page, 1200 * page),
        ];
        assert_eq!(seen, expected);
        // SAFETY: nobody uses it any more.
        unsafe { sys::unmap(at, bytes) }.expect("ours");
    }
}
