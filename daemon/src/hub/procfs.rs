//! What the kernel tells about another process.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};

use crate::target::directory::directory;

/// Resident bytes of the mappings inside `base..base + bytes`; `None` when the
/// kernel does not say or nothing is mapped there.
pub fn resident(pid: u32, base: u64, bytes: u64) -> Option<u64> {
    let smaps = std::fs::read(directory(pid).join("smaps")).ok()?;
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
            // The kernel may have merged ours with a neighbour: any overlap counts.
            inside = from < end && to > base;
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

/// What the kernel names the mapping that holds an address: a file, `[heap]`; empty for
/// memory without a name. `None` when it does not say.
pub fn mapping(pid: u32, address: u64) -> Option<String> {
    let maps = std::fs::read(directory(pid).join("maps")).ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let line = maps
        .lines()
        .find(|line| range(line).is_some_and(|(from, to)| (from..to).contains(&address)))?;
    let mut rest = line;
    for _ in 0..5 {
        rest = rest.trim_start();
        rest = rest.find(' ').map_or("", |end| &rest[end..]);
    }
    Some(rest.trim().to_owned())
}

/// The name of a thread.
pub fn thread_name(pid: u32, tid: u64) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Whether no process has this id any more; false when ids cannot be compared.
pub fn is_gone(pid: u32) -> bool {
    let own = std::path::Path::new("/proc/self").exists();
    pid != 0 && own && !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process still has its heap: anonymous memory at the base of the
/// reserve. False only when the kernel shows its mappings and that is not among
/// them: it has called exec.
pub fn has_heap(pid: u32, base: u64) -> bool {
    let Ok(maps) = std::fs::read(directory(pid).join("maps")) else {
        return true;
    };
    let maps = String::from_utf8_lossy(&maps);
    base == 0 || maps.is_empty() || maps.lines().any(|line| is_anonymous_at(line, base))
}

/// Whether a line of `maps` is anonymous memory that holds `address`.
fn is_anonymous_at(line: &str, address: u64) -> bool {
    let mut words = line.split_ascii_whitespace();
    let anonymous = words.nth(4) == Some("0");
    anonymous && range(line).is_some_and(|(from, to)| (from..to).contains(&address))
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
        assert_eq!(
            sum(smaps, 0x5800, 0x6800),
            Some(24 * 1024),
            "merged with a neighbour"
        );
        assert!(is_gone(u32::MAX) && !is_gone(std::process::id()) && !is_gone(0));
        assert!(has_heap(0, 1));
        assert!(!has_heap(std::process::id(), 1));
        assert!(is_anonymous_at("5000-6000 ---p 00000000 00:00 0", 0x5000));
        assert!(!is_anonymous_at(
            "5000-6000 r--p 00000000 08:01 77  /lib/x",
            0x5000
        ));
    }
}
