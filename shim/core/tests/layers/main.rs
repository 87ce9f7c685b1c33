//! The layers, each row of the table of what Zig's allocators do as a test of
//! the row's name: page, fixed, arena, debug, smp, compositions, the suite.
#![allow(unsafe_code, missing_docs)]

mod adapters;
mod arena;
mod compose;
mod debug;
mod driven;
mod equation;
mod every;
mod fixed;
mod page;
mod smp;
mod suite;
mod support;
mod wild;
