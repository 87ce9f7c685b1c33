//! All threads of a process, stopped.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::resume::{is_cut_short, resumed};
use crate::target::directory::{directory, runs, state};

/// Times the list of threads is read again at most, for those started meanwhile.
const ROUNDS: usize = 50;
const PAUSE: Duration = Duration::from_micros(30);

/// A thread that stands still.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Its id.
    pub tid: Pid,
    /// Its registers.
    pub registers: user_regs_struct,
}

/// A process that stands still, until this is dropped.
#[derive(Debug)]
pub struct Held {
    pid: u32,
    /// Its threads.
    pub threads: Vec<Stopped>,
    /// Threads that did not stop in time, and will when they can.
    pub late: Vec<Pid>,
    seized: HashSet<Pid>,
    /// A stop signal had stopped it before.
    pub was_stopped: bool,
    since: Instant,
}

impl Held {
    /// Stops all threads of `pid` within about `limit`.
    pub fn stop(pid: u32, limit: Duration) -> Result<Self, Errno> {
        let mut held = Self {
            pid,
            threads: Vec::new(),
            late: Vec::new(),
            seized: HashSet::new(),
            was_stopped: is_stopped(pid),
            since: Instant::now(),
        };
        let deadline = Instant::now() + limit;
        for _ in 0..ROUNDS {
            let fresh = held.seize_new()?;
            if fresh.is_empty() {
                break;
            }
            for tid in &fresh {
                // It may have ended since.
                let _ = ptrace::interrupt(*tid);
            }
            for tid in fresh {
                held.await_stop(tid, deadline);
            }
        }
        if held.threads.is_empty() {
            return Err(nobody_stopped(held.late.len()));
        }
        Ok(held)
    }

    /// Since when nothing runs.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Seizes threads not seized yet, which stops none of them.
    fn seize_new(&mut self) -> Result<Vec<Pid>, Errno> {
        let mut fresh = Vec::new();
        for tid in tids(self.pid) {
            if self.seized.contains(&tid) {
                continue;
            }
            match ptrace::seize(tid, Options::empty()) {
                Ok(()) => {
                    self.seized.insert(tid);
                    fresh.push(tid);
                }
                Err(Errno::ESRCH) => {}
                // One that ended is listed still, as a first thread is until the last one ends.
                Err(Errno::EPERM) if !is_there(self.pid, tid) => {}
                Err(error) => return Err(error),
            }
        }
        if self.threads.is_empty() {
            self.since = Instant::now();
        }
        Ok(fresh)
    }

    fn await_stop(&mut self, tid: Pid, deadline: Instant) {
        match stop_of(tid, deadline) {
            Some(registers) => self.threads.push(Stopped { tid, registers }),
            None if is_there(self.pid, tid) => self.late.push(tid),
            None => {}
        }
    }

    /// Stops one thread of it again, which was let run.
    pub fn stop_again(&mut self, tid: Pid, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let _ = ptrace::interrupt(tid);
        let registers = stop_of(tid, deadline);
        let ours = self.threads.iter_mut().find(|thread| thread.tid == tid);
        match (registers, ours) {
            (Some(registers), Some(thread)) => {
                thread.registers = registers;
                true
            }
            _ => false,
        }
    }

    /// Lets a thread go on as it is.
    pub fn let_go(&mut self, tid: Pid) {
        let _ = ptrace::detach(tid, None);
        self.seized.remove(&tid);
        self.threads.retain(|thread| thread.tid != tid);
    }

    /// Lets all go on that stand still.
    pub fn release(&mut self) {
        for thread in self.threads.drain(..) {
            if is_cut_short(&thread.registers) && !hears(self.pid, thread.tid) {
                let _ = ptrace::setregs(thread.tid, resumed(&thread.registers, false));
            }
            let _ = ptrace::detach(thread.tid, None);
        }
    }

    /// Lets those go on that have come to their stop too late; to be asked again and again, since
    /// a thread can be let go only while it stands still.
    pub fn release_late(&mut self) {
        let now = Instant::now();
        for tid in std::mem::take(&mut self.late) {
            match stop_of(tid, now) {
                Some(registers) => self.threads.push(Stopped { tid, registers }),
                None if is_there(self.pid, tid) => self.late.push(tid),
                None => {}
            }
        }
        self.release();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Why no thread stands still: on a busy machine a live one may not have come to it in time.
fn nobody_stopped(missed: usize) -> Errno {
    if missed > 0 {
        return Errno::ETIMEDOUT;
    }
    Errno::ESRCH
}

/// Waits for a thread to stop for us; `None` when it ended, or has not by `deadline`.
fn stop_of(tid: Pid, deadline: Instant) -> Option<user_regs_struct> {
    loop {
        match waitpid(tid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::PtraceEvent(..)) => return ptrace::getregs(tid).ok(),
            // On its way to a handler: the stop comes right after.
            Ok(WaitStatus::Stopped(_, signal)) => {
                let _ = ptrace::cont(tid, Some(signal));
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(PAUSE),
            Ok(WaitStatus::PtraceSyscall(_) | WaitStatus::Continued(_)) => {}
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return None,
        }
        if Instant::now() > deadline {
            return None;
        }
    }
}

/// Threads of a process, as far as they can be listed.
fn tids(pid: u32) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries
        .flatten()
        .filter_map(number)
        .map(Pid::from_raw)
        .collect()
}

/// True for a process that a stop signal holds.
fn is_stopped(pid: u32) -> bool {
    state(&directory(pid)) == Some('T')
}

/// False for a thread that has ended, also while it is still listed.
fn is_there(pid: u32, tid: Pid) -> bool {
    state(Path::new(&format!("/proc/{pid}/task/{tid}"))).is_some_and(runs)
}

/// True when a signal waits that the thread would take.
pub fn hears(pid: u32, tid: Pid) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")) else {
        return false;
    };
    let mask = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap_or(0))
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
}

#[cfg(test)]
pub fn blank() -> user_regs_struct {
    user_regs_struct {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        orig_rax: 0,
        rip: 0,
        cs: 0,
        eflags: 0,
        rsp: 0,
        ss: 0,
        fs_base: 0,
        gs_base: 0,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a program too busy to stop is not called gone. Method: threads missed, and none there.
    #[test]
    fn a_program_that_did_not_stop_in_time_is_not_gone() {
        assert_eq!(nobody_stopped(1), Errno::ETIMEDOUT);
        assert_eq!(nobody_stopped(0), Errno::ESRCH);
    }
}
