//! One question to /proc/self/maps: which file is mapped at an address?
//!
//! # Design
//! The file is read in pieces into a buffer on the stack; of each line only the
//! first [`LINE`] bytes are kept. Asked once per module whose name in the
//! loader's list is relative, so never on a hot path.

use super::{close, open_read, read};

/// Longest line that is understood: about 73 bytes of numbers, then the path.
const LINE: usize = 512;

/// The absolute path of the file mapped at `address`, written to `into`;
/// answers its length, `None` when there is none or it does not fit.
pub fn mapped_file(address: u64, into: &mut [u8]) -> Option<usize> {
    let fd = open_read(b"/proc/self/maps\0").ok()?;
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

/// The line that is being read.
struct Lines {
    line: [u8; LINE],
    length: usize,
}

impl Lines {
    /// Takes more of the file; answers when a whole line was about `address`.
    fn feed(&mut self, piece: &[u8], address: u64, into: &mut [u8]) -> Option<usize> {
        for &byte in piece {
            if byte != b'\n' {
                if let Some(room) = self.line.get_mut(self.length) {
                    *room = byte;
                }
                self.length += 1;
                continue;
            }
            let line = self.line.get(..self.length);
            self.length = 0;
            if let Some(path) = line.and_then(|line| path_at(line, address)) {
                into.get_mut(..path.len())?.copy_from_slice(path);
                return Some(path.len());
            }
        }
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
