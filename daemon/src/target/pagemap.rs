//! Which OS pages of a process are in RAM.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::directory::directory;

/// Entries read at a time: 512 KiB of the file, 256 MiB of addresses.
const PIECE: usize = 64 * 1024;
const PRESENT: u64 = 1 << 63;
/// Present, and no other process has it.
const OWN: u64 = PRESENT | 1 << 56;

/// The page table of a process, from /proc/PID/pagemap (no privilege needed: page
/// frame numbers are hidden then, the present bit is not).
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    page_bytes: u64,
}

impl Pagemap {
    /// Opens it; `page_bytes` is the kernel's page size.
    pub fn open(pid: u32, page_bytes: u64) -> io::Result<Self> {
        let file = File::open(directory(pid).join("pagemap"))?;
        let page_bytes = page_bytes.max(4096);
        Ok(Self { file, page_bytes })
    }

    /// Which pages of `start..start + bytes` are in RAM; rounded out to whole pages.
    pub fn resident(&self, start: u64, bytes: u64) -> io::Result<Resident> {
        self.read(start, bytes, PRESENT)
    }

    /// The same without the kernel's page of zeros, which stands for memory that was
    /// read and never written and takes none, and without pages shared with a fork.
    pub fn own(&self, start: u64, bytes: u64) -> io::Result<Resident> {
        self.read(start, bytes, OWN)
    }

    fn read(&self, start: u64, bytes: u64, bits: u64) -> io::Result<Resident> {
        let first = start / self.page_bytes;
        let end = start.saturating_add(bytes).div_ceil(self.page_bytes);
        let mut found = Resident {
            first,
            page_bytes: self.page_bytes,
            words: Vec::new(),
        };
        let mut piece = vec![0; PIECE * 8];
        let mut at = first;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut piece[..count * 8];
            self.file.read_exact_at(piece, at * 8)?;
            for (entry, page) in piece.chunks_exact(8).zip(at..) {
                let entry = entry.try_into().map_or(0, u64::from_le_bytes);
                found.put(page, entry & bits == bits);
            }
            at += count as u64;
        }
        Ok(found)
    }
}

/// A bit for each OS page of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    first: u64,
    page_bytes: u64,
    words: Vec<u64>,
}

impl Resident {
    /// Of pages from address `start`, one flag each.
    #[cfg(test)]
    pub fn of(start: u64, page_bytes: u64, flags: &[bool]) -> Self {
        let first = start / page_bytes;
        let mut found = Self {
            first,
            page_bytes,
            words: Vec::new(),
        };
        for (flag, page) in flags.iter().zip(first..) {
            found.put(page, *flag);
        }
        found
    }

    fn put(&mut self, page: u64, present: bool) {
        let index = usize::try_from(page - self.first).unwrap_or(usize::MAX);
        if self.words.len() <= index / 64 {
            self.words.resize(index / 64 + 1, 0);
        }
        self.words[index / 64] |= u64::from(present) << (index % 64);
    }

    /// Whether the page that holds `address` is in RAM; false outside the range.
    pub fn holds(&self, address: u64) -> bool {
        let page = address / self.page_bytes.max(1);
        let index = page.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.is_some_and(|index| {
            let word = self.words.get(index / 64).copied().unwrap_or(0);
            word >> (index % 64) & 1 == 1
        })
    }

    /// Bytes of `start..end` that are in RAM.
    pub fn bytes(&self, start: u64, end: u64) -> u64 {
        let mut sum = 0;
        let mut at = start;
        while at < end {
            let next = (at / self.page_bytes + 1) * self.page_bytes;
            let stop = next.min(end);
            sum += if self.holds(at) { stop - at } else { 0 };
            at = stop;
        }
        sum
    }

    /// Bytes of all pages in RAM.
    pub fn sum(&self) -> u64 {
        let pages = self.words.iter().map(|word| u64::from(word.count_ones()));
        pages.sum::<u64>() * self.page_bytes
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: bytes in RAM are counted over page borders. Method: three pages, the middle one absent.
    #[test]
    fn bytes_are_counted() {
        let map = Resident::of(0x10000, 4096, &[true, false, true]);
        assert_eq!(map.bytes(0x10000, 0x13000), 8192);
        assert_eq!(map.bytes(0x10800, 0x12010), 0x800 + 0x10);
        assert_eq!(map.bytes(0x20000, 0x30000), 0, "outside");
        assert!(map.holds(0x10fff) && !map.holds(0x11000) && !map.holds(0xffff));
    }

    // Goal: the kernel's answer is understood. Method: a block of ours that is larger than any that
    // is used again, half written, a quarter read only.
    #[test]
    fn our_own_pages() {
        const PAGES: usize = 10_240;
        let bytes = |pages: usize| (pages * 4096) as u64;
        let mut block = vec![0u8; PAGES * 4096];
        for page in 0..PAGES / 2 {
            block[page * 4096 + 100] = 1;
        }
        let zeros = (PAGES / 2..PAGES * 3 / 4).map(|page| u64::from(block[page * 4096]));
        assert_eq!(zeros.sum::<u64>(), 0);
        let start = block.as_ptr().addr() as u64;
        let map = Pagemap::open(std::process::id(), 4096).expect("our own");
        let found = map.resident(start, bytes(PAGES)).expect("readable");
        assert!(found.bytes(start, start + bytes(PAGES / 2)) >= bytes(PAGES / 2 - 1));
        let own = map.own(start, bytes(PAGES)).expect("readable");
        let (all, written) = (found.sum(), own.sum());
        assert!(all > written + bytes(PAGES / 4 - 2), "{all} {written}");
        assert!(
            written.abs_diff(bytes(PAGES / 2)) <= bytes(600),
            "{written}"
        );
        std::hint::black_box(&block);
    }
}
