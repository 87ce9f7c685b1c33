//! Pictures of a heap: which page runs lie where, how full they are, who holds them.

#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod chart;
pub mod report;
