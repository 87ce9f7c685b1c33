//! Which thread is lent.

use nix::unistd::Pid;

use crate::hold::threads::{Stopped, hears};

/// The thread that is disturbed least: best one in no system call.
pub(super) fn choose(pid: u32, threads: &[Stopped]) -> Option<Pid> {
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
}
