//! What the kernel tells about another process.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};

/// Resident bytes of the mappings inside `base..base + bytes`; `None` when the
/// kernel does not say or nothing is mapped there.
pub fn resident(pid: u32, base: u64, bytes: u64) -> Option<u64> {
    let smaps = std::fs::read(format!("/proc/{pid}/smaps")).ok()?;
    sum(
        &String::from_utf8_lossy(&smaps),
        base,
        base.checked_add(bytes)?,
    )
}

fn sum(smaps: &str, base: u64, end: u64) -> Option<u64> {
    let (mut inside, mut found, mut kib) = (false, false, 0u64);
    for line in smaps.lines() {
        if let Some(rss) = line.strip_prefix("Rss:") {
            let number = rss.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            kib = kib.saturating_add(if inside { number } else { 0 });
        } else if let Some((from, to)) = range(line) {
            inside = from >= base && to <= end;
            found |= inside;
        }
    }
    found.then_some(kib.saturating_mul(1024))
}

/// The range at the start of a mapping's first line.
fn range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split(' ').next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(from)?, hex(to)?))
}

/// Whether a process still has anything mapped in its heap's reserve. False
/// only when the kernel shows its mappings and none is there: it has called exec.
pub fn has_heap(pid: u32, base: u64, bytes: u64) -> bool {
    let Ok(maps) = std::fs::read(format!("/proc/{pid}/maps")) else {
        return true;
    };
    let end = base.saturating_add(bytes);
    let maps = String::from_utf8_lossy(&maps);
    let inside = |(from, to)| from >= base && to <= end;
    base == 0 || maps.is_empty() || maps.lines().filter_map(range).any(inside)
}

/// A handle that becomes readable when the process ends; `None` where the
/// kernel is too old, or the process gone or out of sight.
pub fn pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: only mappings inside the reserve are summed. Method: three mappings, one inside.
    #[test]
    fn only_the_heap_is_summed() {
        let smaps = "1000-2000 rw-p 0 00:00 0 [heap]\nRss: 4 kB\n\
            5000-6000 rw-p 0 00:00 0\nSize: 4 kB\nRss:                   8 kB\nPss: 1 kB\n\
            6000-9000 ---p 0 00:00 0\nRss: 16 kB\n9000-a000 rw-p 0 00:00 0\nRss: 32 kB\n";
        assert_eq!(sum(smaps, 0x5000, 0x9000), Some(24 * 1024));
        assert_eq!(sum(smaps, 0x20000, 0x90000), None);
        assert_eq!(resident(0, 0, 1), None);
        assert!(has_heap(0, 1, 1));
        assert!(!has_heap(std::process::id(), 1, 1));
    }
}
