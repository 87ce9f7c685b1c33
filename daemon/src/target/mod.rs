//! A look into a running process from outside: its memory, its page tables, the
//! books of its heap.
//!
//! # Design
//! ```text
//! access    the way in, once a process's books make sense; the records of a run
//! directory where /proc shows a process, also one whose first thread has ended
//! memory    its mem, read only
//! pagemap   which OS pages are in RAM
//! snapshot  the heap's runs, from its page structs
//! smaps     what else is in RAM
//! picture   all of it into a chart (`crate::heatmap`)
//! survey    all of it into a bill (`crate::bill`)
//! ```
//! The process is not stopped: what is read may be torn or already stale. Every
//! value is checked before it is used as an address or a length, and a struct that
//! makes no sense is skipped and counted, never believed.
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod access;
pub mod directory;
pub mod memory;
pub mod origins;
pub mod pagemap;
pub mod picture;
pub mod smaps;
pub mod snapshot;
pub mod survey;
