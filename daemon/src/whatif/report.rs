//! What-if as JSON and pages show it. Field names are a contract: add, never rename.

use serde::{Deserialize, Serialize};

use crate::books::report::{Amount, Frame};

/// `/whatif.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// Version of this document.
    pub schema_version: u32,
    /// Newest first.
    pub processes: Vec<Entry>,
}

/// A process, what it would cost elsewhere, and what to do.
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
    /// Its mode.
    pub mode: String,
    /// The heap it really ran on.
    pub heap: String,
    /// Live now or at its end.
    pub live: Amount,
    /// Most live bytes.
    pub peak: Amount,
    /// All ever allocated.
    pub total: Amount,
    /// A row each layer or model.
    pub costs: Vec<Cost>,
    /// Its sites by blocks ever allocated.
    pub sites: Vec<Site>,
    /// What to do, most worth doing first.
    pub advice: Vec<Advice>,
    /// Why there are no costs.
    pub why_not: Option<String>,
}

/// What a cost is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// What the process really held.
    Measured,
    /// From counters of every block.
    #[default]
    Counted,
    /// From sums of blocks, with an assumption that the note names.
    Estimated,
    /// From another allocator's size classes; the note names the assumptions.
    Model,
}

impl Basis {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
            Self::Model => "model",
        }
    }
}

/// What the requests cost in one place. Null is what is not known there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// `page`, `arena`, `fixed`, `gpa`, `glibc`, `jemalloc`.
    pub layer: String,
    /// What the numbers are worth.
    pub basis: Basis,
    /// OS pages held now or at the end.
    pub pages: Option<u64>,
    /// Most bytes held at a time.
    pub peak_bytes: Option<u64>,
    /// Bytes of `pages` beyond live requested bytes.
    pub waste_bytes: Option<u64>,
    /// Calls to the kernel for blocks, ever.
    pub syscalls: Option<u64>,
    /// Assumptions, and what it would take to go there.
    pub note: String,
}

/// One site's requests elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Site id, as in the report.
    pub site: String,
    /// The frame that asked: the first beyond wrappers.
    pub function: String,
    /// File and line of it, or the module.
    pub place: String,
    /// All blocks ever allocated here.
    pub total: Amount,
    /// Live now or at the end.
    pub live: Amount,
    /// Blocks freed before their thread's next allocation.
    pub temporary_blocks: u64,
    /// Slot bytes beyond the requests, of all blocks.
    pub rounding_bytes: u64,
    /// Mean life of blocks freed, ms, in steps of 4; null when none was.
    pub mean_life_ms: Option<f64>,
    /// A row each layer or model.
    pub costs: Vec<Cost>,
    /// Leaf first.
    pub stack: Vec<Frame>,
}

/// How sure an advice is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A pattern that often has another reason.
    #[default]
    Low,
    /// Likely, but something that matters is not known.
    Medium,
    /// From numbers of every block.
    High,
}

impl Confidence {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// What would be saved; zero is nothing, or not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saves {
    /// Bytes of memory.
    pub bytes: u64,
    /// OS pages.
    pub pages: u64,
    /// Calls to the kernel.
    pub syscalls: u64,
    /// Calls to malloc and free.
    pub calls: u64,
}

/// One thing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Which rule: `temporary`, `together`, `rounding`, `page_blocks`, `retained`, `churn`.
    pub rule: String,
    /// Site id; null when it is about the whole process.
    pub site: Option<String>,
    /// A sentence or two, with numbers.
    pub text: String,
    /// What that would save.
    pub saves: Saves,
    /// `high`, `medium`, `low`.
    pub confidence: Confidence,
    /// Why it is not more, or that much.
    pub because: String,
}
