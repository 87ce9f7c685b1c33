//! Addresses to functions, files and lines.
//!
//! # Design
//! A process's module table names each file by path and build id with its load
//! bias, so addresses resolve after the process ended or unloaded the file. A
//! file on disk whose build id differs is not used. Names are cached by (file,
//! offset) in [`cache`]; blazesym, which is big while it works, lives only as
//! long as one [`Session`] (a scrape, a report, a capture).
//!
//! Where nothing is known, a frame still has a stable identity:
//! `fun_1a2b@libfoo.so` by the start of its unwind entry, else `0x1a2b@libfoo.so`.
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

mod cache;
mod elf;
mod perf_map;
mod seeded;
mod session;
pub mod storage;
pub mod variables;
mod written;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

pub use session::{Session, Wanted};

use cache::Cache;

/// The names known so far, shared by all reports.
#[derive(Debug, Default)]
pub struct Symbols {
    cache: Mutex<Cache>,
}

impl Symbols {
    /// Starts looking up; nothing is opened before something is missing.
    pub fn session(&self) -> Session<'_> {
        Session::new(self)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A panic while holding it cannot leave it half changed in a way that matters.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
