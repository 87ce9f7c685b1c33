//! One thread of a held process, lent to have its heap checked.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pageshim_wire::check::{Method, Reason, Trigger, saved, stopped};
use pageshim_wire::filters;

use super::order::{Door, Order, Outcome};
use super::resume::{resumed, saved_words};
use super::threads::{Held, Stopped, hears};

/// Longest time to stop all threads.
const STOP: Duration = Duration::from_millis(500);
/// Longest time for a fork: the kernel copies page tables, about 30 ms for each GiB.
const FORK: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_micros(50);
const POLL_MARK: Duration = Duration::from_millis(1);

/// Does what is ordered, and lets the process go on.
pub fn carry_out(order: &Order) -> Outcome {
    match try_to(order) {
        Ok(outcome) => outcome,
        Err(error) => Outcome {
            refused: matches!(error, Errno::EPERM | Errno::EACCES),
            trouble: trouble(error),
            ..Outcome::default()
        },
    }
}

fn trouble(error: Errno) -> String {
    match error {
        Errno::ESRCH => "the process is gone".to_owned(),
        Errno::EPERM | Errno::EACCES => "the kernel does not let the daemon stop the process (kernel.yama.ptrace_scope, another user, a debugger that is there already)".to_owned(),
        Errno::ETIMEDOUT => "no thread could be stopped and lent in time".to_owned(),
        other => format!("the process could not be held: {other}"),
    }
}

fn try_to(order: &Order) -> Result<Outcome, Errno> {
    if has_own_filter(order) {
        return Ok(Outcome {
            trouble: "the process has set itself a filter of system calls (seccomp): a call the filter does not know could end it, so it is left alone".to_owned(),
            reason: Reason::Filter as u64,
            ..Outcome::default()
        });
    }
    let memory = Memory::open(order)?;
    let mut held = stop(order)?;
    if !maps_state(order) {
        return Ok(Outcome {
            trouble: "its process id is another process's by now".to_owned(),
            ..Outcome::default()
        });
    }
    let mut outcome = Outcome::default();
    let lent = choose(order.pid, &held.threads).ok_or(Errno::ETIMEDOUT)?;
    memory.write_threads(&held)?;
    let since = held.since();
    if !order.in_place {
        match fork(order, &memory, &mut held, lent)? {
            Some(copy) => {
                held.release();
                outcome.pause_ns = since.elapsed().as_nanos() as u64;
                outcome.forked = true;
                outcome.trouble = see_through(copy, order.limit_ms, &mut held);
                return Ok(outcome);
            }
            None => {
                outcome.reason = Reason::Fork as u64;
                outcome.trouble = "the kernel refused to fork the process".to_owned();
                return Ok(outcome);
            }
        }
    }
    let limit = Duration::from_millis(order.limit_ms);
    if !mark_in_place(order, &memory, &mut held, lent, limit)? {
        outcome.trouble = "the mark took too long".to_owned();
        outcome.reason = Reason::TooLong as u64;
    }
    drop(held);
    outcome.pause_ns = since.elapsed().as_nanos() as u64;
    Ok(outcome)
}

/// Stops the process at a moment when no thread is still on its way back from a check.
fn stop(order: &Order) -> Result<Held, Errno> {
    let mut held = Held::stop(order.pid, STOP)?;
    let behind = |thread: &&Stopped| is_behind(&order.door, thread);
    let on_its_way = held.threads.iter().find(behind).map(|thread| thread.tid);
    match on_its_way {
        Some(tid) if !see_home(order, &mut held, tid) => Err(Errno::ETIMEDOUT),
        _ => Ok(held),
    }
}

/// True for a thread behind the door, or on its stack.
fn is_behind(door: &Door, thread: &Stopped) -> bool {
    const CODE_BYTES: u64 = 1024;
    const STACK_BYTES: u64 = 256 * 1024;
    let inside = |at: u64, from: u64, bytes: u64| at.wrapping_sub(from) < bytes;
    inside(thread.registers.rip, door.entry, CODE_BYTES)
        || inside(
            thread.registers.rsp,
            door.stack.wrapping_sub(STACK_BYTES),
            STACK_BYTES,
        )
}

/// True when the held process maps the state that the order is about.
fn maps_state(order: &Order) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", order.pid)).unwrap_or_default();
    maps.lines().any(|line| is_state(line, order.state_inode))
}

fn is_state(line: &str, inode: u64) -> bool {
    let mut fields = line.split_whitespace().skip(4);
    let same = fields
        .next()
        .is_some_and(|field| field.parse() == Ok(inode));
    same && fields.next() == Some("/memfd:pageshim")
}

/// True where a filter of system calls came since the program began, or may have. One it
/// began under is made for programs that fork.
fn has_own_filter(order: &Order) -> bool {
    let status = fs::read(format!("/proc/{}/status", order.pid)).unwrap_or_default();
    filters::count(&status).is_none_or(|now| now > 0 && now + 1 != order.filters)
}

/// The thread that is disturbed least: best one in no system call.
fn choose(pid: u32, threads: &[Stopped]) -> Option<Pid> {
    ranked(threads, |tid| hears(pid, tid))
}

/// Whether a signal waits for a thread takes a file to know, while all stand still: only those
/// that come into question are asked about.
fn ranked(threads: &[Stopped], hears: impl Fn(Pid) -> bool) -> Option<Pid> {
    const USER_CODE: u64 = 0x33;
    const RESTART_RESTARTBLOCK: i64 = -516;
    let rank = |thread: &&Stopped| {
        let registers = &thread.registers;
        let in_call = registers.orig_rax.cast_signed() >= 0;
        let timed = in_call && registers.rax.cast_signed() == RESTART_RESTARTBLOCK;
        u32::from(in_call) + u32::from(timed)
    };
    let fits = |thread: &&Stopped| thread.registers.cs == USER_CODE;
    let mut fit: Vec<&Stopped> = threads.iter().filter(fits).collect();
    fit.sort_by_key(rank);
    let quiet = fit.iter().find(|thread| !hears(thread.tid));
    quiet.or(fit.first()).map(|thread| thread.tid)
}

/// The process's memory, to write where its shim said.
struct Memory {
    file: File,
    door: Door,
}

impl Memory {
    fn open(order: &Order) -> Result<Self, Errno> {
        let path = format!("/proc/{}/mem", order.pid);
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file =
            file.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Self {
            file,
            door: order.door,
        })
    }

    fn write(&self, address: u64, words: &[u64]) -> Result<(), Errno> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.file
            .write_all_at(&bytes, address)
            .map_err(|_| Errno::EFAULT)
    }

    fn write_threads(&self, held: &Held) -> Result<(), Errno> {
        let room = usize::try_from(self.door.threads_max.saturating_sub(1)).unwrap_or(0);
        let threads = &held.threads;
        let kept = threads.get(..threads.len().min(room)).unwrap_or(&[]);
        let missed = held.late.len() + threads.len() - kept.len();
        let mut words = Vec::with_capacity((kept.len() + 1) * stopped::WORDS);
        for thread in kept {
            let registers = saved_words(&thread.registers);
            words.push(thread.tid.as_raw().cast_unsigned().into());
            words.push(registers[saved::SP]);
            words.extend_from_slice(&registers[..15]);
            words.push(thread.registers.fs_base);
        }
        let mut end = [0; stopped::WORDS];
        end[stopped::MISSED] = missed as u64;
        words.extend_from_slice(&end);
        self.write(self.door.threads, &words)
    }

    /// What the entry wrote when it was done, 0 before.
    fn answer(&self) -> i64 {
        let mut bytes = [0; 8];
        let at = self.door.saved + saved::CHILD as u64 * 8;
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_or(-1, |()| i64::from_le_bytes(bytes))
    }

    /// Sends the lent thread through the door.
    fn send(&self, pid: u32, thread: &Stopped, method: Method) -> Result<(), Errno> {
        let goes_on_with = resumed(&thread.registers, hears(pid, thread.tid));
        self.write(self.door.saved, &saved_words(&goes_on_with))?;
        ptrace::setregs(thread.tid, through(&self.door, &thread.registers, method))?;
        ptrace::cont(thread.tid, None)
    }
}

/// Registers at the door.
fn through(door: &Door, registers: &user_regs_struct, method: Method) -> user_regs_struct {
    const DIRECTION_AND_TRAP: u64 = 0x400 | 0x100;
    let mut at_door = *registers;
    at_door.rip = door.entry;
    at_door.rsp = door.stack & !15;
    at_door.rdi = method as u64;
    at_door.rsi = Trigger::Request as u64;
    at_door.orig_rax = u64::MAX;
    at_door.eflags &= !DIRECTION_AND_TRAP;
    at_door
}

fn lent_thread(held: &Held, lent: Pid) -> Result<Stopped, Errno> {
    let found = held.threads.iter().find(|thread| thread.tid == lent);
    found.copied().ok_or(Errno::ESRCH)
}

/// Has the process fork; the copy, or `None` when the kernel refused.
fn fork(order: &Order, memory: &Memory, held: &mut Held, lent: Pid) -> Result<Option<Pid>, Errno> {
    let thread = lent_thread(held, lent)?;
    ptrace::setoptions(
        lent,
        Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK,
    )?;
    memory.send(order.pid, &thread, Method::Fork)?;
    let deadline = Instant::now() + FORK;
    loop {
        match waitpid(lent, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::PtraceEvent(
                _,
                _,
                libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK,
            )) => {
                let copy = ptrace::getevent(lent)?;
                if held.was_stopped {
                    see_home(order, held, lent);
                }
                held.let_go(lent);
                return Ok(Some(Pid::from_raw(copy as libc::pid_t)));
            }
            Ok(WaitStatus::PtraceEvent(..)) => ptrace::cont(lent, None)?,
            Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(lent, Some(signal))?,
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return Err(Errno::ESRCH),
            _ if memory.answer() < 0 => {
                held.stop_again(lent, STOP);
                return Ok(None);
            }
            _ if Instant::now() > deadline => return Err(Errno::ETIMEDOUT),
            _ => std::thread::sleep(POLL),
        }
    }
}

/// Lets a lent thread run, alone, until it is back where it was; false when that takes too long.
/// In a process that a signal has stopped, one let go earlier would stop on the way, and nobody
/// could lend it again.
fn see_home(order: &Order, held: &mut Held, lent: Pid) -> bool {
    let deadline = Instant::now() + STOP;
    loop {
        let _ = ptrace::cont(lent, None);
        std::thread::sleep(POLL);
        let stopped = held.stop_again(lent, STOP);
        let away = lent_thread(held, lent).is_ok_and(|thread| is_behind(&order.door, &thread));
        if !stopped || !away || Instant::now() > deadline {
            return stopped && !away;
        }
    }
}

/// Waits for the copy to have marked; what went wrong, or nothing. Threads that come to their stop
/// only now are let go.
fn see_through(copy: Pid, limit_ms: u64, held: &mut Held) -> String {
    let deadline = Instant::now() + Duration::from_millis(limit_ms);
    let mut goes = false;
    loop {
        match waitpid(copy, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::PtraceEvent(..)) if !goes => {
                goes = true;
                let _ = ptrace::setoptions(copy, Options::PTRACE_O_EXITKILL);
                let _ = ptrace::cont(copy, None);
            }
            Ok(WaitStatus::Exited(..)) => return String::new(),
            Ok(WaitStatus::Signaled(_, signal, _)) => return format!("the copy died of {signal}"),
            Ok(WaitStatus::Stopped(_, Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL)) => {
                let _ = kill(copy, Signal::SIGKILL);
            }
            // Signals meant for the program are not for its copy.
            Ok(WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)) => {
                let _ = ptrace::cont(copy, None);
            }
            Err(Errno::ECHILD) => return "the copy is gone".to_owned(),
            _ => std::thread::sleep(POLL_MARK),
        }
        held.release_late();
        if Instant::now() > deadline {
            let _ = kill(copy, Signal::SIGKILL);
            let _ = waitpid(copy, Some(WaitPidFlag::__WALL));
            return "the mark took too long".to_owned();
        }
    }
}

/// Has the lent thread mark while the others stand still; false when it took too long.
fn mark_in_place(
    order: &Order,
    memory: &Memory,
    held: &mut Held,
    lent: Pid,
    limit: Duration,
) -> Result<bool, Errno> {
    let thread = lent_thread(held, lent)?;
    ptrace::setoptions(lent, Options::empty())?;
    memory.send(order.pid, &thread, Method::Held)?;
    let deadline = Instant::now() + limit;
    while memory.answer() == 0 {
        match waitpid(lent, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::PtraceEvent(..)) => ptrace::cont(lent, None)?,
            Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(lent, Some(signal))?,
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return Err(Errno::ESRCH),
            _ if Instant::now() > deadline => break,
            _ => std::thread::sleep(POLL_MARK),
        }
    }
    let done = memory.answer() != 0;
    held.stop_again(lent, STOP);
    if done && held.was_stopped {
        see_home(order, held, lent);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn stopped(tid: i32, call: i64, answer: i64, cs: u64) -> Stopped {
        let mut registers = crate::hold::threads::blank();
        registers.orig_rax = call.cast_unsigned();
        registers.rax = answer.cast_unsigned();
        registers.cs = cs;
        Stopped {
            tid: Pid::from_raw(tid),
            registers,
        }
    }

    // Goal: the thread that is disturbed least is lent, and few are asked about. Method: 200 threads in
    // calls, one that runs; then signals wait for some.
    #[test]
    fn one_that_is_disturbed_least_is_lent() {
        let mut threads: Vec<_> = (1..=200).map(|tid| stopped(tid, 202, -512, 0x33)).collect();
        threads[0] = stopped(1, 35, -516, 0x33);
        threads[1] = stopped(2, -1, 0, 0x23);
        threads[99] = stopped(100, -1, 0, 0x33);
        let lent = |heard: &dyn Fn(i32) -> bool| {
            let asked = Cell::new(0);
            let hears = |tid: Pid| {
                asked.set(asked.get() + 1);
                heard(tid.as_raw())
            };
            (ranked(&threads, hears).map(Pid::as_raw), asked.get())
        };
        assert_eq!(lent(&|_| false), (Some(100), 1), "it is in no call");
        assert_eq!(lent(&|tid| tid == 100), (Some(3), 2), "a signal waits");
        assert_eq!(lent(&|tid| tid != 1), (Some(1), 199), "a timed call");
        assert_eq!(lent(&|_| true), (Some(100), 199), "all hear one");
        assert_eq!(
            ranked(&threads[1..2], |_| false),
            None,
            "another kind of code"
        );
    }

    // Goal: only the state itself is taken for it. Method: lines of a maps file.
    #[test]
    fn a_state_is_known_by_its_inode() {
        let line = |inode: &str, name: &str| {
            is_state(
                &format!("7f00-7f10 rw-s 00000000 00:01 {inode} {name}"),
                1234,
            )
        };
        assert!(line(
            "1234",
            "                     /memfd:pageshim (deleted)"
        ));
        assert!(!line("12345", "/memfd:pageshim (deleted)"));
        assert!(!line("1234", "/memfd:other (deleted)"));
        assert!(!line("1234", "/tmp/x /memfd:pageshim"));
        assert!(!is_state("", 0) && !is_state("7f00-7f10 rw-p 0 00:00 0", 0));
    }
}
