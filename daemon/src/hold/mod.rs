//! Holds a process's threads still, for as long as its memory takes to copy.
//!
//! # Design
//! ```text
//! order     what a helper process is asked, and what it answers: one line of JSON each
//! threads   seizes and interrupts every thread, reads registers, lets them go
//! resume    what a thread cut short in a system call goes on with
//! lend      lets one thread run the shim's entry: forks the process, or marks in it
//! ```
//! A helper process does this (`pageshim hold`, not for people): a tracer must wait for
//! its tracees, and waiting in the daemon would take events from whoever waits for
//! children there. When the helper dies the kernel lets all threads go, and the lent
//! one restores itself.
//!
//! The program sees next to nothing of it: no signal is sent, and system calls that were
//! cut short are made again, also those that would otherwise fail with EINTR. One that has
//! moved part of its bytes returns that part.
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod lend;
pub mod order;
pub mod resume;
pub mod threads;
