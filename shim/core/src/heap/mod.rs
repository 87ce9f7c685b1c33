//! Layers, each given its parent: `page` asks the kernel, the others cut, count
//! or check what their parent gave them.
//!
//! | layer | frees | threads |
//! |---|---|---|
//! | [`page`] | one by one, whole pages, a system call each | any |
//! | [`gpa`] | one by one, size classes | a heap each, blocks cross |
//! | [`smp`] | one by one, powers of two | any |
//! | [`fixed`] | the last block, or all | one ([`fixed::SharedFixed`]: any) |
//! | [`arena`] | the last block, or all | one ([`arena::SharedArena`]: any) |
//! | [`debug`] | one by one, never reused, checked | as its mutex says |
//! | [`first`], [`stats`], [`failing`] | as what they stand on | as what they stand on |
//! | [`pool`] | one by one, values of one type | one |
//!
//! All of them run the suite in [`conformance`].

pub mod accounts;
pub mod arena;
pub mod billing;
mod bump;
pub mod choices;
pub mod conformance;
pub mod debug;
pub mod failing;
pub mod first;
pub mod fixed;
pub mod gpa;
pub mod layer;
pub mod page;
pub mod pool;
pub mod smp;
pub mod stats;
