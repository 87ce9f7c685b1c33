//! Names that a JIT wrote to `/tmp/perf-PID.map`.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of a map that are read; the rest is not.
const BYTES_MAX: u64 = 16 << 20;

/// Functions by address.
#[derive(Debug, Default)]
pub struct PerfMap {
    sorted: Vec<(u64, u64, Box<str>)>,
}

impl PerfMap {
    /// The map of process `pid`; empty when there is none.
    pub fn of(pid: u32) -> Self {
        Self::read(Path::new(&format!("/tmp/perf-{pid}.map")))
    }

    fn read(path: &Path) -> Self {
        let mut text = Vec::new();
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let plain = fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file());
        if plain
            && let Ok(file) = OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits().cast_signed())
                .open(path)
        {
            // What was read before an error is still good.
            let _ = file.take(BYTES_MAX).read_to_end(&mut text);
        }
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let mut sorted: Vec<_> = text.lines().filter_map(line).collect();
        sorted.sort_by_key(|(start, _, _)| *start);
        Self { sorted }
    }

    /// The function that holds `address`; the one written last where code was replaced.
    pub fn name(&self, address: u64) -> Option<&str> {
        let above = self.sorted.partition_point(|entry| entry.0 <= address);
        let nearest = self.sorted[..above].iter().rev().take(8);
        let mut holding = nearest.filter(|entry| address < entry.1);
        holding.next().map(|entry| entry.2.as_ref())
    }
}

/// `START SIZE name`, numbers in hex.
fn line(text: &str) -> Option<(u64, u64, Box<str>)> {
    let mut parts = text.splitn(3, ' ');
    let mut number = || {
        let part = parts.next()?;
        u64::from_str_radix(part.trim_start_matches("0x"), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name = crate::books::header::printable(parts.next()?.trim());
    Some((start, start.checked_add(size)?, name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the newest name wins and garbage is passed over. Method: a small map.
    #[test]
    fn names_are_found() {
        let map = PerfMap::parse("10 10 old\n10 8 new one\nbad\n0x40 ffffffffffffffff x\n30 4 f\n");
        assert_eq!(map.name(0x12), Some("new one"));
        assert_eq!(map.name(0x19), Some("old"));
        assert_eq!(map.name(0x33), Some("f"));
        assert_eq!((map.name(0x34), map.name(0)), (None, None));
    }
}
