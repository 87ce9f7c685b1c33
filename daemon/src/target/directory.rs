//! Where /proc shows a process.
//!
//! A program's main may end by `pthread_exit` while its other threads go on. Under the id of the
//! process the kernel then shows no memory, mappings or descriptors any more; under
//! the ids of threads that still run it does.

use std::fs;
use std::path::{Path, PathBuf};

/// The directory of a process; that of a thread of it where its first one has ended.
pub fn directory(pid: u32) -> PathBuf {
    let own = PathBuf::from(format!("/proc/{pid}"));
    if state(&own).is_some_and(runs) {
        return own;
    }
    thread_that_runs(&own).unwrap_or(own)
}

fn thread_that_runs(process: &Path) -> Option<PathBuf> {
    let tasks = fs::read_dir(process.join("task")).ok()?;
    let mut paths = tasks.flatten().map(|task| task.path());
    paths.find(|task| state(task).is_some_and(runs))
}

/// How a process or thread is, as `stat` in its directory says: `R`, `S`, `T`, `Z`; `None` when it
/// is not there.
pub fn state(directory: &Path) -> Option<char> {
    let stat = fs::read(directory.join("stat")).ok()?;
    // A name may hold anything, also a bracket.
    let rest = stat.rsplit(|byte| *byte == b')').next()?;
    rest.trim_ascii_start().first().copied().map(char::from)
}

/// False in the states of one that has ended and is still listed.
pub const fn runs(state: char) -> bool {
    !matches!(state, 'Z' | 'X')
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a process has its own directory while its first thread runs, and one that has ended keeps it.
    // Method: ourselves, a child that has ended and was not waited for, nobody.
    #[test]
    fn a_process_has_a_directory() {
        let own = std::process::id();
        assert_eq!(directory(own), PathBuf::from(format!("/proc/{own}")));
        assert!(state(&directory(own)).is_some_and(runs));
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let of_child = PathBuf::from(format!("/proc/{}", child.id()));
        while state(&of_child).is_some_and(runs) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(state(&of_child), Some('Z'));
        assert_eq!(directory(child.id()), of_child);
        child.wait().expect("ours");
        assert_eq!(state(&directory(u32::MAX)), None);
    }
}
