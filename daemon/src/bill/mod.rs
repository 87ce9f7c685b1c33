//! The bill: every resident byte of a heap, each exactly once, and who holds it.
//!
//! # Design
//! ```text
//! run + its records + which OS pages are in RAM  ->  ledger   one run at a time, in order of address
//! ledger  ->  parts of the whole, and a Cost for each site
//! Cost + stacks  ->  report   what JSON and pages show;  pinners  who holds much with little
//! ```
//! Pure: no IO, no clock. `target::survey` reads a process and feeds the ledger.
//!
//! # Invariants
//! B1. The parts sum to the resident bytes of the runs given, to the byte.
//! B2. Requested, rounding and free-slot bytes of the sites sum to those parts.
//!
//! # The split
//! A resident OS page's free slot bytes are billed to the sites with live blocks on
//! it, by their share of the slot bytes there. A page without any, in a run that
//! some block keeps, is billed to the run's sites the same way. A run without live
//! blocks is retained: no block keeps it.
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod cost;
mod held;
pub mod ledger;
pub mod pinners;
pub mod ranges;
pub mod report;

#[cfg(test)]
mod tests;
