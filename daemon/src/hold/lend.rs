//! One thread of a held process, lent to have its heap checked.
//!
//! # Design
//! ```text
//! eligible  whether the process may be held
//! choice    which thread is lent
//! door      where it enters the shim, and what it finds written there
//! here      the order of it: stop, send, wait for the fork or the mark, let go
//! ```

mod choice;
mod door;
mod eligible;

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pageshim_wire::check::{Method, Reason};

use super::order::{Order, Outcome};
use super::threads::{Held, Stopped};
use choice::choose;
use door::{Memory, is_behind};
use eligible::{begins_namespace, filter_count, has_own_filter, maps_state};

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
    let lent = choose(order.pid, &held.threads).ok_or(Errno::ETIMEDOUT)?;
    if !order.in_place && begins_namespace(order.pid, lent) {
        return Ok(Outcome {
            trouble: "its next child would be the first of a new process id namespace".to_owned(),
            reason: Reason::Namespace as u64,
            ..Outcome::default()
        });
    }
    memory.write_threads(&held)?;
    if order.in_place {
        return in_place(order, &memory, held, lent);
    }
    match fork(order, &memory, &mut held, lent)? {
        Some(copy) => Ok(in_a_copy(order, copy, held)),
        None => Ok(not_copied(order)),
    }
}

fn in_a_copy(order: &Order, copy: Pid, mut held: Held) -> Outcome {
    let since = held.since();
    if !order.at_exit {
        held.release();
    }
    let pause = since.elapsed();
    let searched = see_through(order, copy, &mut held);
    held.release();
    let pause = if order.at_exit {
        since.elapsed()
    } else {
        pause
    };
    let (reason, trouble) = searched.err().unwrap_or((Reason::None, String::new()));
    Outcome {
        trouble,
        reason: reason as u64,
        forked: true,
        pause_ns: pause.as_nanos() as u64,
        ..Outcome::default()
    }
}

fn not_copied(order: &Order) -> Outcome {
    let (reason, trouble) = match filter_count(order) {
        Some(0) => (Reason::Fork, "the kernel refused to fork the process"),
        _ => (
            Reason::Filter,
            "the kernel refused to fork the process, and under its filter of system calls (seccomp) only a copy is searched: a call the filter does not know would end the process itself",
        ),
    };
    Outcome {
        trouble: trouble.to_owned(),
        reason: reason as u64,
        ..Outcome::default()
    }
}

fn in_place(order: &Order, memory: &Memory, mut held: Held, lent: Pid) -> Result<Outcome, Errno> {
    let since = held.since();
    let mut outcome = Outcome::default();
    let limit = Duration::from_millis(order.limit_ms);
    if !mark_in_place(order, memory, &mut held, lent, limit)? {
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
    memory.send(order, &thread, Method::Fork)?;
    let deadline = Instant::now() + FORK;
    loop {
        match waitpid(lent, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::PtraceEvent(
                _,
                _,
                libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK,
            )) => {
                let copy = ptrace::getevent(lent)?;
                if held.was_stopped || order.at_exit {
                    see_home(order, held, lent);
                }
                if !order.at_exit {
                    held.let_go(lent);
                }
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

/// Waits for the copy to have marked; else what went wrong. Threads that come to their stop only now
/// are let go, where the others were.
fn see_through(order: &Order, copy: Pid, held: &mut Held) -> Result<(), (Reason, String)> {
    let deadline = Instant::now() + Duration::from_millis(order.limit_ms);
    let mut goes = false;
    loop {
        match waitpid(copy, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::PtraceEvent(..)) if !goes => {
                goes = true;
                let _ = ptrace::setoptions(copy, Options::PTRACE_O_EXITKILL);
                let _ = ptrace::cont(copy, None);
            }
            Ok(WaitStatus::Exited(..)) => return Ok(()),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Err((Reason::Damaged, format!("the copy died of {signal}")));
            }
            Ok(WaitStatus::Stopped(_, Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL)) => {
                let _ = kill(copy, Signal::SIGKILL);
            }
            // Signals meant for the program are not for its copy.
            Ok(WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)) => {
                let _ = ptrace::cont(copy, None);
            }
            Err(Errno::ECHILD) => return Err((Reason::Damaged, "the copy is gone".to_owned())),
            _ => std::thread::sleep(POLL_MARK),
        }
        if !order.at_exit {
            held.release_late();
        }
        if Instant::now() > deadline {
            let _ = kill(copy, Signal::SIGKILL);
            let _ = waitpid(copy, Some(WaitPidFlag::__WALL));
            return Err((Reason::TooLong, "the mark took too long".to_owned()));
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
    memory.send(order, &thread, Method::Held)?;
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
    let answer = memory.answer();
    if answer < 0 {
        return Err(Errno::ESRCH);
    }
    let done = answer != 0;
    held.stop_again(lent, STOP);
    if done && held.was_stopped {
        see_home(order, held, lent);
    }
    Ok(done)
}
