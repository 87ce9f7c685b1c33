//! The parts of the shim that can be tested without hooking a process.
#![no_std]

pub mod unwind;
