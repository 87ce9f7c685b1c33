//! The books: state in, reports out. No IO, no clock, no tokio, no axum.
//!
//! # Design
//! ```text
//! View (memfd or bytes) -> header, threads, sites, stacks, modules   decode one section each
//!                       -> book     what is kept of a running process (decoded once)
//!                       -> ended    what is kept of one that ended (no memfd needed)
//! both                  -> summary  numbers of the report;  leaks: sites with raw stacks
//! misuse                -> the last calls that misused the heap
//! suppress              -> which lost sites are known and wanted
//! tally                 -> monotone counters that can be summed over processes
//! ```
//! Every byte read is hostile: sums saturate, indices are checked, work is
//! bounded by what the state has really populated.

#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod book;
pub mod calls;
pub mod chain;
pub mod check;
pub mod ended;
pub mod filter;
pub mod growth;
pub mod header;
pub mod history;
pub mod leaks;
pub mod misuse;
pub mod modules;
pub mod pages;
pub mod report;
pub mod sampled;
pub mod sites;
pub mod sizes;
pub mod stacks;
pub mod summary;
pub mod suppress;
pub mod syscalls;
pub mod tally;
pub mod threads;
pub mod view;
pub mod when;
pub mod why;

#[cfg(test)]
pub mod fake;
