//! What if: what the same requests cost on other layers and by other allocators' size
//! classes, and advice that follows.
//!
//! # Design
//! `requests` are the counters; `layers` turns them into what our own layers cost, `models`
//! into what glibc's and jemalloc's size classes would; `sites` does the same for one site, as
//! far as its counters go; `advice` says what to do. All pure: no IO, no clock.
//!
//! The columns of `page`, `arena` and `fixed` are counted while the program runs, so a test
//! can run it there and compare.

#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod advice;
pub mod entry;
pub mod layers;
pub mod models;
pub mod report;
pub mod requests;
pub mod sites;

pub use requests::Requests;
