//! The parts of the shim that can be tested without hooking a process: system
//! calls, the heap's layers, the unwinder, sites, records and shared state.
//!
//! Nothing here allocates ambiently; memory comes from the caller or from the
//! parent layer a value was given.
#![no_std]

#[cfg(any(test, fuzzing))]
extern crate std;

pub mod fold;
pub mod heap;
pub mod heir;
pub mod leaks;
pub mod modules;
pub mod ranges;
pub mod records;
pub mod sample;
pub mod sites;
pub mod state;
pub mod symbols;
pub mod sync;
pub mod sys;
pub mod track;
pub mod unwind;
pub mod whole;

/// The kernel's page size on x86-64. Other architectures need their own build.
pub const OS_PAGE_BYTES: usize = 4096;
