//! The mappings of a process and what of them is in RAM.

use std::ops::Range;

/// One mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// `rw-p`.
    pub flags: String,
    /// Path, or `[stack]`; empty for plain anonymous memory.
    pub name: String,
    /// Resident bytes.
    pub resident: u64,
    /// Of them, in huge pages.
    pub huge: u64,
}

impl Mapping {
    /// Whether it shares an address with `range`.
    pub fn meets(&self, range: &Range<u64>) -> bool {
        self.start < range.end && self.end > range.start
    }
}

/// The mappings in /proc/PID/smaps.
pub fn parse(text: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = header(line) {
            all.push(mapping);
        } else if let Some(last) = all.last_mut() {
            if let Some(rest) = line.strip_prefix("Rss:") {
                last.resident = kib(rest);
            } else if let Some(rest) = line.strip_prefix("AnonHugePages:") {
                last.huge = kib(rest);
            }
        }
    }
    all
}

fn kib(text: &str) -> u64 {
    let number = text.trim().trim_end_matches(" kB").parse::<u64>();
    number.unwrap_or(0).saturating_mul(1024)
}

/// `7f00-7f01 rw-p 00000000 08:01 77   /lib/x`.
fn header(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let mut words = rest.splitn(4, ' ');
    let flags = words.next()?.to_owned();
    let inode_and_name = words.nth(2)?;
    let name = inode_and_name.split_once(' ').map_or("", |(_, name)| name);
    Some(Mapping {
        start: hex(from)?,
        end: hex(to)?,
        flags,
        name: name.trim().to_owned(),
        ..Mapping::default()
    })
}

/// Resident bytes by what the mappings are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Of the heap's slices.
    pub slices: u64,
    /// Of page structs and records in front of them. Not from the page table: reading
    /// records that were never written makes pages of zeros present there, which
    /// take no memory.
    pub books: u64,
    /// Of the shared state.
    pub state: u64,
    /// In huge pages, of the slices.
    pub huge: u64,
    /// Stacks of threads.
    pub stacks: u64,
    /// Files.
    pub files: u64,
    /// Anonymous memory.
    pub anonymous: u64,
    /// Anything else.
    pub other: u64,
}

/// Sorts the mappings. `reserve` is the heap's with its books, `base` where the
/// slices begin in it; `stacks` are addresses on stacks.
pub fn sort(mappings: &[Mapping], reserve: &Range<u64>, base: u64, stacks: &[u64]) -> Around {
    let mut around = Around::default();
    for mapping in mappings {
        let holds = |address: &u64| (mapping.start..mapping.end).contains(address);
        let name = mapping.name.as_str();
        let part = if mapping.meets(&(base..reserve.end)) {
            around.huge += mapping.huge;
            &mut around.slices
        } else if mapping.meets(reserve) {
            &mut around.books
        } else if name.starts_with("/memfd:pageshim") {
            &mut around.state
        } else if name == "[stack]" || stacks.iter().any(holds) {
            &mut around.stacks
        } else if name.is_empty() || name == "[heap]" || name.starts_with("[anon") {
            &mut around.anonymous
        } else if name.starts_with('/') && !is_shared_memory(name) {
            &mut around.files
        } else {
            &mut around.other
        };
        *part += mapping.resident;
    }
    around
}

fn is_shared_memory(name: &str) -> bool {
    let shared = ["/memfd:", "/dev/shm/", "/dev/zero", "/SYSV"];
    shared.iter().any(|start| name.starts_with(start))
}

/// Stack pointers of the threads that sleep in the kernel; of a thread that runs
/// right now the kernel tells none.
pub fn stack_pointers(pid: u32) -> Vec<u64> {
    const THREADS_MAX: usize = 4096;
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let pointer = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("syscall")).ok()?;
        let word = text.split_ascii_whitespace().rev().nth(1)?.to_owned();
        u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
    };
    tasks
        .flatten()
        .take(THREADS_MAX)
        .filter_map(pointer)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "1000-2000 r-xp 00000000 08:01 77                   /bin/a b\nRss: 4 kB\n\
        4000-5000 rw-p 00000000 00:00 0 \nSize: 4 kB\nRss:                   8 kB\n\
        6000-9000 rw-p 00000000 00:00 0 \nRss: 16 kB\nAnonHugePages:     2 kB\n\
        5000-6800 rw-p 00000000 00:00 0 \nRss: 1 kB\n\
        a000-b000 rw-s 00000000 00:01 9                    /memfd:pageshim (deleted)\nRss: 32 kB\n\
        b000-c000 rw-p 00000000 00:00 0 \nRss: 64 kB\n\
        c000-d000 rw-p 00000000 00:00 0                    [stack]\nRss: 128 kB\n\
        e000-f000 r--p 00000000 00:00 0                    [vvar]\nRss: 256 kB\n\
        f000-f800 rw-s 00000000 00:01 5                    /dev/shm/x\nRss: 512 kB\n";

    // Goal: every resident byte is put into one drawer. Method: a mapping for each.
    #[test]
    fn mappings_are_sorted() {
        let mappings = parse(SMAPS);
        assert_eq!(mappings.len(), 9);
        assert_eq!(
            (mappings[0].name.as_str(), mappings[0].resident),
            ("/bin/a b", 4096)
        );
        let around = sort(&mappings, &(0x6000..0xa000), 0x8000, &[0x4800]);
        let kib = |bytes: u64| bytes / 1024;
        assert_eq!((kib(around.files), kib(around.stacks)), (4, 8 + 128));
        assert_eq!((kib(around.slices), kib(around.huge)), (16, 2));
        assert_eq!((kib(around.books), kib(around.state)), (1, 32));
        assert_eq!((kib(around.anonymous), kib(around.other)), (64, 256 + 512));
    }

    // Goal: our own threads have stacks. Method: a thread that sleeps.
    #[test]
    fn a_sleeping_thread_has_a_stack() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || told.recv());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!stack_pointers(std::process::id()).is_empty());
        drop(tell);
        let _ = thread.join();
    }
}
