//! What a thread that was cut short in a system call goes on with.
//!
//! # Design
//! A stopped thread that slept in a system call holds an error in `rax` that only the
//! kernel ever sees, and the call's number in `orig_rax`. Let go by the kernel, it makes
//! the call again by itself; a thread that is sent elsewhere first must be told to.
//! A few calls fail with EINTR whenever a thread is woken for a tracer; unless a signal
//! is there to be heard of, they are made again as well. Their time-out, where they have
//! one, begins anew.

use nix::libc::{self, user_regs_struct};
use pageshim_wire::check::saved;

const RESTART_SYSCALL: u64 = 219;
const SYSCALL_BYTES: u64 = 2;

const RESTARTSYS: i64 = -512;
const RESTARTNOINTR: i64 = -513;
const RESTARTNOHAND: i64 = -514;
const RESTART_RESTARTBLOCK: i64 = -516;

/// Calls that tell a program of every interruption.
const TALKATIVE: [libc::c_long; 10] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_io_uring_enter,
];
/// Calls that do so on a socket with SO_RCVTIMEO or SO_SNDTIMEO. What they say so after has moved
/// nothing; a `connect` made again waits for the connection that the first one began.
const TIMED: [libc::c_long; 15] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_connect,
];

/// True when a thread was woken from a call that says so to the program.
pub fn is_cut_short(registers: &user_regs_struct) -> bool {
    let call = registers.orig_rax.cast_signed();
    let says_so = TALKATIVE.contains(&call) || TIMED.contains(&call);
    registers.rax.cast_signed() == -i64::from(libc::EINTR) && says_so
}

/// The registers with which the thread makes its call again, if it was in one.
pub fn resumed(registers: &user_regs_struct, heard: bool) -> user_regs_struct {
    let mut now = *registers;
    let in_call = registers.orig_rax.cast_signed() >= 0;
    let again = match registers.rax.cast_signed() {
        RESTARTSYS | RESTARTNOINTR | RESTARTNOHAND if in_call => Some(registers.orig_rax),
        RESTART_RESTARTBLOCK if in_call => Some(RESTART_SYSCALL),
        _ if !heard && is_cut_short(registers) => Some(registers.orig_rax),
        _ => None,
    };
    if let Some(number) = again {
        now.rax = number;
        now.rip = registers.rip.wrapping_sub(SYSCALL_BYTES);
    }
    now.orig_rax = u64::MAX;
    now
}

/// What the shim's entry restores.
pub fn saved_words(registers: &user_regs_struct) -> [u64; saved::WORDS] {
    let r = registers;
    let mut words = [0; saved::WORDS];
    words[..15].copy_from_slice(&[
        r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ]);
    words[saved::SP] = r.rsp;
    words[saved::PC] = r.rip;
    words[saved::FLAGS] = r.eflags;
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asleep(call: i64, answer: i64) -> user_regs_struct {
        let mut registers = crate::hold::threads::blank();
        registers.rip = 0x1002;
        registers.orig_rax = call.cast_unsigned();
        registers.rax = answer.cast_unsigned();
        registers
    }

    // Goal: a call that was cut short is made again, one that was not goes on. Method: each answer the kernel leaves.
    #[test]
    fn calls_cut_short_are_made_again() {
        let again = |call, answer, heard| {
            let now = resumed(&asleep(call, answer), heard);
            assert_eq!(now.orig_rax, u64::MAX, "the kernel does not do it as well");
            (now.rip, now.rax.cast_signed())
        };
        assert_eq!(again(0, RESTARTSYS, false), (0x1000, 0));
        assert_eq!(again(202, RESTARTNOHAND, true), (0x1000, 202));
        assert_eq!(again(35, RESTART_RESTARTBLOCK, false), (0x1000, 219));
        assert_eq!(
            again(libc::SYS_epoll_wait, -4, false),
            (0x1000, libc::SYS_epoll_wait)
        );
        assert_eq!(
            again(libc::SYS_epoll_wait, -4, true),
            (0x1002, -4),
            "a signal is heard"
        );
        assert_eq!(
            again(libc::SYS_recvmsg, -4, false),
            (0x1000, libc::SYS_recvmsg)
        );
        assert_eq!(again(libc::SYS_close, -4, false), (0x1002, -4));
        assert_eq!(
            again(-1, RESTARTSYS, false),
            (0x1002, RESTARTSYS),
            "not in a call"
        );
        assert_eq!(again(0, 17, false), (0x1002, 17));
    }
}
