//! The bill of system calls as `/syscalls.json` and reports show it.
//!
//! Field names are a contract: add freely, rename never.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::Frame;
use super::threads::more;

/// `/syscalls.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Syscalls {
    /// Version of this document.
    pub schema_version: u32,
    /// Newest first.
    pub processes: Vec<Entry>,
}

/// A process and its calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Id, as in the report.
    pub process: String,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub name: String,
    /// `running`, `exited`, `killed`.
    pub state: String,
    /// Null when calls are billed to sites; else why they are not.
    pub why_not: Option<String>,
    /// All calls of the heap's layers by kind: the sum over `sites` whose party is `heap`.
    pub totals: BTreeMap<String, Made>,
    /// Pairs that could be spared, over all sites.
    pub avoidable: Pairs,
    /// OS pages carved for the first time since the kernel gave them, over all sites.
    pub first_touched_pages: u64,
    /// Bytes of those.
    pub first_touched_bytes: u64,
    /// Who caused them, the longest time first.
    pub sites: Vec<Site>,
    /// Sites with calls, listed or not.
    pub sites_total: u64,
}

/// What one cause had called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// `site`; `start` (requests without a stack: start-up, and all of a mode without
    /// stacks), `upkeep` (pageshim's own), `others` (sites that are not listed).
    pub cause: String,
    /// `heap` for calls of its layers, `program` for those it made itself.
    pub party: String,
    /// Site id, empty for other causes.
    pub site: String,
    /// The function that asked, or what the cause is in words.
    pub function: String,
    /// By kind, kinds without calls left out.
    pub calls: BTreeMap<String, Made>,
    /// Time they took, ns.
    pub nanoseconds: u64,
    /// Ranges got from the kernel.
    pub ranges: u64,
    /// Bytes of those.
    pub range_bytes: u64,
    /// Those given back within a millisecond.
    pub avoidable: Pairs,
    /// OS pages it was the first to carve.
    pub first_touched_pages: u64,
    /// Bytes of those.
    pub first_touched_bytes: u64,
    /// Party `program`: ranges it mapped and holds.
    pub live_ranges: u64,
    /// Bytes of those.
    pub live_bytes: u64,
    /// Leaf first; empty for other causes.
    pub stack: Vec<Frame>,
}

/// What reports carry of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// Pairs that could be spared, over all sites.
    pub avoidable: Pairs,
    /// The causes that took most time.
    pub sites: Vec<Site>,
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// How many.
    pub calls: u64,
    /// Time they took.
    pub nanoseconds: u64,
    /// Bytes they were for.
    pub bytes: u64,
}

impl Made {
    /// None made.
    pub const NONE: Self = Self {
        calls: 0,
        nanoseconds: 0,
        bytes: 0,
    };

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        more(&mut self.calls, other.calls);
        more(&mut self.nanoseconds, other.nanoseconds);
        more(&mut self.bytes, other.bytes);
    }
}

/// Ranges given back to the kernel within a millisecond of being got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// How many, a lower bound.
    pub pairs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Time both calls took.
    pub nanoseconds: u64,
}

impl Pairs {
    /// None seen.
    pub const NONE: Self = Self {
        pairs: 0,
        bytes: 0,
        nanoseconds: 0,
    };

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        more(&mut self.pairs, other.pairs);
        more(&mut self.bytes, other.bytes);
        more(&mut self.nanoseconds, other.nanoseconds);
    }
}
