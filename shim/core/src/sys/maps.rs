//! /proc/thread-self/maps: which file is mapped at an address, and all mappings in order.
//!
//! # Design
//! The file is read in pieces into a buffer on the stack; of each line only the
//! first [`LINE`] bytes are kept. Asked once per module whose name in the
//! loader's list is relative, so never on a hot path. Under the process's own name
//! the kernel shows no mappings any more once its first thread has ended.

use super::{close, open_read, read};

/// Longest line that is understood: about 73 bytes of numbers, then the path.
const LINE: usize = 512;

/// The absolute path of the file mapped at `address`, written to `into`;
/// answers its length, `None` when there is none or it does not fit.
pub fn mapped_file(address: u64, into: &mut [u8]) -> Option<usize> {
    let fd = open_read(b"/proc/thread-self/maps\0").ok()?;
    let mut lines = Lines {
        line: [0; LINE],
        length: 0,
    };
    let mut piece = [0; 1024];
    let mut found = None;
    while found.is_none() {
        let Ok(count @ 1..) = read(fd, &mut piece) else {
            break;
        };
        found = lines.feed(&piece[..count], address, into);
    }
    close(fd);
    found
}

/// One mapping of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// First address.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// It can be read.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
    /// It can be run.
    pub executable: bool,
    /// Others see what is written.
    pub shared: bool,
    /// The file, `[stack]` and the like, or nothing; cut where it is long.
    pub path: &'a [u8],
}

/// Calls `each` for every mapping until it answers false; true when all of them were read.
pub fn each_mapping(mut each: impl FnMut(&Mapping<'_>) -> bool) -> bool {
    let Ok(fd) = open_read(b"/proc/thread-self/maps\0") else {
        return false;
    };
    let mut lines = Lines {
        line: [0; LINE],
        length: 0,
    };
    let mut piece = [0; 4096];
    let mut whole = false;
    let mut on = true;
    while on {
        let Ok(count) = read(fd, &mut piece) else {
            break;
        };
        whole = count == 0;
        on = !whole;
        for &byte in &piece[..count] {
            if let Some(length) = lines.take(byte)
                && let Some(mapping) = lines.line.get(..length.min(LINE)).and_then(mapping_of)
                && !each(&mapping)
            {
                on = false;
                break;
            }
        }
    }
    close(fd);
    whole
}

/// A line `start-end perms offset device inode   path`.
fn mapping_of(line: &[u8]) -> Option<Mapping<'_>> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let mut range = words.next()?.splitn(2, |byte| *byte == b'-');
    let (start, end) = (hex(range.next()?)?, hex(range.next()?)?);
    let rights = words.next()?;
    let path = words.nth(3).unwrap_or(&[]);
    Some(Mapping {
        start: usize::try_from(start).ok()?,
        end: usize::try_from(end).ok()?,
        readable: rights.first() == Some(&b'r'),
        writable: rights.get(1) == Some(&b'w'),
        executable: rights.get(2) == Some(&b'x'),
        shared: rights.get(3) == Some(&b's'),
        path: path.trim_ascii_start(),
    })
}

/// The line that is being read.
struct Lines {
    line: [u8; LINE],
    length: usize,
}

impl Lines {
    /// Takes more of the file; answers when a whole line was about `address`.
    fn feed(&mut self, piece: &[u8], address: u64, into: &mut [u8]) -> Option<usize> {
        for &byte in piece {
            let Some(length) = self.take(byte) else {
                continue;
            };
            let line = self.line.get(..length);
            if let Some(path) = line.and_then(|line| path_at(line, address)) {
                into.get_mut(..path.len())?.copy_from_slice(path);
                return Some(path.len());
            }
        }
        None
    }

    /// Takes a byte; answers the length of the line that it ended.
    fn take(&mut self, byte: u8) -> Option<usize> {
        if byte == b'\n' {
            return Some(core::mem::take(&mut self.length));
        }
        if let Some(room) = self.line.get_mut(self.length) {
            *room = byte;
        }
        self.length += 1;
        None
    }
}

/// The path in a line `start-end perms offset device inode   path` that spans `address`.
fn path_at(line: &[u8], address: u64) -> Option<&[u8]> {
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let mut range = words.next()?.splitn(2, |byte| *byte == b'-');
    let (start, end) = (hex(range.next()?)?, hex(range.next()?)?);
    if !(start..end).contains(&address) {
        return None;
    }
    // No field before the path holds a slash.
    let rest = words.next()?;
    let at = rest.iter().position(|byte| *byte == b'/')?;
    rest.get(at..)
}

fn hex(digits: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(digits).ok()?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0002000 r--p 00000000 fe:00 123                        /bin/true
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 
7f0000001000-7f0000002000 r-xp 00001000 fe:00 77                         /home/a b/lib.so (deleted)
";

    fn ask(address: u64, step: usize) -> Option<String> {
        let mut lines = Lines {
            line: [0; LINE],
            length: 0,
        };
        let mut into = [0; 64];
        let mut pieces = MAPS.as_bytes().chunks(step);
        let length = pieces.find_map(|piece| lines.feed(piece, address, &mut into))?;
        Some(String::from_utf8_lossy(&into[..length]).into_owned())
    }

    // Goal: the file at an address is found, however the text arrives. Method: pieces of many sizes.
    #[test]
    fn the_line_of_an_address_is_found() {
        for step in [1, 7, 64, 4096] {
            assert_eq!(ask(0x55d0_c000_1fff, step).as_deref(), Some("/bin/true"));
            assert_eq!(ask(0x7f00_0000_0000, step), None, "no file there");
            let deleted = ask(0x7f00_0000_1000, step);
            assert_eq!(deleted.as_deref(), Some("/home/a b/lib.so (deleted)"));
            assert_eq!(ask(1, step), None);
        }
    }

    // Goal: every field of a line is understood, long names are cut. Method: literals.
    #[test]
    fn lines_become_mappings() {
        let all: std::vec::Vec<_> = MAPS
            .lines()
            .map(|line| mapping_of(line.as_bytes()))
            .collect();
        let last = all[2].expect("sound");
        assert_eq!((last.start, last.end), (0x7f00_0000_1000, 0x7f00_0000_2000));
        assert_eq!(
            (last.readable, last.writable, last.shared),
            (true, false, false)
        );
        assert_eq!(last.path, b"/home/a b/lib.so (deleted)");
        let anonymous = all[1].expect("sound");
        assert!(anonymous.writable && anonymous.path.is_empty());
        assert_eq!(mapping_of(b"junk"), None);
    }

    // Goal: all mappings come, in order, once. Method: the live file; this function and a local.
    #[test]
    fn all_mappings_come_in_order() {
        let local = 0u8;
        let places = [
            all_mappings_come_in_order as *const () as usize,
            (&raw const local).addr(),
        ];
        let mut seen = [0; 2];
        let mut last = 0;
        let whole = each_mapping(|mapping| {
            assert!(mapping.start >= last && mapping.end > mapping.start);
            last = mapping.end;
            for (seen, place) in seen.iter_mut().zip(places) {
                *seen += u32::from((mapping.start..mapping.end).contains(&place));
            }
            true
        });
        assert!(whole);
        assert_eq!(seen, [1, 1]);
    }

    // Goal: the live file answers for our own code, and not past the room given. Method: this function.
    #[test]
    fn our_own_code_has_a_file() {
        let mut into = [0; 400];
        let here = path_at as fn(_, _) -> _;
        let length = mapped_file((here as usize) as u64, &mut into).expect("a file");
        assert!(into.starts_with(b"/") && length > 1);
        assert_eq!(mapped_file((here as usize) as u64, &mut [0; 1]), None);
    }
}
